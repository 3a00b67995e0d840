"""Each verdict of the doctor both ways: the healthy row, and the same with one thing broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.doctor.checks import examine, planned_bytes
from collector.doctor.command import is_useful, verdict
from collector.doctor.config import DoctorConfig
from collector.doctor.facts import Facts, FrameFacts, Row, TopicFacts
from collector.doctor.machine import ADAPTER_FILES, ADAPTER_WEIGHTS, look_at_folder
from collector.doctor.topics import LISTENED
from collector.ros.topics import (
    AWSIM_STATUS,
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    CONTROL_CMD,
    CONTROL_MODE_REQUEST,
    FROM_SIMULATOR,
    GEAR_CMD,
    ODOMETRY,
    STEERING_STATUS,
    TF_STATIC,
    VELOCITY_STATUS,
)
from tests.helpers.doctor_facts import GB, GONE, healthy, healthy_ros, offer, with_ros, with_topic

RECORD, DRIVE = DoctorConfig(purpose="record"), DoctorConfig(purpose="drive", rules="free")
FAST = {"rmw": "rmw_fastrtps_cpp"}
Change = Callable[[Facts], Facts]


def topic(which: object, **changes: object) -> Change:
    return lambda facts: with_topic(facts, which, **changes)  # type: ignore[arg-type]


def ros(**changes: object) -> Change:
    return lambda facts: with_ros(facts, **changes)


def machine(**changes: object) -> Change:
    return lambda facts: replace(facts, **changes)  # type: ignore[arg-type]


def disk(**changes: object) -> Change:
    return lambda facts: machine(disk=replace(facts.disk, **changes))(facts)  # type: ignore[arg-type]


def both(*changes: Change) -> Change:
    def change(facts: Facts) -> Facts:
        for one in changes:
            facts = one(facts)
        return facts

    return change


SILENT = {"received": 0, "rate_hz": None, "newest_ns": None}
TWO = (offer(ODOMETRY, "ekf"), offer(ODOMETRY, "simulator"))

# (planned run, what is broken, row, its state, words in found, words in cure)
CASES: tuple[tuple[str, Change, str, str, str, str], ...] = (
    # The camera.
    ("record", both(topic(CAMERA_IMAGE, **GONE), ros(frame=None)), "camera", "failed", "camera off", "--camera gpu"),
    (
        "drive",
        both(topic(CAMERA_IMAGE, **SILENT), topic(CAMERA_INFO, **SILENT), ros(frame=None)),
        "camera",
        "failed",
        "nothing came in 3.0 s",
        "--camera gpu",
    ),
    (
        "record",
        both(topic(CAMERA_IMAGE, **SILENT), ros(frame=None, profile="FASTDDS_X=/p.xml", **FAST)),
        "camera",
        "failed",
        "30 camera_info did",
        "FASTDDS_X=/p.xml",
    ),
    (
        "record",
        both(topic(CAMERA_IMAGE, **SILENT), ros(frame=None)),
        "camera",
        "failed",
        "lost on their way",
        "network tune",
    ),
    # A frame from before the window, and then none.
    (
        "record",
        both(topic(CAMERA_IMAGE, **SILENT), topic(CAMERA_INFO, **SILENT)),
        "camera",
        "failed",
        "nothing came",
        "--camera gpu",
    ),
    ("record", topic(CAMERA_IMAGE, received=28, lost=2), "camera", "warning", "2 of 30 frames lost", "rmem_max"),
    (
        "record",
        both(topic(CAMERA_IMAGE, received=1, rate_hz=None), ros(**FAST)),
        "camera",
        "failed",
        "28 of 29 frames lost",
        "shared-memory",
    ),
    ("drive", topic(CAMERA_IMAGE, rate_hz=6.0), "camera", "warning", "6.0 Hz (nominal 10)", "short of CPU or GPU"),
    (
        "record",
        ros(frame=FrameFacts(640, 360, "mono16", defect="an image with encoding 'mono16'")),
        "camera",
        "failed",
        "mono16",
        "let the camera publish",
    ),
    (
        "record",
        ros(frame=FrameFacts(640, 360, "bgr8", 4000, is_blank=True)),
        "camera",
        "warning",
        "every pixel",
        "-headless",
    ),
    (
        "drive",
        topic(CAMERA_IMAGE, publishers=(offer(CAMERA_IMAGE, type="sensor_msgs/msg/CompressedImage"),), **SILENT),
        "camera",
        "failed",
        "as sensor_msgs/msg/CompressedImage by awsim",
        "publish it as sensor_msgs/msg/Image",
    ),
    # Odometry, and its cause.
    (
        "record",
        both(topic(ODOMETRY, **GONE), ros(has_gnss=False, has_imu=False)),
        "odometry",
        "failed",
        "nobody publishes",
        "GNSS and IMU off, so there is no localisation: start AWSIM with --gnss on --imu on",
    ),
    ("record", both(topic(ODOMETRY, **SILENT), ros(has_imu=False)), "odometry", "failed", "nothing came", "IMU off"),
    ("drive", topic(ODOMETRY, **SILENT), "odometry", "failed", "nothing came", "/set_initial_pose"),
    ("drive", ros(bad_poses=3), "odometry", "failed", "3 of 150 poses are not finite", "restart the localisation"),
    (
        "record",
        topic(ODOMETRY, publishers=(offer(ODOMETRY, reliability="best_effort"),), **SILENT),
        "odometry",
        "failed",
        "offers it best effort",
        "publish it reliable",
    ),
    ("record", topic(ODOMETRY, publishers=TWO, went_back=40), "odometry", "failed", "jump back", "stop all but one"),
    ("record", topic(ODOMETRY, publishers=TWO), "odometry", "warning", "2 publishers (ekf and simulator)", "stop all"),
    (
        "record",
        topic(ODOMETRY, publishers=(offer(ODOMETRY), offer(ODOMETRY, "b", type="x/msg/Y"))),
        "odometry",
        "warning",
        "also published as x/msg/Y",
        "stop b",
    ),
    ("record", topic(ODOMETRY, rate_hz=20.0), "odometry", "warning", "20.0 Hz (nominal 50)", "short of CPU"),
    ("record", ros(type_errors={ODOMETRY.type: "no nav_msgs"}), "odometry", "failed", "cannot be used", "messages"),
    # Clock, stamps and session.
    ("drive", both(topic(CLOCK, **GONE), ros(time_scale=None)), "clock", "failed", "nobody", "use_sim_time:=false"),
    ("record", both(topic(CLOCK, **GONE), ros(time_scale=None)), "clock", "warning", "nobody", "use_sim_time:=false"),
    ("record", both(topic(CLOCK, **SILENT), ros(time_scale=None)), "clock", "failed", "nothing came", "hangs"),
    ("record", ros(time_scale=0.0), "clock", "failed", "the simulator is paused", "let it run"),
    ("record", ros(time_scale=0.6), "clock", "warning", "0.60 simulated seconds per second, while", "too slow for it"),
    ("record", both(ros(time_scale=0.0), topic(CAMERA_IMAGE, **SILENT)), "camera", "failed", "nothing", "row clock"),
    (
        "drive",
        both(ros(time_scale=0.02), topic(AWSIM_STATUS, **SILENT)),
        "status",
        "warning",
        "0.6 of its periods",
        "--seconds",
    ),
    (
        "record",
        topic(ODOMETRY, newest_ns=1_700_000_000_000_000_000),
        "time stamps",
        "failed",
        "two clocks",
        "use_sim_time:=true",
    ),
    ("record", ros(state="Finish"), "session", "failed", "Finish", "start or reset"),
    # What a recording can do without.
    ("record", topic(CAMERA_INFO, **GONE), "camera info", "warning", "nobody", "intrinsics"),
    ("record", topic(VELOCITY_STATUS, **GONE), "velocity", "warning", "nobody", "from the poses alone"),
    (
        "record",
        topic(STEERING_STATUS, publishers=(offer(STEERING_STATUS, type="autoware_x/msg/Report"),), **SILENT),
        "steering",
        "warning",
        "published as autoware_x/msg/Report",
        "autoware_auto_vehicle_msgs",
    ),
    ("record", topic(AWSIM_STATUS, **GONE), "status", "warning", "nobody", "laps"),
    (
        "record",
        topic(TF_STATIC, publishers=(offer(TF_STATIC, durability="volatile"),), **SILENT),
        "camera mount",
        "warning",
        "offers it volatile",
        "publish it transient local",
    ),
    ("record", topic(CONTROL_CMD, **GONE), "driving", "warning", "nobody", "control_method"),
    ("record", topic(CONTROL_CMD, **SILENT), "driving", "warning", "nothing came", "control mode autonomous"),
    # Whom a drive talks to.
    (
        "drive",
        topic(CONTROL_CMD, publishers=(offer(CONTROL_CMD, "mpc"),), received=120),
        "other drivers",
        "failed",
        "mpc publishes it too",
        "two drivers fight",
    ),
    ("drive", topic(CONTROL_CMD, subscribers=()), "control_cmd", "failed", "nobody listens", "expert:=false"),
    (
        "drive",
        topic(CONTROL_CMD, subscribers=(offer(CONTROL_CMD, "alpamayo_record"), offer(CONTROL_CMD, "rqt_1"))),
        "control_cmd",
        "failed",
        "nobody listens",
        "expert:=false",
    ),
    (
        "drive",
        topic(CONTROL_CMD, subscribers=(offer(CONTROL_CMD, type="autoware_control_msgs/msg/Control"),)),
        "control_cmd",
        "failed",
        "expects autoware_control_msgs/msg/Control",
        "autoware_auto",
    ),
    (
        "drive",
        topic(CONTROL_CMD, subscribers=(offer(CONTROL_CMD, durability="transient_local"),)),
        "control_cmd",
        "failed",
        "asks for it transient_local",
        "volatile",
    ),
    ("drive", topic(GEAR_CMD, subscribers=()), "gear_cmd", "warning", "nobody listens", "start AWSIM"),
    ("drive", topic(CONTROL_MODE_REQUEST, subscribers=()), "engage", "warning", "nobody listens", "start AWSIM"),
    ("drive", topic(AWSIM_STATUS, **GONE), "status", "warning", "nobody", "duration_s:="),
    # ROS, messages and middleware.
    (
        "record",
        lambda facts: replace(facts, ros=None, ros_error="rclpy is missing"),
        "ROS 2",
        "failed",
        "rclpy",
        "source /opt/ros",
    ),
    (
        "record",
        lambda facts: replace(facts, ros=None, ros_error="no profile", ros_cure="set XDG"),
        "ROS 2",
        "failed",
        "no profile",
        "set XDG",
    ),
    (
        "record",
        ros(type_errors={VELOCITY_STATUS.type: "no compiler"}),
        "messages",
        "failed",
        "no compiler",
        "alpamayo-mono messages",
    ),
    ("record", machine(rmem_max=212_992), "middleware", "warning", "rmem_max is 212992", "sysctl"),
    ("record", machine(lo_multicast=False), "middleware", "warning", "no multicast", "multicast on"),
    # Disk and model.
    ("record", disk(free_bytes=GB), "disk", "failed", "10 min need 2.4", "room for 4 min"),
    ("record", disk(free_bytes=int(2.6 * GB)), "disk", "warning", "2.6 GB free", "tight"),
    ("record", disk(taken=True), "disk", "failed", "exists", "new folder"),
    ("drive", disk(writable=False), "disk", "failed", "/data is not yours", "--out"),
    ("drive", disk(free_bytes=10**6), "disk", "failed", "0.0 GB free", "free some space"),
    (
        "drive",
        machine(model_rows=(look_at_folder("adapter", Path("/a"), ADAPTER_FILES, ADAPTER_WEIGHTS),)),
        "adapter",
        "failed",
        "/a: there is no such folder",
        "--adapter",
    ),
)


def examined(facts: Facts, purpose: str) -> dict[str, Row]:
    rows = examine(facts, RECORD if purpose == "record" else DRIVE)
    assert len({row.name for row in rows}) == len(rows)
    # Every row that is not good says what to do, and no good one does.
    assert all(bool(row.cure) == (row.state != "ok") for row in rows)
    return {row.name: row for row in rows}


@pytest.mark.parametrize("purpose", ["record", "drive"])
def test_nothing_is_wrong_with_the_healthy(purpose: str) -> None:
    rows = examined(healthy(purpose), purpose)
    assert {name: row for name, row in rows.items() if row.state != "ok"} == {}
    assert verdict(list(rows.values()), purpose).startswith("Ready")
    assert {name for name_purpose, _, name, *_ in CASES if name_purpose == purpose} - set(rows) <= {"ROS 2", "adapter"}


@pytest.mark.parametrize(
    ("purpose", "change", "name", "state", "found", "cure"),
    CASES,
    ids=[f"{number}-{case[2].replace(' ', '_')}" for number, case in enumerate(CASES)],
)
def test_each_fault_is_named_with_its_cure(
    purpose: str, change: Change, name: str, state: str, found: str, cure: str
) -> None:
    rows = examined(change(healthy(purpose)), purpose)
    row = rows[name]
    assert (row.state, found in row.found, cure in row.cure) == (state, True, True), row
    assert is_useful(rows.values()) == all(other.state != "failed" for other in rows.values())
    if state == "failed":
        assert name in verdict(list(rows.values()), purpose)


def test_a_fault_that_does_not_matter_is_not_reported() -> None:
    """The same facts, harmless for the other run or below the threshold."""
    kept = [
        ("drive", topic(CAMERA_INFO, **GONE)),
        ("drive", topic(VELOCITY_STATUS, **GONE)),
        ("record", topic(GEAR_CMD, subscribers=())),
        ("record", topic(CAMERA_IMAGE, rate_hz=9.52)),
        ("record", topic(ODOMETRY, rate_hz=30.0)),
        ("record", topic(TF_STATIC, publishers=(offer(TF_STATIC), offer(TF_STATIC, "other")))),
        ("record", topic(ODOMETRY, publishers=(offer(ODOMETRY, reliability="", durability=""),))),
        ("record", ros(time_scale=0.95)),
        ("record", ros(time_scale=2.0, announced_scale=None)),
        ("record", both(machine(rmem_max=212_992, lo_multicast=False), ros(**FAST))),
        ("record", machine(rmem_max=None, lo_multicast=None)),
        ("drive", topic(CONTROL_CMD, subscribers=(offer(CONTROL_CMD, "rqt"), offer(CONTROL_CMD, "/awsim/kart")))),
        ("drive", disk(free_bytes=GB)),
    ]
    for purpose, change in kept:
        rows = examined(change(healthy(purpose)), purpose)
        assert not [row for row in rows.values() if row.state != "ok"]


def test_without_a_simulator_one_row_says_so_and_the_others_point_to_it() -> None:
    nobody = {which.name: TopicFacts() for which in LISTENED} | {
        which.name: TopicFacts() for which in (GEAR_CMD, CONTROL_MODE_REQUEST)
    }
    alone = with_ros(healthy("record"), topics=nobody, time_scale=None, state="", frame=None)
    rows = examined(alone, "record")
    assert rows["simulator"].state == "failed" and "alpamayo-mono simulate" in rows["simulator"].cure
    assert "row simulator" in rows["camera"].cure and rows["camera"].state == "failed"
    elsewhere = examined(with_ros(alone, domain=0, other_domains=(1,)), "drive")["simulator"]
    assert "there is one in domain 1" in elsewhere.found and elsewhere.cure == "export ROS_DOMAIN_ID=1"
    closed = examined(with_ros(alone, closed_domains=(3, 4)), "record")["simulator"]
    assert "domain 3, 4 could not be joined" in closed.found
    admin = examined(with_ros(alone, domain=0, has_admin=True), "record")["simulator"]
    assert "ROS_DOMAIN_ID=1" in admin.cure
    assert "LOCALHOST" in examined(with_ros(alone, discovery="RANGE=LOCALHOST"), "record")["simulator"].cure


def test_a_domain_that_would_end_the_process_is_refused() -> None:
    assert DoctorConfig(domains=(0, 232)).domains == (0, 232)
    with pytest.raises(MonoError, match="domains:=233"):
        DoctorConfig(domains=(1, 233))


def test_a_real_vehicle_needs_no_clock() -> None:
    facts = with_ros(with_topic(healthy("drive"), CLOCK, **GONE), time_scale=None)
    rows = {row.name: row for row in examine(facts, replace(DRIVE, use_sim_time=False))}
    assert rows["clock"].state == "ok"


def test_disk_is_planned_from_what_was_measured() -> None:
    facts = healthy_ros("record")
    rest_bps = sum(
        100.0 * which.rate_hz for which in (*FROM_SIMULATOR, CONTROL_CMD) if which.rate_hz and which is not CAMERA_IMAGE
    )
    assert planned_bytes(facts, 10.0)[0] == round((400_000 * 10.0 + rest_bps) * 600.0)
    assert planned_bytes(replace(facts, frame=None), 1.0)[0] == round((500_000 * 10.0 + rest_bps) * 60.0)
    bytes_without_ros, how = planned_bytes(None, 1.0)
    assert bytes_without_ros == round(5_050_000.0 * 60.0) and "guess" in how


def test_a_drive_by_its_wheels_needs_them_and_no_poses() -> None:
    by_wheels = DoctorConfig(purpose="drive")
    without_poses = {row.name: row for row in examine(topic(ODOMETRY, **GONE)(healthy("drive")), by_wheels)}
    assert without_poses["odometry"].state == "warning" and "measure" in without_poses["odometry"].cure
    assert is_useful(list(without_poses.values()))
    for wheels, name in ((VELOCITY_STATUS, "velocity"), (STEERING_STATUS, "steering")):
        rows = {row.name: row for row in examine(topic(wheels, **GONE)(healthy("drive")), by_wheels)}
        assert rows[name].state == "failed" and not is_useful(list(rows.values()))
