"""Drivers without a camera: hand-computed motion, and a regression that knows its training split only."""

from __future__ import annotations

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.geometry.poses import mirror_poses
from finetune.evaluation.baselines import EgoRegressor, constant_motion
from finetune.evaluation.metrics import path_errors
from tests.helpers.driven_samples import make_sample, make_stretches


def ade(plan: np.ndarray, truth: np.ndarray) -> float:
    return path_errors(plan, truth)["ade_6.4s_m"]


def test_constant_motion_is_exact_where_motion_is_constant() -> None:
    circle, line = make_sample(0.1, speed_mps=4.0), make_sample(0.0, speed_mps=4.0)
    assert ade(constant_motion(line.history_array(), turning=False), line.future_array()) < 1e-9
    # 4 m/s on a radius of 10 m turn by 0.4 rad/s; chords of 0.1 s are shorter than arcs by a few parts in 10,000.
    assert ade(constant_motion(circle.history_array(), turning=True), circle.future_array()) < 0.01
    ahead = constant_motion(circle.history_array(), turning=False)
    assert ahead[-1] == pytest.approx((25.6, 0.0, 0.0), abs=0.01)


def test_the_regressor_learns_what_history_tells() -> None:
    train = make_stretches(12, 10, "train")
    regressor = EgoRegressor.fit(train)
    assert regressor.samples == 120
    unseen = make_sample(0.104, speed_mps=3.5)
    told = ade(regressor.predict(unseen.history_array(), unseen.speed_mps), unseen.future_array())
    assert told < 0.5 * ade(constant_motion(unseen.history_array(), turning=False), unseen.future_array())
    plan = regressor.predict(unseen.history_array(), unseen.speed_mps)
    mirrored = regressor.predict(mirror_poses(unseen.history_array()), unseen.speed_mps)
    assert np.allclose(mirrored, mirror_poses(plan), atol=1e-6), "a regressor must not prefer a side"


def test_no_validation_sample_can_reach_the_fit() -> None:
    with pytest.raises(MonoError, match="'val' among"):
        EgoRegressor.fit([*make_stretches(6, 10, "train"), make_sample(split="val")])


def test_a_penalty_is_chosen_on_laps_left_out() -> None:
    """Futures that history cannot tell: a fit by the training error alone would take the least penalty."""
    generator = np.random.default_rng(0)
    train = []
    for sample in make_stretches(12, 10, "train"):
        shaken = sample.history_array() + generator.normal(0.0, 0.3, (16, 3))
        train.append(sample.model_copy(update={"history": tuple(map(tuple, shaken.tolist()))}))
    assert EgoRegressor.fit(train).penalty > EgoRegressor.fit(make_stretches(12, 10, "train")).penalty


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(MonoError, match="3 training samples"):
        EgoRegressor.fit(make_stretches(1, 3, "train"))
