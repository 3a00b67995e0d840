"""Whether every `>=` of setup.py is true: installs the versions that stand behind them, and runs tests with these.

    python3 benchmarks/minimum_versions.py FOLDER [--extras report,model] [--python python3.10] [--tests PATH ...]

Makes a virtual environment in FOLDER and fills it from PyPI; run by hand and from CI, never by a test. By default the
tests of the extras' own rooms are run; the exit code is pytest's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "wheel", "setuptools<80")
# Rooms that use what is required, by extra; the empty one is always installed.
ROOMS = {
    # Those that write bags with rosbags need a newer one than we do.
    "": (
        *("tests/collector/bags/test_format.py", "tests/collector/common", "tests/collector/dataset/test_schema.py"),
        *("tests/collector/ros/test_families.py", "tests/collector/recording/test_recorder.py"),
    ),
    "report": ("tests/collector/calibration", "tests/closed_loop/report"),
    "model": ("tests/finetune",),
}


def pinned(requirement: str) -> str:
    """A requirement with the least version that it allows."""
    return re.sub(r">=([\w.]+)", r"==\1", requirement.partition(";")[0].strip())


def requirements(python: str, extras: list[str]) -> list[str]:
    """What setup.py asks for, without an extra and with these."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "setup.py", "--quiet", "egg_info", "--egg-base", folder]
        subprocess.run(command, check=True, cwd=ROOT)
        text = next(Path(folder).glob("*.egg-info/requires.txt")).read_text()
    sections = {"": ""} | dict(re.findall(r"^\[([\w-]+)\]\n((?:[^\[\n].*\n?)*)", text, re.MULTILINE))
    sections[""] = text.partition("[")[0]
    return [line for name in ["", *extras] for line in sections[name].splitlines() if line.strip()]


def main() -> int:
    """Install the least versions and run the tests; pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the new environment")
    parser.add_argument("--python", default="python3.10", help="the oldest Python that is supported")
    parser.add_argument("--extras", default="", help="comma-separated extras")
    parser.add_argument("--tests", nargs="*", help="what pytest is given in place of the extras' own rooms")
    given = parser.parse_args()
    extras = [each for each in given.extras.split(",") if each]
    own = str(given.folder.resolve() / "bin" / "python")
    if not given.folder.exists():
        subprocess.run([given.python, "-m", "venv", str(given.folder)], check=True)
        subprocess.run([own, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
    # mcap is what the tests read our bags with.
    wanted = [pinned(each) for each in [*requirements(own, extras), "mcap>=1.5"]]
    print("\n".join(wanted), flush=True)
    subprocess.run([own, "-m", "pip", "install", "--quiet", *wanted], check=True)
    words = given.tests or [room for extra in ["", *extras] for room in ROOMS.get(extra, ())]
    done = subprocess.run([own, "-m", "pytest", "-q", "-m", "not slow and not ros", *words], check=False, cwd=ROOT)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
