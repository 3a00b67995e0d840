"""Plans that a kart can drive pass; those that lead back, aside, round impossible bends or to another road do not."""

from __future__ import annotations

import numpy as np
import pytest

from closed_loop.control.plan_health import plan_contradiction, plan_defect
from collector.geometry.poses import to_ego, to_map
from tests.helpers.driver_faults import bent


def arc(curvature_1pm: float, speed_mps: float = 4.0, after_m: float = 0.0) -> np.ndarray:
    return bent(curvature_1pm, after_m, speed_mps)(np.empty(0))


@pytest.mark.parametrize("curvature_1pm", [0.0, 0.12, -0.3, 0.38])
def test_what_the_kart_can_steer_is_sane(curvature_1pm: float) -> None:
    speed_mps = 3.0
    assert plan_defect(arc(curvature_1pm, speed_mps), speed_mps=speed_mps) == ""


def test_a_hairpin_that_leads_back_is_sane() -> None:
    assert plan_defect(arc(0.36, 3.0, 1.0), speed_mps=3.0) == ""


@pytest.mark.parametrize(
    ("poses", "speed_mps", "words"),
    [
        (arc(0.8), 4.0, "bends by"),
        (arc(0.45, 6.0), 6.0, "aside"),
        (arc(0.0) * (-1.0, 1.0, 1.0), 4.0, "starts"),
        (np.column_stack([-0.1 * np.arange(1, 65), np.zeros((64, 2))]), 0.5, "backwards"),
        (arc(0.0, 8.0), 1.0, "starts 0.7 m"),
    ],
)
def test_what_it_cannot_is_named(poses: np.ndarray, speed_mps: float, words: str) -> None:
    assert words in plan_defect(poses, speed_mps=speed_mps)


def later(poses: np.ndarray, seconds: float) -> np.ndarray:
    """A plan in the frame of a kart that has followed it for a while."""
    return to_ego(poses, poses[round(seconds * 10) - 1])


def test_a_plan_goes_on_where_the_one_before_led() -> None:
    road = arc(0.15, 5.0, 6.0)
    before = later(road, 0.2)
    on = arc(0.15, 5.0, 5.0)  # the same road, seen from 1 m farther on
    assert plan_contradiction(on, before, 0.2) == ""
    assert "leaves the plan before it" in plan_contradiction(on * (1.0, -1.0, -1.0), before, 0.2)


def test_an_old_plan_contradicts_nothing_that_it_did_not_reach() -> None:
    assert plan_contradiction(arc(-0.15), arc(0.15), 5.5) == ""


def test_a_plan_that_repeats_is_right_on_an_arc_only() -> None:
    for poses, refused in ((arc(0.12), False), (arc(0.15, 4.0, 4.0), True)):
        moved = later(poses, 0.5)
        assert bool(plan_contradiction(poses, moved, 0.5, repeats=True)) == refused
        np.testing.assert_allclose(to_map(moved, poses[4])[:, :2], poses[:, :2], atol=1e-9)
