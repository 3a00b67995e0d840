"""Euler steps on exact flows: what needs them, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exact_flow import euler_gaussian, euler_two_ends


def test_euler_goes_any_distance_and_its_error_does_not_grow_with_it() -> None:
    x0 = np.random.default_rng(1).standard_normal(500)
    for steps in (1, 5, 10):
        assert np.abs(euler_gaussian(10.0, 0.0, x0, steps) - 10.0).max() < 1e-9
    errors = {
        (mean, steps): np.sqrt(np.mean((euler_gaussian(mean, 0.3, x0, steps) - (mean + 0.3 * x0)) ** 2))
        for mean in (0.0, 10.0)
        for steps in (5, 50)
    }
    assert errors[0.0, 5] == pytest.approx(errors[10.0, 5], abs=1e-9)
    assert errors[0.0, 50] < 0.2 * errors[0.0, 5]
    # Between two far ends few steps lose some draws; with many, each ends at one of them.
    lost = [np.mean(np.abs(np.abs(euler_two_ends(8.0, 0.3, x0, steps)) - 8.0) > 0.9) for steps in (5, 500)]
    assert lost[0] > 0.03 > lost[1]
