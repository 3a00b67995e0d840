"""Dead reckoning against a kart that really drove, and against reports of no kart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.geometry.poses import advance, to_ego
from collector.vehicle.dead_reckoning import DeadReckoning, Reckoned
from collector.vehicle.model import KART, VehicleModel

STEP_NS = 1_000_000_000 // 30
Report = tuple[int, float, float, tuple[float, float, float]]  # stamp, speed, tyre angle, true pose


def swerve(seconds: float, model: VehicleModel = KART, fine: int = 100) -> Iterator[Report]:
    """Reports at 30 Hz of a kart that speeds up and swerves, and where it really is."""
    pose, t_s = (3.0, -2.0, 1.0), 0.0
    for count in range(round(seconds * 30)):
        speed, angle = motion(t_s)
        yield count * STEP_NS, speed / model.speed_scale, angle / model.report_scale, pose
        for _ in range(fine):
            t_s += STEP_NS * 1e-9 / fine
            speed, angle = motion(t_s)
            pose = advance(pose, speed * STEP_NS * 1e-9 / fine, math.tan(angle) / model.wheelbase_m)


def motion(t_s: float) -> tuple[float, float]:
    return 4.0 - 3.0 * math.cos(0.5 * t_s), 0.35 * math.sin(1.1 * t_s)


def off_m(reckoned: Reckoned, first: Report, true: tuple[float, float, float]) -> float:
    shown = to_ego(true, first[3])
    return math.dist(reckoned.pose_odom[:2], shown[:2])


@pytest.mark.parametrize("model", [KART, VehicleModel(wheelbase_m=1.4, report_scale=1.2, speed_scale=0.9)])
@pytest.mark.parametrize("steering_first", [True, False])
def test_a_swerving_kart_is_followed(model: VehicleModel, steering_first: bool) -> None:
    reckoning, reports = DeadReckoning(model), list(swerve(12.0, model))
    for stamp_ns, speed, angle, true in reports:
        calls = [
            lambda s=stamp_ns, v=speed: reckoning.velocity(s, v),
            lambda s=stamp_ns, a=angle: reckoning.steering(s, a),
        ]
        early, place = (call() for call in calls[:: -1 if steering_first else 1])
        assert early is None and place is not None and place.stamp_ns == stamp_ns
        assert off_m(place, reports[0], true) < 0.02
        assert place.speed_mps == pytest.approx(motion(stamp_ns * 1e-9)[0])
    assert not reckoning.refused


def test_streams_of_other_rates_and_stamps_serve_too() -> None:
    reckoning, reports = DeadReckoning(KART), list(swerve(12.0))
    for (stamp_ns, speed, angle, true), (next_ns, _, next_angle, _) in itertools.pairwise(reports):
        reckoning.velocity(stamp_ns, speed)
        place = reckoning.steering(stamp_ns + STEP_NS // 3, angle + (next_angle - angle) / 3)
        assert place is None or place.stamp_ns < next_ns
        if place is not None and place.stamp_ns == stamp_ns:
            assert off_m(place, reports[0], true) < 0.05


def garbage(rate: float, count: int) -> float:
    return (1256.0, math.nan, -1256.0, 0.0, rate + 1.0)[count % 5]


@pytest.mark.parametrize(
    "report", [garbage, lambda rate, _: -rate, lambda _rate, _count: 0.0, lambda rate, _: rate * 2]
)
def test_a_heading_rate_that_is_none_is_not_used(report: object) -> None:
    assert callable(report)
    reckoning, bare, reports = DeadReckoning(KART), DeadReckoning(KART), list(swerve(12.0))
    for count, (stamp_ns, speed, angle, _) in enumerate(reports):
        reckoning.velocity(stamp_ns, speed, report(speed * KART.curvature_1pm(angle), count))
        bare.velocity(stamp_ns, speed)
        one, other = reckoning.steering(stamp_ns, angle), bare.steering(stamp_ns, angle)
        assert one is not None and other is not None
        assert math.dist(one.pose_odom, other.pose_odom) < 0.1


def test_one_that_agrees_makes_up_for_a_wrong_wheelbase() -> None:
    off = []
    for rate_known in (True, False):
        reckoning, reports = DeadReckoning(VehicleModel(wheelbase_m=1.2)), list(swerve(12.0))
        for stamp_ns, speed, angle, _ in reports:
            reckoning.velocity(stamp_ns, speed, speed * KART.curvature_1pm(angle) if rate_known else math.nan)
            place = reckoning.steering(stamp_ns, angle)
            assert place is not None
        off.append(off_m(place, reports[0], reports[-1][3]))
    assert off[0] < 0.2 * off[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300, 55.0])
@pytest.mark.parametrize("which", ["speed", "angle"])
def test_reports_of_no_kart_cost_nothing(bad: float, which: str) -> None:
    reckoning, reports = DeadReckoning(KART), list(swerve(12.0))
    for count, (stamp_ns, speed, angle, true) in enumerate(reports):
        hit = count % 7 == 3
        reckoning.velocity(stamp_ns, bad if hit and which == "speed" else speed)
        place = reckoning.steering(stamp_ns, bad if hit and which == "angle" else angle)
        if place is not None:
            assert off_m(place, reports[0], true) < 0.1
    assert sum(reckoning.refused.values()) == len([c for c in range(len(reports)) if c % 7 == 3])


def test_a_spike_is_doubted_and_a_real_leap_believed() -> None:
    reckoning = DeadReckoning(KART)
    places = []
    for count, speed in enumerate([3.0, 3.0, 25.0, 3.0, 3.0, 0.0, 0.0, 0.0]):
        reckoning.velocity(count * STEP_NS, speed)
        places.append(reckoning.steering(count * STEP_NS, 0.0))
    assert [place is not None for place in places] == [True, True, False, True, True, False, True, True]
    last = places[-1]
    assert last is not None and last.speed_mps == 0.0 and last.pose_odom[0] == pytest.approx(3.0 * 5 / 30, abs=0.1)


def test_repeated_and_late_reports_change_nothing() -> None:
    reckoning, bare = DeadReckoning(KART), DeadReckoning(KART)
    for stamp_ns, speed, angle, _ in swerve(6.0):
        for late_ns in (0, STEP_NS, 20_000_000):
            reckoning.velocity(stamp_ns - late_ns, speed)
            reckoning.steering(stamp_ns - late_ns, angle)
        bare.velocity(stamp_ns, speed)
        bare.steering(stamp_ns, angle)
    assert reckoning.newest == bare.newest and reckoning.refused


@pytest.mark.parametrize("leap_ns", [-(10**12), 5 * 10**9, 10**17])
def test_a_clock_that_leaps_leaves_the_place(leap_ns: int) -> None:
    reckoning, reports = DeadReckoning(KART), list(swerve(4.0))
    before = None
    for count, (stamp_ns, speed, angle, _) in enumerate(reports):
        other_ns = stamp_ns + (leap_ns if count >= 60 else 0)
        place = reckoning.velocity(other_ns, speed) or reckoning.steering(other_ns, angle)
        assert place is not None
        if count == 60:
            assert before is not None and place.pose_odom == before.pose_odom
        before = place
    assert place.stamp_ns == reports[-1][0] + leap_ns


def test_a_single_stamp_of_another_clock_is_survived() -> None:
    reckoning, reports = DeadReckoning(KART), list(swerve(12.0))
    for count, (stamp_ns, speed, angle, _) in enumerate(reports):
        reckoning.velocity(stamp_ns + (10**15 if count == 100 else 0), speed)
        place = reckoning.steering(stamp_ns + (10**15 if count == 200 else 0), angle)
    assert place is not None and place.stamp_ns == reports[-1][0] and off_m(place, reports[0], reports[-1][3]) < 0.3


def test_a_silent_stream_gives_no_place() -> None:
    reckoning = DeadReckoning(KART)
    assert all(reckoning.velocity(count * STEP_NS, 3.0) is None for count in range(90))
    assert reckoning.newest is None and reckoning.at(0) is None


def test_the_place_is_carried_to_a_stamp() -> None:
    reckoning = DeadReckoning(KART)
    for count in range(3):
        reckoning.velocity(count * STEP_NS, 3.0)
        reckoning.steering(count * STEP_NS, 0.2)
    now, later = reckoning.newest, reckoning.at(2 * STEP_NS + 100_000_000)
    assert now is not None and later is not None
    assert later.pose_odom == pytest.approx(advance(now.pose_odom, 0.3, KART.curvature_1pm(0.2)))


number = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 10)
report = st.tuples(st.booleans(), st.integers(0, 2**62) | st.integers(0, 10**10), number, number)


@given(st.lists(report, max_size=60))
def test_no_reports_whatever_give_a_place_that_is_no_number(reports: list[tuple[bool, int, float, float]]) -> None:
    reckoning = DeadReckoning(KART)
    for is_speed, stamp_ns, value, rate in reports:
        place = reckoning.velocity(stamp_ns, value, rate) if is_speed else reckoning.steering(stamp_ns, value)
        if place is not None:
            assert np.isfinite([*place.pose_odom, place.speed_mps, place.yaw_rate_radps]).all()
