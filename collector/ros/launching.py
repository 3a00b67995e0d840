"""From the table of arguments to a ROS 2 launch description; the launch files are one call of this.

Imports ``launch`` and ``launch_ros``, which come with a ROS installation only. Without one, ``alpamayo-mono record``
and ``alpamayo-mono drive`` start the same processes from the same table.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from collector.ros.parameters import MAIN_NODE, NODE_MODULES, Argument, NodeName, Verb, arguments_of, parameter_values

if TYPE_CHECKING:
    from launch import LaunchDescription
    from launch_ros.actions import Node


def describe(verb: Verb) -> LaunchDescription:
    """The verb's main node, whose end ends the launch, and the embedded simulator on ``simulator:=true``."""
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, Shutdown
    from launch.conditions import IfCondition
    from launch.substitutions import LaunchConfiguration

    arguments = arguments_of(verb)
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=launch_text(argument, verb),
            description=argument.help,
            choices=list(argument.choices) or None,
        )
        for argument in arguments
    ]
    main = _node(verb, MAIN_NODE[verb], on_exit=Shutdown(reason=f"{MAIN_NODE[verb]} has ended"))
    nodes = [main]
    if any(argument.name == "simulator" for argument in arguments):
        nodes.append(_node(verb, "simulator", condition=IfCondition(LaunchConfiguration("simulator"))))
    return LaunchDescription([*declared, *nodes])


def launch_text(argument: Argument, verb: Verb) -> str:
    """A default as a launch argument's text; YAML spells true and false in lower case."""
    default = argument.default_for(verb)
    return str(default).lower() if isinstance(default, bool) else str(default)


def _node(verb: Verb, name: NodeName, **options: object) -> Node:
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    types = {argument.name: argument.type for argument in arguments_of(verb)}
    parameters = {
        # Without value_type launch would make `duration_s:=5` an integer and `out:=2026` a number.
        parameter: ParameterValue(LaunchConfiguration(parameter), value_type=types[parameter])
        for parameter in parameter_values(verb, name, {})
    }
    # By module, not by package and executable: pip puts no scripts into lib/<package>, and this way the nodes run in
    # the Python that reads this file, under colcon and pip alike.
    return Node(
        executable=sys.executable,
        arguments=["-m", NODE_MODULES[name]],
        parameters=[parameters],
        output="screen",
        emulate_tty=True,
        **options,
    )
