"""Ctrl-C ends every command with 130 and without a traceback, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from closed_loop.demo_folder import _processes_of
from tests.helpers.paths import ROOT

TELL = "os.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**9): pass"


@contextmanager
def started(
    words: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that hears Ctrl-C, in a group of its own as in a terminal; none of the group stays."""
    process = subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no lock is taken
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def said_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read what a process says until it has said this."""
    assert process.stdout is not None
    said = b""
    while text not in said and (more := os.read(process.stdout.fileno(), 4096)):
        said += more
    assert text in said, said.decode()
    return said


def wait_until_gone(group: int) -> None:
    """Wait for the last process of a group."""
    until_s = time.monotonic() + 20.0
    while time.monotonic() < until_s:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process ran on")


@pytest.mark.parametrize(
    "code",
    [
        f"sys.argv = ['-m']\nimport collector\n{TELL}",
        f"sys.argv = ['/usr/bin/alpamayo-mono']\nimport closed_loop\n{TELL}",
        # While a text is run, as for a dataclass: Python itself would then end by the signal.
        f"import closed_loop.cli as cli\ncli._run = lambda *_: exec({TELL!r})\nsys.exit(cli.main(['build']))",
    ],
    ids=["module", "script", "text"],
)
def test_at_any_moment(code: str, tmp_path: Path) -> None:
    with started([sys.executable, "-c", f"import os, signal, sys\n{code}"], tmp_path) as process:
        said, _ = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, b"interrupted\n")


def test_an_error_is_shown_as_ever(tmp_path: Path) -> None:
    code = "import sys\nsys.argv = ['-m']\nimport collector\nraise LookupError('a fault of ours')"
    with started([sys.executable, "-c", code], tmp_path) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1 and b"Traceback" in said and b"a fault of ours" in said


def test_drives_side_by_side(tmp_path: Path) -> None:
    words = ["compare", "--variants", "expert", "--courses", "city", "city-mirror", "--laps", "8", "--jobs", "2"]
    with started([sys.executable, "-m", "closed_loop.cli", *words, "--out", "out"], tmp_path) as process:
        said = said_until(process, b"0.1/2 runs")  # both are under way
        os.killpg(process.pid, signal.SIGINT)
        more, _ = process.communicate(timeout=60)
        assert process.returncode == 130, (said + more).decode()
        assert b"Traceback" not in said + more and more.endswith(b"interrupted\n")
        wait_until_gone(process.pid)


@pytest.mark.ros
def test_a_demo_told_alone_ends_what_it_started(tmp_path: Path, ros_environment: dict[str, str]) -> None:
    words = [
        "-m",
        "closed_loop.cli",
        "demo",
        "--out",
        "out",
        "--courses",
        "30",
        "--steps",
        "2",
    ]  # none that is over meanwhile
    with started([sys.executable, *words], tmp_path, ros_environment) as process:
        said_until(process, b"frames over")  # of the recorder: its processes are up
        assert len(_processes_of(tmp_path / "out")) >= 3
        os.kill(process.pid, signal.SIGINT)
        more, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and b"Traceback" not in more, more.decode()
        assert not _processes_of(tmp_path / "out")
        assert "record" not in (tmp_path / "out" / "stages.json").read_text()
