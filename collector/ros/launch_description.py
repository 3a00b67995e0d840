"""A verb's nodes for ``ros2 launch``: every argument checked before any process starts, and an honest exit code.

``launch`` and ``launch_ros`` come with a ROS installation. By themselves they look at an argument when its node is
started, which is after others; ignore a name that nobody declared; and return 0 whatever a node did.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collector.common.arguments import Arguments, arguments_of, nearest_name
from collector.common.errors import MonoError
from collector.common.files import check_paths, with_homes
from collector.common.start import EXIT_INTERRUPTED, module_command, without_working_folder
from collector.ros.families import asked_or_installed
from collector.ros.message_packages import message_class
from collector.ros.parameters import Program, parameter_values, started
from collector.ros.session import LAUNCHER_VARIABLE
from collector.ros.topics import CONTROL_CMD

if TYPE_CHECKING:
    from launch import LaunchContext, LaunchDescription
    from launch.events.process import ProcessExited
    from launch_ros import actions

# Of `ros2 launch` itself, which hands them on as arguments of the file.
_OF_LAUNCH = ("launch-prefix", "launch-prefix-filter")


def describe(config: type[Arguments], main: Program, *beside: Program) -> LaunchDescription:
    """The main node, whose end ends the launch, and those beside it whose switch is true, as ``simulator:=true``.

    Each of the verb's settings (``config``) becomes a launch argument. What does not fit any of them ends the launch
    with a sentence before a process is started. The launch fails (exit code 1) when a node does.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    declared = []
    for each in arguments_of(config):
        default, choices = each.default_text, list(each.choices) or None
        declared.append(DeclareLaunchArgument(each.name, default_value=default, description=each.help, choices=choices))

    def start(context: LaunchContext) -> list[actions.Node]:
        refuse_unknown(typed_names(context), config)
        settings = settings_of(config, context.launch_configurations)
        programs = started(settings, main, *beside)
        check_start(programs, settings)
        return [_node(program, settings) for program in programs]

    # First, so that a wrong choice gets the same sentence as every other wrong value.
    return LaunchDescription([OpaqueFunction(function=start), *declared])


def typed_names(context: LaunchContext) -> list[str]:
    """Names of the arguments that were typed for the launch file which runs; none where another file includes it.

    Of an included file nobody can tell: it sees all that its parent was given.
    """
    file = Path(context.get_locals_as_dict().get("current_launch_file_path", "")).name
    if not file or file not in (Path(word).name for word in sys.argv):
        return []
    return [name for name, assigned, _ in (word.partition(":=") for word in context.argv) if assigned]


def refuse_unknown(names: Sequence[str], config: type[Arguments]) -> None:
    """Refuse (MonoError, with the nearest one) a name that is no setting."""
    known = [each.name for each in arguments_of(config)]
    for name in names:
        if name not in known and name not in _OF_LAUNCH:
            raise MonoError(
                f"there is no argument {name!r}", nearest_name(name, known), "see the names with --show-args"
            )


def settings_of(config: type[Arguments], texts: Mapping[str, str]) -> Arguments:
    """A verb's settings from texts, absent ones by default, with every path looked up.

    Raises:
        MonoError: a text that is no value of its setting, or a path that cannot be used.
    """
    given = {each.name: each.from_text(texts[each.name]) for each in arguments_of(config) if each.name in texts}
    settings = with_homes(config(**given))
    check_paths(settings)
    return settings


def check_start(programs: Sequence[Program], settings: Arguments) -> None:
    """What can be known before any process of a verb starts.

    Raises:
        MonoError: a node would refuse its settings, or the messages cannot be had.
    """
    for program in programs:
        program.check_settings(settings)
    # A first build of the messages takes half a minute: do it once here, before any node's patience starts to run.
    message_class(asked_or_installed(getattr(settings, "messages", "")).topic(CONTROL_CMD).type)


def launcher_variables() -> dict[str, str]:
    """What tells a node whose end is its own."""
    return {LAUNCHER_VARIABLE: str(os.getpid())}


def _node(program: Program, settings: Arguments) -> actions.Node:
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    # Without value_type launch would make `duration_s:=5` an integer and `out:=2026` a number.
    parameters = {
        name: ParameterValue(value, value_type=type(value))
        for name, value in parameter_values(program, settings).items()
    }
    # By module, not by package and executable: pip puts no scripts into lib/<package>, and this way the nodes run in
    # the Python that reads this file, under colcon and pip alike.
    executable, *words = module_command(program.module)
    variables = {**without_working_folder(), **launcher_variables()}
    return Node(
        executable=executable,
        arguments=words,
        parameters=[parameters],
        output="screen",
        emulate_tty=True,
        additional_env=variables,
        on_exit=_on_exit(program.name),
    )


def _on_exit(name: str) -> Callable[[ProcessExited, LaunchContext], Any]:
    """When one node ends, all end; and what is raised here makes the launch fail."""

    def ended(event: ProcessExited, context: LaunchContext) -> Any:  # noqa: ANN401 - launch's own union
        from launch.actions import Shutdown

        code = event.returncode
        if context.is_shutdown and code in (-signal.SIGINT, -signal.SIGTERM, EXIT_INTERRUPTED):
            return None  # by launch itself, before it could answer
        if code < 0:
            raise MonoError(f"{name} was ended by {signal.Signals(-code).name}")
        if code > 0:
            raise MonoError(f"{name} failed with exit code {code}; it says above why")
        return [Shutdown(reason=f"{name} has ended")]

    return ended
