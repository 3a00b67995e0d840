"""The table of arguments: typed, bounded, and declared as ROS parameters with those bounds."""

from __future__ import annotations

import pytest

from collector.common.errors import MonoError
from collector.ros.parameters import (
    ARGUMENTS,
    Argument,
    arguments_of,
    declare_parameters,
    parameter_values,
    parameters_of,
)

TABLE = {argument.name: argument for argument in ARGUMENTS}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("laps", "3", 3),
        ("wait_s", "5", 5.0),
        ("wait_s", "1e1", 10.0),
        ("reasoning", "False", False),
        ("reasoning", "on", True),
        ("out", "2026", "2026"),
        ("out", "", ""),
    ],
)
def test_texts_take_the_type_of_the_default(name: str, text: str, value: object) -> None:
    parsed = TABLE[name].parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("laps", "3.5"),
        ("laps", "true"),
        ("wait_s", "soon"),
        ("wait_s", "nan"),
        ("wait_s", "inf"),
        ("wait_s", "-1"),
        ("reasoning", "maybe"),
        ("reasoning", ""),
        ("jpeg_quality", "0"),
        ("jpeg_quality", "101"),
        ("cameras", "five"),
    ],
)
def test_texts_that_do_not_fit_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(MonoError, match=name):
        TABLE[name].parse(text)


def test_defaults_fit_their_own_bounds() -> None:
    for argument in ARGUMENTS:
        for value in (argument.default, *argument.verb_defaults.values()):
            argument.check(value)
            assert type(value) is argument.type


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_an_integer_is_only_an_integer(value: object) -> None:
    with pytest.raises(MonoError, match="type int"):
        TABLE["laps"].coerce(value)


def test_verbs_share_and_differ() -> None:
    record = {argument.name for argument in arguments_of("record")}
    drive = {argument.name for argument in arguments_of("drive")}
    simulate = {argument.name for argument in arguments_of("simulate")}
    assert "jpeg_quality" in record - drive and "adapter" in drive - record
    assert "course" in record & drive & simulate
    assert "simulator" in record & drive and "simulator" not in simulate


def test_a_simulator_beside_is_not_given_the_main_nodes_end() -> None:
    """The recorder counts its seconds from the first frame; a simulator stopping on its own would cut the bag."""
    values = {"duration_s": 20.0, "course": "random:3"}
    assert parameter_values("record", "record_node", values)["duration_s"] == 20.0
    beside = parameter_values("record", "simulator", values)
    assert "duration_s" not in beside and beside["course"] == "random:3"
    assert parameter_values("simulate", "simulator", values)["duration_s"] == 20.0


def test_expert_drives_only_while_recording() -> None:
    assert parameter_values("record", "simulator", {})["expert"] is True
    assert parameter_values("drive", "simulator", {})["expert"] is False
    assert parameter_values("drive", "simulator", {"expert": True})["expert"] is True


def test_flags_are_no_numbers() -> None:
    with pytest.raises(MonoError):
        Argument("n", 1, "a number", maximum=3).parse("true")


@pytest.mark.ros
@pytest.mark.parametrize("name", ["record_node", "drive_node", "simulator"])
def test_nodes_declare_the_table(name: str, ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("spy", context=context)
        values = declare_parameters(node, name)  # type: ignore[arg-type]
        expected = {argument.name: argument.default for argument in parameters_of(name)}  # type: ignore[arg-type]
        # rclpy declares use_sim_time itself, with its own default.
        assert {**values, "use_sim_time": True} == {**expected, "use_sim_time": True}
        for argument in parameters_of(name):  # type: ignore[arg-type]
            if argument.name != "use_sim_time":
                assert node.describe_parameter(argument.name).description == argument.help
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
            declare_parameters(rclpy.create_node("spy", context=context), "record_node")
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.ros
def test_whole_numbers_serve_as_floats(ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", "wait_s:=5"], context=context)
    try:
        value = declare_parameters(rclpy.create_node("spy", context=context), "record_node")["wait_s"]
        assert value == 5.0 and type(value) is float
    finally:
        rclpy.shutdown(context=context)
