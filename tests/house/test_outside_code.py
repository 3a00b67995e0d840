"""Files in the folder where somebody stands are no libraries: none of our commands and nodes runs them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from closed_loop.comparison.workers import starting
from collector.common.start import module_command, without_working_folder
from collector.doctor.machine import look_at_python
from tests.helpers.paths import ROOT

# What our processes import, by themselves or through a library.
PLANTED = (
    *("cv2", "torch", "yaml", "numpy", "tyro", "rclpy", "pydantic", "rich", "tqdm", "mcap", "rosbags", "matplotlib"),
    *("transformers", "peft", "safetensors", "PIL", "launch"),
)
# What `python -m` itself would find there before it finds us; what we start must not.
FIRST = (
    *("json", "socket", "random", "pickle", "csv", "runpy", "types", "pathlib", "sysconfig", "tempfile", "contextlib"),
    *("multiprocessing", "concurrent", "sitecustomize", "usercustomize", "collector", "closed_loop", "finetune"),
)
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


@pytest.fixture
def full_folder(folder: Path) -> Path:
    for name in FIRST:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} ')\n")
    return folder


def test_what_we_start_does_not_even_run_files_named_like_pythons_own(full_folder: Path) -> None:
    run(module_command("closed_loop.serving.worker"), full_folder)
    build = [*module_command("closed_loop.cli"), "build", "--bags", "nowhere", "--out", "x"]
    assert "no bag at nowhere" in run(build, full_folder)


def test_nor_do_workers(full_folder: Path) -> None:
    words = ["--variants", "expert", "--courses", "city", "city-mirror", "--starts", "1", "--laps", "0.02"]
    compare = [*module_command("closed_loop.cli"), "compare", *words, "--jobs", "2", "--out", "x"]
    assert "run folder: x" in run(compare, full_folder)


def test_workers_are_born_elsewhere(full_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has no PYTHONSAFEPATH, and finds in the working folder what `python -c` imports."""
    monkeypatch.chdir(full_folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    code = [sys.executable, "-c", "import json, random, socket, multiprocessing.spawn"]
    with starting():
        subprocess.run(code, check=True, timeout=60)
    assert not (full_folder / "ran").exists() and Path.cwd() == full_folder
    subprocess.run(code, check=False, capture_output=True, timeout=60)
    assert (full_folder / "ran").read_text().startswith("json "), "the trap works"


@pytest.mark.parametrize("path", [":", "", ".", f".:{ROOT}:", "../{here}"])
def test_what_our_processes_start_is_told(full_folder: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Libraries start Python too, by `-c` and `-m`, and what its own start imports comes before any line of ours."""
    monkeypatch.chdir(full_folder)
    monkeypatch.setenv("PYTHONPATH", path.format(here=full_folder.name))
    told = without_working_folder()
    assert told["PYTHONPATH"] == (f"{ROOT}" if f"{ROOT}" in path else "")
    code = [sys.executable, "-c", "import json, random" if sys.version_info >= (3, 11) else "pass"]
    subprocess.run(code, check=True, env={**os.environ, **told}, timeout=60)
    assert not (full_folder / "ran").exists()
    # As `python -m` of one of our modules, which takes this over for all its children.
    code[2] = (
        f"import os, sys; sys.path[0] = {str(ROOT)!r}; sys.argv = ['-m']; import collector; print(dict(os.environ))"
    )
    for name in FIRST:  # for these the first process came too early
        (full_folder / f"{name}.py").unlink()
    said = subprocess.run(code, check=True, capture_output=True, text=True, timeout=60).stdout
    assert {name: ast.literal_eval(said)[name] for name in told} == told


def test_the_doctors_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    look_at_python("", with_adapter=False, device="cpu")
    assert not (folder / "ran").exists()


def test_the_trap_works(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", "import cv2"], check=False, cwd=folder, timeout=60)
    assert (folder / "ran").read_text() == "cv2 "


def test_a_teams_own_driver_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closed_loop.serving.loading import build_policy

    (tmp_path / "own_driver_of_a_test.py").write_text(
        "import own_helper_of_a_test\nclass Own:\n    def plan(self, observation):\n        return None\n"
    )
    (tmp_path / "own_helper_of_a_test.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    assert type(build_policy("own_driver_of_a_test:Own", {})).__name__ == "Own"
