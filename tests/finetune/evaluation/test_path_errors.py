"""Distances between paths against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation.metrics import HORIZONS_S, best_of_draws, distance_from_line, path_errors
from tests.helpers.driven_samples import make_sample

TIME_S = 0.1 * np.arange(1, 65)


def straight(speed_mps: float, y_m: float = 0.0) -> np.ndarray:
    return np.column_stack([speed_mps * TIME_S, np.full(64, y_m), np.zeros(64)])


def test_a_plan_that_is_too_fast_deviates_along_the_line_only() -> None:
    errors = path_errors(straight(5.0), straight(4.0))  # one metre more with every second
    for horizon in HORIZONS_S:
        steps = round(10 * horizon)
        assert errors[f"fde_{horizon:g}s_m"] == pytest.approx(horizon)
        assert errors[f"max_deviation_{horizon:g}s_m"] == pytest.approx(horizon)
        assert errors[f"ade_{horizon:g}s_m"] == pytest.approx(0.1 * (steps + 1) / 2)
        assert errors[f"max_lateral_{horizon:g}s_m"] == pytest.approx(0.0, abs=1e-9)


def test_a_swerve_that_ends_counts_as_max_deviation_and_not_as_final() -> None:
    plan = straight(4.0)
    plan[20:25, 1] = (0.5, 1.5, 2.0, 1.5, 0.5)  # at 2.1 ... 2.5 s
    errors = path_errors(plan, straight(4.0))
    assert errors["max_deviation_1s_m"] == errors["fde_3s_m"] == errors["fde_6.4s_m"] == 0.0
    assert errors["max_deviation_3s_m"] == errors["max_lateral_3s_m"] == pytest.approx(2.0)
    assert errors["ade_3s_m"] == pytest.approx(6.0 / 30)
    assert errors["ade_6.4s_m"] == pytest.approx(6.0 / 64)


def test_beside_a_circle_the_lateral_distance_is_the_difference_of_radii() -> None:
    truth = make_sample(0.1).future_array()  # radius 10 m to the left, centre (0, 10)
    angle = np.linspace(0.1, 1.5, 64)
    outside = np.column_stack([12.0 * np.sin(angle), 10.0 - 12.0 * np.cos(angle)])
    assert distance_from_line(outside, truth) == pytest.approx(np.full(64, 2.0), abs=0.01)


def test_a_kart_that_stands_has_a_line_all_the_same() -> None:
    errors = path_errors(straight(2.0), np.zeros((64, 3)))
    assert errors["fde_6.4s_m"] == pytest.approx(12.8)
    assert errors["max_lateral_6.4s_m"] == pytest.approx(0.0, abs=1e-9)


def test_the_best_of_more_draws_is_never_worse() -> None:
    generator = np.random.default_rng(3)
    truth = make_sample(0.1).future_array()
    draws = truth[None] + generator.normal(0.0, 1.0, (8, 64, 3)).cumsum(axis=1) * 0.1
    best = best_of_draws(draws, truth)
    assert best.shape == (8, len(HORIZONS_S))
    assert (np.diff(best, axis=0) <= 0.0).all() and (np.diff(best, axis=0) < 0.0).any()
    alone = [path_errors(draw, truth) for draw in draws]
    for column, horizon in enumerate(HORIZONS_S):
        each = [errors[f"ade_{horizon:g}s_m"] for errors in alone]
        assert best[0, column] == pytest.approx(each[0])
        assert best[-1, column] == pytest.approx(min(each))
