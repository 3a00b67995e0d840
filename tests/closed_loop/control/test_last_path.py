"""Where a kart is reckoned to be while nothing says it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from closed_loop.control.controller import ControllerConfig
from closed_loop.control.last_path import LastPath
from collector.vehicle.model import KART


@pytest.mark.parametrize("accel_lag_s", [0.0, 0.12, 1.0])
def test_braking_is_reckoned_with_the_lag_of_the_vehicle(accel_lag_s: float) -> None:
    config = ControllerConfig.of(replace(KART, accel_lag_s=accel_lag_s))
    path = LastPath(config.accel_lag_s)
    path.known(np.zeros(3), 5.0, 0.0)
    path.told(-2.0)
    for tick in range(1, 1001):
        path.reckon(tick * 1e-3, 1.0, 0.0)
    # The integral of an acceleration that comes up to -2 m/s^2 as 1 - exp(-t / lag).
    expected = 5.0 - 2.0 * (1.0 - accel_lag_s * (1.0 - np.exp(-1.0 / max(accel_lag_s, 1e-9))))
    assert path.speed_mps == pytest.approx(expected, abs=0.01)
