"""Settings of the nodes: typed, bounded, and declared as ROS parameters with those bounds."""

from __future__ import annotations

import pytest

from closed_loop.ros.config import DRIVE_NODE, SIMULATE_NODE, SIMULATOR_BESIDE, DriveConfig
from collector.common.arguments import Argument, arguments_of
from collector.common.errors import MonoError
from collector.ros.parameters import (
    RECORD_NODE,
    Program,
    RecordConfig,
    RecordParameters,
    SimulateConfig,
    declare_parameters,
    parameter_values,
)

PROGRAMS = {program.name: program for program in (RECORD_NODE, DRIVE_NODE, SIMULATE_NODE)}
CONFIGS = (RecordConfig, DriveConfig, SimulateConfig)
TABLE: dict[str, Argument] = {each.name: each for config in CONFIGS for each in arguments_of(config)}


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [("laps", 3, 3), ("wait_s", 5, 5.0), ("reasoning", False, False), ("out", "2026", "2026")],
)
def test_values_take_the_type_of_the_default(name: str, given: object, value: object) -> None:
    fitted = TABLE[name].fitted(given)
    assert fitted == value and type(fitted) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("laps", 3.5),
        ("laps", True),
        ("laps", "1"),
        ("laps", None),
        ("laps", 1001),
        ("wait_s", "soon"),
        ("wait_s", float("nan")),
        ("duration_s", float("inf")),
        ("wait_s", -1),
        ("wait_s", True),
        ("reasoning", "maybe"),
        ("reasoning", 1),
        ("out", 2026),
        ("jpeg_quality", 0),
        ("jpeg_quality", 101),
        ("cameras", "five"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(MonoError, match=f"{name}:="):
        TABLE[name].fitted(value)


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_are_explained_and_fit_their_own_bounds(config: type) -> None:
    arguments = arguments_of(config)
    config()
    for each in arguments:
        assert each.name.isidentifier() and each.name == each.name.lower()
        assert len(each.help) > 10 and each.limits in each.help
        assert type(each.fitted(each.default)) is each.type


def test_a_default_that_does_not_fit_is_noticed() -> None:
    with pytest.raises(MonoError, match=r"jpeg_quality:=500.*1 to 100"):
        RecordConfig(jpeg_quality=500)


def test_verbs_share_and_differ() -> None:
    record, drive, simulate = ({each.name for each in arguments_of(config)} for config in CONFIGS)
    assert "jpeg_quality" in record - drive and "adapter" in drive - record
    assert "course" in record & drive & simulate
    assert "simulator" in record & drive and "simulator" not in simulate
    # A verb offers every parameter of the node it exists for, and everything about a simulator beside it.
    assert {each.name for each in arguments_of(RECORD_NODE.parameters)} <= record
    assert {each.name for each in arguments_of(DRIVE_NODE.parameters)} <= drive
    assert {each.name for each in arguments_of(SIMULATOR_BESIDE.parameters)} <= record & drive


def test_a_simulator_beside_is_not_given_the_main_nodes_end() -> None:
    """The recorder counts its seconds from the first frame; a simulator stopping on its own would cut the bag."""
    config = RecordConfig(duration_s=20.0, course="random:3")
    assert parameter_values(RECORD_NODE, config)["duration_s"] == 20.0
    beside = parameter_values(SIMULATOR_BESIDE, config)
    assert "duration_s" not in beside and beside["course"] == "random:3"
    assert parameter_values(SIMULATE_NODE, SimulateConfig(duration_s=20.0))["duration_s"] == 20.0


def test_expert_drives_only_while_recording() -> None:
    assert parameter_values(SIMULATOR_BESIDE, RecordConfig())["expert"] is True
    assert parameter_values(SIMULATOR_BESIDE, DriveConfig())["expert"] is False
    assert parameter_values(SIMULATOR_BESIDE, DriveConfig(expert=True))["expert"] is True
    assert DriveConfig().disturbance == 0.0 and RecordConfig().disturbance > 0.0


@pytest.mark.ros
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
def test_nodes_declare_their_parameters(program: Program, ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("spy", context=context)
        values = declare_parameters(node, program.parameters)
        for each in arguments_of(program.parameters):
            # rclpy declares use_sim_time itself, with its own default.
            if each.name != "use_sim_time":
                assert getattr(values, each.name) == each.default
                assert node.describe_parameter(each.name).description == each.help
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("jpeg_quality:=500", "1 to 100"),
        ("jpeg_quality:=hello", "type int"),
        ("wait_s:=true", "type float"),
        ("out:=5", "type str"),
        ("wait_s:=0.0", "wait_s"),
    ],
)
def test_wrong_parameters_are_sentences(override: str, problem: str, ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", override], context=context)
    try:
        with pytest.raises(MonoError, match=problem):
            declare_parameters(rclpy.create_node("spy", context=context), RecordParameters)
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.ros
def test_whole_numbers_serve_as_floats(ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", "wait_s:=5"], context=context)
    try:
        value = declare_parameters(rclpy.create_node("spy", context=context), RecordParameters).wait_s
        assert value == 5.0 and type(value) is float
    finally:
        rclpy.shutdown(context=context)
