"""Whatever breaks 5 m before a curve at 5 m/s, the kart brakes within 0.7 s and stays on the road."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.driver_faults import FAULTS, Fault, Memory, Odometry, moved
from tests.helpers.fault_trials import STANDING_MPS, Drive, Trial

WITHIN_S = 0.7
BY_NAME = {fault.name: fault for fault in FAULTS}
# One of each way to notice; the others are asked of the judges of pictures, odometry and plans, and all of them are
# driven over processes by benchmarks/fault_campaign.py.
DRIVEN = (
    "camera silent",
    "camera black",
    "camera stamps 1 s behind",
    "camera stamps zero",
    "odometry silent",
    "odometry repeated",
    "odometry, values frozen",
    "odometry, wheel speed 0",
    "odometry says standing",
    "odometry, yaw off by 90 degrees",
    "odometry jumps by 3 m",
    "odometry stamps back by 5 s",
    "odometry stamps slowed to a quarter",
    "clock stopped",
    "plan not finite",
    "plan off the road",
    "plan constant",
    "plans 1 s later",
    "policy hangs",
    "policy dies",
    "policy answers errors",
    "camera black, odometry frozen",
)


def halted(memory: Memory, t: float, message: Odometry) -> Odometry:
    return replace(memory.setdefault("halted", message), stamp_ns=message.stamp_ns)


def trial(fault: Fault, rules: str = "free", fault_s: float = 2.6, after_s: float = 0.0) -> Trial:
    return Drive(fault, rules, fault_s=fault_s, after_s=after_s).run()


@pytest.mark.parametrize("name", DRIVEN)
def test_it_brakes_in_time_and_stays_on_the_road(name: str) -> None:
    fault = BY_NAME[name]
    seen = trial(fault)
    # What is noticed by its own plan: the policy is asked five times a second, and answers a tenth later.
    late_s = 0.2 if fault.name.startswith(("plans 1 s", "policy hangs")) else 0.0
    assert seen.speed_mps > 4.8
    assert seen.braked_s is not None and seen.braked_s < WITHIN_S + late_s, seen
    assert seen.reason and seen.beyond_m < 0.0, seen
    if "jumps" not in fault.name and fault.name != "plans 1 s later":
        assert seen.end_mps < STANDING_MPS, seen


@pytest.mark.parametrize(
    "fault",
    [Fault("nothing", {}), *(f for f in FAULTS if f.expected == "none" and not f.processes_only)],
    ids=lambda fault: fault.name,
)
def test_what_is_no_fault_brakes_nothing(fault: Fault) -> None:
    seen = trial(fault)
    assert not seen.reason and seen.braked_s is None and seen.end_mps > 4.0, seen


@pytest.mark.parametrize("rules", ["free", "e2e"])
def test_pictures_every_105_ms_and_rubbish_for_yaw_rates_brake_nothing(rules: str) -> None:
    seen = Drive(BY_NAME["odometry, yaw rate rubbish"], rules, fault_s=4.0, after_s=0.0, camera_s=0.105).run()
    assert not seen.reason and seen.braked_s is None and seen.end_mps > 4.0, seen


@pytest.mark.parametrize("name", ["plans 0.4 s later", "plans 0.55 s later", "plans up to 0.7 s later"])
def test_late_plans_make_it_slow_and_keep_it_on_the_road(name: str) -> None:
    seen = trial(BY_NAME[name], fault_s=6.0)
    assert seen.beyond_m < -1.0 and 1.0 < seen.end_mps < 4.5, seen


@pytest.mark.parametrize("name", ["odometry, wheel speed 0", "odometry silent", "odometry not a number"])
def test_wheels_that_lie_stop_a_kart_that_has_nothing_else(name: str) -> None:
    """By the rules of the end-to-end class: a speed of 0 is told from a stop by the picture, which goes on changing."""
    seen = trial(BY_NAME[name], "e2e")
    assert seen.braked_s is not None and seen.braked_s < WITHIN_S, seen
    assert seen.beyond_m < 0.0 and seen.end_mps < STANDING_MPS, seen


def test_a_plan_that_stands_is_driven_to_a_stop() -> None:
    seen = trial(BY_NAME["plan standing"], fault_s=4.0)
    assert seen.braked_s is not None and seen.braked_s < WITHIN_S and seen.end_mps < STANDING_MPS, seen


def test_it_drives_on_when_all_has_been_well_for_a_while_and_not_before() -> None:
    drive = Drive(BY_NAME["camera black"], fault_s=3.0, after_s=4.0)
    seen = drive.run()
    assert seen.standing_s is not None and seen.recovered, seen
    assert seen.brakes["camera picture unusable"] == 1, "it never flickered"


@pytest.mark.parametrize(
    "name", ["wheel speed fades", "steering stuck", "steering says straight on", "steering mirrored", "steering silent"]
)
def test_reports_that_contradict_nothing_but_the_commands_stop_the_kart_on_the_road(name: str) -> None:
    """A stuck angle is right until the bend begins, so it is not noticed before."""
    seen = trial(BY_NAME[name], "e2e", fault_s=5.0, after_s=1.0)
    assert seen.braked_s is not None and seen.braked_s < 2.5, seen
    assert max(seen.beyond_m, seen.beyond_after_m) < -1.0 and seen.end_mps < STANDING_MPS, seen
    assert "odometry" in seen.reason, seen


@pytest.mark.parametrize(
    ("rules", "changes"),
    [("e2e", {"wheels": moved(speed=lambda o: 0.0)}), ("free", {"odometry": halted})],
    ids=["wheels", "localisation"],
)
def test_a_kart_that_is_said_to_stand_from_the_first_metre_on_is_not_driven_ever_faster(
    rules: str, changes: Any
) -> None:
    drive = Drive(Fault("dead from the start", changes), rules, fault_s=8.0, after_s=0.0)
    drive.began_step, drive.world_m = 0, drive.world.progress_m
    seen = drive.run()
    assert seen.end_mps < 2.5 and seen.beyond_m < -2.0, seen
    assert seen.brakes["odometry implausible"] >= 1, seen
