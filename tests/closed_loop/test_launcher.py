"""Processes started by us: both spellings of arguments, signals passed on, clean ends, honest exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from closed_loop.launcher import node_command, run, supervise
from closed_loop.ros.config import DRIVE_NODE, DriveConfig
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.start import module_command
from collector.ros.parameters import RECORD_NODE, RecordConfig, RecordParameters, parameter_values
from tests.helpers.paths import ROOT

# Ends on SIGINT with the code given, after writing that it did; `deaf` hears no signal.
SPY = """
import pathlib, signal, sys, time
name, code, seconds, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), pathlib.Path(sys.argv[4])
def end(number, frame):
    (folder / name).write_text(signal.Signals(number).name + f" {time.monotonic()}")
    sys.exit(code)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN if name == "deaf" else end)
(folder / f"{name}.ready").write_text("")
time.sleep(seconds)
sys.exit(code)
"""


def spy(name: str, code: int, seconds: float, folder: Path) -> list[str]:
    return [sys.executable, "-c", SPY, name, str(code), str(seconds), str(folder)]


def parse(*words: str) -> DriveConfig:
    return command_line(DriveConfig, words, "alpamayo-mono drive")


def test_all_spellings_mean_the_same(tmp_path: Path) -> None:
    expected = DriveConfig(adapter="runs/lora", laps=3, simulator=True, reasoning=False, max_speed_mps=4.0)
    file = tmp_path / "drive.yaml"
    file.write_text("adapter: runs/lora\nlaps: 3\nsimulator: true\nreasoning: true\nmax_speed_mps: 4\n")
    for words in (
        ["adapter:=runs/lora", "laps:=3", "simulator:=true", "reasoning:=false", "max_speed_mps:=4"],
        ["--adapter", "runs/lora", "--laps", "3", "--simulator", "--no-reasoning", "--max-speed-mps", "4"],
        ["--adapter=runs/lora", "--laps=3", "--simulator", "true", "--reasoning", "off", "--max_speed_mps=4.0"],
        ["--config", str(file), "--no_reasoning"],
        [f"config:={file}", "laps:=4", "--reasoning=no", "--laps", "3"],
    ):
        assert parse(*words) == expected


@pytest.mark.ros
def test_a_wrong_course_is_refused_before_any_node_starts(tmp_path: Path) -> None:
    for words in (["course:=citty"], ["courses:=random:7,citty"]):
        config = command_line(
            RecordConfig, ["simulator:=true", f"out:={tmp_path / 'bag'}", *words], "alpamayo-mono record"
        )
        with pytest.raises(MonoError, match=r"course 'citty'.*random:SEED"):
            run(config, RECORD_NODE)
    assert not (tmp_path / "bag").exists()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("vehicle:=nowhere.yaml", r"nowhere\.yaml"),
        ("simulated_vehicle:={}", "definition"),
        ("steering_gain:=0.05", "steering_gain"),
        ("rules:=e2", "rules"),
        ("evaluator:=perhaps", "evaluator"),
    ],
)
def test_a_wrong_vehicle_or_rule_is_refused_before_any_node_starts(word: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "vehicle.yaml"
    file.write_text("steering_gain: 0.7\n")
    words = [word.format(file), f"out:={tmp_path / 'run'}", "simulator:=true"]
    with pytest.raises((MonoError, SystemExit)) as refused:
        run(command_line(DriveConfig, words, "drive"), DRIVE_NODE)
    assert isinstance(refused.value, SystemExit) or re.search(said, str(refused.value))
    assert not (tmp_path / "run").exists()


def test_a_driver_that_needs_poses_is_not_started_beside_a_session_without() -> None:
    with pytest.raises(MonoError, match="publishes no pose"):
        DriveConfig(simulator=True, mode="e2e", rules="free")
    assert DriveConfig(mode="e2e", rules="free").rules == "free", "which mode a simulator elsewhere is in nobody knows"


def test_a_value_may_look_like_anything() -> None:
    assert parse("out:=a:=b", "--course", "random:7") == DriveConfig(out="a:=b", course="random:7")
    assert parse("--start_lateral_m", "-0.5", "adapter:=") == DriveConfig(start_lateral_m=-0.5)
    with pytest.raises(MonoError, match="Missing value for argument '--adapter'"):
        parse("--adapter", "--laps", "2")


@pytest.mark.ros
def test_parameters_reach_the_node_typed() -> None:
    """Through rcl's own parser: a text that looks like a number stays a text, an empty one stays empty."""
    program = (
        "import sys, rclpy; from collector.ros.parameters import RecordParameters, declare_parameters\n"
        "rclpy.init(args=sys.argv); print(declare_parameters(rclpy.create_node('spy'), RecordParameters))"
    )
    for out in ("2026", ""):
        config = RecordConfig(out=out, wait_s=5.0, jpeg_quality=80, simulator=True, seed=3)
        values = parameter_values(RECORD_NODE, config)
        command = node_command(RECORD_NODE, values)
        assert command[:3] == module_command(RECORD_NODE.module)
        done = subprocess.run(
            [sys.executable, "-c", program, *command[3:]],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(RecordParameters(out=out, wait_s=5.0, jpeg_quality=80))


def test_end_of_the_main_node_ends_the_simulator(tmp_path: Path) -> None:
    began = time.monotonic()
    code = supervise(
        {"record_node": spy("main", 0, 1.0, tmp_path), "simulator": spy("simulator", 0, 60, tmp_path)},
        "record_node",
        os.environ,
    )
    assert code == 0 and time.monotonic() - began < 15
    assert (tmp_path / "simulator").read_text().startswith("SIGINT")
    assert not (tmp_path / "main").exists()


@pytest.mark.parametrize(("main", "simulator", "worst"), [(3, 0, 3), (0, 4, 4), (5, 4, 5)])
def test_exit_code_is_the_worst(tmp_path: Path, main: int, simulator: int, worst: int) -> None:
    commands = {"drive_node": spy("main", main, 1.0, tmp_path), "simulator": spy("simulator", simulator, 60, tmp_path)}
    assert supervise(commands, "drive_node", os.environ) == worst


def test_early_death_of_the_simulator_ends_the_main_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"record_node": spy("main", 0, 60, tmp_path), "simulator": spy("simulator", 7, 1.0, tmp_path)}
    assert supervise(commands, "record_node", os.environ) == 7
    assert (tmp_path / "main").read_text().startswith("SIGINT")
    assert "simulator ended early with exit code 7" in capsys.readouterr().err


def test_deaf_process_is_killed(tmp_path: Path) -> None:
    commands = {"record_node": spy("main", 0, 1.5, tmp_path), "simulator": spy("deaf", 0, 60, tmp_path)}
    began = time.monotonic()
    code = supervise(commands, "record_node", os.environ, ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.5)))
    assert code == 128 + signal.SIGKILL
    assert time.monotonic() - began < 20


def test_a_process_that_was_stopped_hears_that_it_is_to_end(tmp_path: Path) -> None:
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)"
    commands = {"drive_node": spy("main", 0, 1.5, tmp_path), "evaluator": [sys.executable, "-c", code]}
    began = time.monotonic()
    assert supervise(commands, "drive_node", os.environ) == 128 + signal.SIGINT
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_main_node_first(tmp_path: Path, number: signal.Signals) -> None:
    """The recorder closes its bag while the simulator still runs, then the simulator is asked to end."""
    program = (
        "import os, sys; from closed_loop.launcher import supervise\n"
        f"main, simulator = {spy('main', 0, 60, tmp_path)!r}, {spy('simulator', 0, 60, tmp_path)!r}\n"
        "sys.exit(supervise({'record_node': main, 'simulator': simulator}, 'record_node', os.environ))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not all((tmp_path / f"{name}.ready").exists() for name in ("main", "simulator")):
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.05)
    launcher.send_signal(number)
    assert launcher.wait(30) == 0
    ends = {name: float((tmp_path / name).read_text().split()[1]) for name in ("main", "simulator")}
    assert ends["main"] < ends["simulator"]
