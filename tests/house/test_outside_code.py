"""Files in the folder where somebody stands are no libraries: none of our commands and nodes runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.common.start import module_command
from collector.doctor.machine import look_at_python
from tests.helpers.paths import ROOT

# What our processes import, by themselves or through a library.
PLANTED = (
    *("cv2", "torch", "yaml", "numpy", "tyro", "rclpy", "pydantic", "rich", "tqdm", "mcap", "rosbags", "matplotlib"),
    *("transformers", "peft", "safetensors", "PIL", "launch"),
)
# What `python -m` itself would find there before it finds us; what we start must not.
FIRST = ("json", "socket", "random", "pickle", "csv", "runpy", "collector", "closed_loop", "finetune")
NODE = ["--ros-args", "-p", "jpeg_quality:=0", "-p", "laps:=-1", "-p", "seed:=-1"]  # ends before it starts
BY_NAME = [sys.executable, "-m"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder full of modules that leave a trace when they are run."""
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    return tmp_path


def run(words: list[str], folder: Path, path: str = f"{ROOT}") -> str:
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        words, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, input=""
    )
    trace = folder / "ran"
    assert not trace.exists(), f"{words} ran {trace.read_text()}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", [f"{ROOT}", f"{ROOT}:", f":{ROOT}", f".:{ROOT}"])
def test_commands_run_by_name(folder: Path, path: str) -> None:
    out = run([*BY_NAME, "closed_loop.cli", "build", "--bags", "nowhere", "--out", "x"], folder, path)
    assert "no bag at nowhere" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["finetune.lora_finetune", "--model", "m", "--dataset", "nowhere"], "nowhere"),
        (["closed_loop.cli", "view", "nowhere"], "nowhere"),
        (["closed_loop.cli", "compare", "--model", "nowhere"], "nowhere"),
        (["closed_loop.cli", "merge", "--model", "a", "--adapter", "b", "--out", "c"], "no folder a"),
        (["closed_loop.cli", "report", "--run", "nowhere"], "nowhere"),
    ],
)
def test_more_commands(folder: Path, words: list[str], says: str) -> None:
    pytest.importorskip("torch")
    assert says in run([*BY_NAME, *words], folder)


def test_the_installed_script(folder: Path) -> None:
    script = folder / "bin" / "alpamayo-mono"
    script.parent.mkdir()
    script.write_text("import sys\nfrom closed_loop.cli import main\nsys.exit(main())\n")
    for path in (f"{ROOT}", f":{ROOT}"):
        # What Python's own start reads from an empty entry it reads before we are asked.
        words = [sys.executable, str(script), "build", "--bags", "nowhere", "--out", "x"]
        assert "no bag at nowhere" in run(words, folder, path)


@pytest.mark.ros
@pytest.mark.parametrize(
    "module", ["collector.recording.node", "closed_loop.ros.drive_node", "closed_loop.simulator.node"]
)
@pytest.mark.parametrize("start", [module_command, lambda module: [*BY_NAME, module]], ids=["ours", "by hand"])
def test_nodes(folder: Path, module: str, start: object, ros_environment: dict[str, str]) -> None:
    assert "Expected: a value of type int" in run([*start(module), *NODE], folder)  # type: ignore[operator]


def test_what_we_start_does_not_even_run_files_named_like_pythons_own(folder: Path) -> None:
    for name in FIRST:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} ')\n")
    run(module_command("closed_loop.ros.policy_worker"), folder)
    assert "no bag at nowhere" in run(
        [*module_command("closed_loop.cli"), "build", "--bags", "nowhere", "--out", "x"], folder
    )


def test_the_doctors_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    look_at_python("", with_adapter=False, device="cpu")
    assert not (folder / "ran").exists()


def test_the_trap_works(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", "import cv2"], check=False, cwd=folder, timeout=60)
    assert (folder / "ran").read_text() == "cv2 "


def test_a_teams_own_driver_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closed_loop.ros.policy_worker import build_policy

    (tmp_path / "own_driver_of_a_test.py").write_text(
        "import own_helper_of_a_test\nclass Own:\n    def plan(self, observation):\n        return None\n"
    )
    (tmp_path / "own_helper_of_a_test.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    assert type(build_policy("own_driver_of_a_test:Own", {})).__name__ == "Own"
