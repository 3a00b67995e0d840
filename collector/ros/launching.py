"""From the settings of a verb to a ROS 2 launch description; the launch files are one call of this.

Imports ``launch`` and ``launch_ros``, which come with a ROS installation only. Without one, ``alpamayo-mono record``
and ``alpamayo-mono drive`` start the same processes from the same settings.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from collector.common.arguments import Arguments, arguments_of
from collector.ros.parameters import Program

if TYPE_CHECKING:
    from launch import LaunchDescription
    from launch_ros.actions import Node


def describe(config: type[Arguments], main: Program, simulator: Program) -> LaunchDescription:
    """The main node, whose end ends the launch, and the embedded simulator beside it on ``simulator:=true``.

    Each of the verb's settings (``config``) becomes a launch argument.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, Shutdown
    from launch.conditions import IfCondition
    from launch.substitutions import LaunchConfiguration

    declared = []
    for each in arguments_of(config):
        default, choices = each.default_text, list(each.choices) or None
        declared.append(DeclareLaunchArgument(each.name, default_value=default, description=each.help, choices=choices))
    nodes = [
        _node(config, main, on_exit=Shutdown(reason=f"{main.name} has ended")),
        _node(config, simulator, condition=IfCondition(LaunchConfiguration("simulator"))),
    ]
    return LaunchDescription([*declared, *nodes])


def _node(config: type[Arguments], program: Program, **options: object) -> Node:
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    wanted = {field.name for field in dataclasses.fields(program.parameters)}
    parameters = {
        # Without value_type launch would make `duration_s:=5` an integer and `out:=2026` a number.
        each.name: ParameterValue(LaunchConfiguration(each.name), value_type=each.type)
        for each in arguments_of(config)
        if each.name in wanted
    }
    # By module, not by package and executable: pip puts no scripts into lib/<package>, and this way the nodes run in
    # the Python that reads this file, under colcon and pip alike.
    words = ["-m", program.module]
    shown: dict[str, object] = {"output": "screen", "emulate_tty": True}
    return Node(executable=sys.executable, arguments=words, parameters=[parameters], **shown, **options)
