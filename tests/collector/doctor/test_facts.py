"""What the doctor makes of the messages it heard."""

from __future__ import annotations

import numpy as np
import pytest

from collector.doctor.facts import heard


def test_rates_and_losses_come_from_stamps_else_from_arrivals() -> None:
    period_ns = 100_000_000
    stamps = [n * period_ns for n in range(30) if n not in (7, 8, 20)]
    arrivals = [stamp // 2 for stamp in stamps]  # the simulator runs at twice real time
    facts = heard((), (), 10.0, stamps, arrivals, [1000] * 27, 2.0)
    assert (facts.received, facts.lost, facts.went_back, facts.mean_bytes) == (27, 3, 0, 1000.0)
    assert facts.rate_hz == pytest.approx(26 / 2.9) and facts.newest_ns == stamps[-1]
    unstamped = heard((), (), 10.0, [], arrivals, [1] * 27, 2.0)
    assert unstamped.rate_hz == pytest.approx(26 / 2.9) and (unstamped.lost, unstamped.newest_ns) == (0, None)
    zeros = heard((), (), 10.0, [0] * 27, arrivals, [1] * 27, 2.0)
    assert zeros == unstamped
    two_clocks = np.ravel([(n, n + 50) for n in range(0, 20, 2)]) * period_ns
    assert heard((), (), 10.0, list(two_clocks), list(range(20)), [1] * 20, 1.0).went_back == 9
    assert heard((), (), 10.0, [5], [5], [1], None).rate_hz is None
