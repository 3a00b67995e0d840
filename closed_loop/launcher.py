"""Record, drive and simulate without ``ros2 launch``: the same processes, started and ended by us.

The verb's main node decides: when it ends, a simulator started beside it is asked to end. Ctrl-C, SIGTERM and a closed
terminal are passed on, and every node gets time to finish its files; where this process is killed, they end by
themselves. The exit code is the worst one of the children.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from closed_loop.ros.config import DRIVE_NODE, EVALUATOR_BESIDE, SIMULATE_NODE, SIMULATOR_BESIDE, DriveConfig
from collector.common.arguments import Arguments, Value
from collector.common.command_line import command_line
from collector.common.errors import MonoError, install_ros
from collector.common.start import module_command
from collector.ros.launch_description import check_start, launcher_variables
from collector.ros.parameters import RECORD_NODE, Program, RecordConfig, SimulateConfig, parameter_values, started
from collector.ros.session import signals_to

_POLL_S = 0.1
Patience = tuple[tuple[signal.Signals, float], ...]
# How a node is asked to end, and how long it may take (a recorder closes its bag after the first); then it is killed.
PATIENCE_S = ((signal.SIGINT, 20.0), (signal.SIGTERM, 5.0))


def main_record(argv: list[str]) -> int:
    """Verb ``record``."""
    return run(command_line(RecordConfig, argv, "alpamayo-mono record"), RECORD_NODE)


def main_drive(argv: list[str]) -> int:
    """Verb ``drive``."""
    return run(command_line(DriveConfig, argv, "alpamayo-mono drive"), DRIVE_NODE)


def main_simulate(argv: list[str]) -> int:
    """Verb ``simulate``."""
    return run(command_line(SimulateConfig, argv, "alpamayo-mono simulate"), SIMULATE_NODE)


def run(config: Arguments, main: Program) -> int:
    """Start a verb's nodes and wait: 0 when all ended well, else the worst exit code (128 + number for a signal).

    Raises:
        MonoError: no ROS in this Python, or settings that a node would refuse.
    """
    if importlib.util.find_spec("rclpy") is None:
        found = "rclpy cannot be imported"
        raise MonoError(found, "a sourced ROS 2, or the ROS wheels", install_ros())
    programs = started(config, main, SIMULATOR_BESIDE, EVALUATOR_BESIDE)
    check_start(programs, config)
    environment = {"PYTHONUNBUFFERED": "1", **os.environ, **launcher_variables()}
    if SIMULATOR_BESIDE in programs:
        # All our processes are on this machine: stay off the network unless the user has said otherwise.
        environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    commands = {each.name: node_command(each, parameter_values(each, config)) for each in programs}
    return supervise(commands, main.name, environment)


def node_command(program: Program, parameters: Mapping[str, Value]) -> list[str]:
    """The command line that runs a node with its ROS parameters."""
    command = [*module_command(program.module), "--ros-args"]
    for name, value in parameters.items():
        # JSON is YAML with the type made plain: "2026" stays a text, 5.0 a float, true a boolean.
        command += ["-p", f"{name}:={json.dumps(value)}"]
    return command


def supervise(
    commands: Mapping[str, Sequence[str]], main: str, environment: Mapping[str, str], patience: Patience = PATIENCE_S
) -> int:
    """Run processes until the main one ends; then end the others. See :func:`run` for the exit code."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    received: list[str] = []
    with signals_to(received.append):
        try:
            # Others first: a simulator needs seconds to its first frame. A session of their own keeps the terminal's
            # Ctrl-C from reaching the children a second time beside the one we pass on.
            for name in sorted(commands, key=lambda name: name == main):
                children[name] = subprocess.Popen(
                    list(commands[name]), env=dict(environment), start_new_session=True, stdin=subprocess.DEVNULL
                )
            while not received and all(child.poll() is None for child in children.values()):
                time.sleep(_POLL_S)
            for name, child in children.items():
                if name != main and child.poll() is not None and not received:
                    print(f"{name} ended early with exit code {_exit_code(child)}", file=sys.stderr)
        finally:
            # The main node first: a recorder must not see the simulator vanish and count that as lost frames.
            for name in sorted(children, key=lambda name: name != main):
                _end(children[name], patience)
    return max(_exit_code(child) for child in children.values())


def _end(child: subprocess.Popen[bytes], patience: Patience) -> None:
    for number, seconds in patience:
        if child.poll() is not None:
            return
        child.send_signal(number)
        child.send_signal(signal.SIGCONT)  # one that was stopped would hear of it never
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"process {child.pid} did not end on {number.name}", file=sys.stderr)
    if child.poll() is None:
        child.kill()
        child.wait()


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    code = child.returncode
    return 128 - code if code < 0 else code
