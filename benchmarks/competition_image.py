"""Make a stand-in for the Challenge's image: its Python, its versions, and nothing that it does not have.

    python3 benchmarks/competition_image.py FOLDER [--sources DIR] [--pydantic 1.10.24 | none] [--where_possible]

makes a virtual environment of Python 3.10 with the versions that Ubuntu 22.04 and the Challenge's Dockerfile bring
(numpy 1.26, OpenCV 4.9, setuptools 59, PyYAML 5.4, pydantic 1 or none), ROS 2 from PyPI (Jazzy, the nearest to Humble
that has wheels) and colcon. The real ``ros2 launch`` and ``ros2 run`` come from the branches humble of ros2/launch,
ros2/launch_ros and ros2/ros2cli: checkouts in the folder ``--sources``, or GitHub where it can be reached; else they
stay away. ``source FOLDER/setup.bash`` is then what ``source /opt/ros/humble/setup.bash`` is there.

What the nodes need beyond that, they must bring themselves: no mcap, rosbags, tyro, rich or jinja2 is installed. Needs
PyPI and a compiler; run by hand and from CI (``make test-image``), never by a test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What ``rosdep install`` and the Dockerfile put there, in the versions of jammy.
APT = ["numpy==1.26.4", "opencv-python-headless==4.9.0.80", "tqdm==4.57.0"]
JAZZY = [
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-jazzy-std-msgs",
    "ros-jazzy-std-srvs",
    "ros-jazzy-geometry-msgs",
    "ros-jazzy-nav-msgs",
    "ros-jazzy-sensor-msgs",
    "ros-jazzy-rosgraph-msgs",
    "ros-jazzy-lifecycle-msgs",
    "ros-jazzy-diagnostic-msgs",
]
COLCON = [
    *("colcon-core==0.15.2", "colcon-ros==0.5.0", "colcon-bash==0.5.0", "colcon-recursive-crawl==0.2.3"),
    *("colcon-package-selection==0.2.10", "colcon-package-information==0.4.0"),
]
TOOLS = ["wheel==0.37.1", "pytest", "argcomplete", "psutil", "packaging", "osrf-pycommon==2.0.2", "lark-parser==0.12.0"]
SOURCES = (
    *("launch/launch", "launch/launch_xml", "launch/launch_yaml", "launch_ros/launch_ros", "launch_ros/ros2launch"),
    *("ros2cli/ros2cli", "ros2cli/ros2pkg", "ros2cli/ros2run"),
)
# Parts of Humble's tools that have no wheel and that nothing here calls: ros2cli looks for the network's interfaces to
# start its daemon, launch_ros for the services that load components.
ABSENT = {
    "netifaces.py": "def interfaces():\n    return []\n",
    "composition_interfaces/__init__.py": "",
    "composition_interfaces/srv.py": "class LoadNode:\n    class Request: ...\n    class Response: ...\n",
}
FORBIDDEN = ("mcap", "rosbags", "tyro", "rich", "jinja2", "torch")


def main() -> int:
    """Make the environment; 0 when it holds what it should and nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the new environment")
    parser.add_argument("--python", default="", help="a Python 3.10; else python3.10 of the PATH, or pyenv's")
    parser.add_argument("--pydantic", default="1.10.24", help="version of pydantic, or none")
    parser.add_argument("--sources", type=Path, help="folder with launch, launch_ros and ros2cli, branch humble")
    parser.add_argument(
        "--where_possible", action="store_true", help="without that Python or PyPI: say so, make nothing, return 0"
    )
    given = parser.parse_args()
    folder = given.folder.resolve()
    if folder.exists():
        print(f"{folder} exists: choose another, or delete it", file=sys.stderr)
        return 2
    python = next(filter(is_310, [given.python] if given.python else candidates()), "")
    missing = "no Python 3.10 that runs is at hand" if not python else lacking(python)
    if missing:
        print(f"no stand-in of the image is made: {missing}", file=sys.stderr)
        return 0 if given.where_possible else 1
    with tempfile.TemporaryDirectory() as cloned:
        try:
            make(folder, python, given.pydantic, given.sources or clones(Path(cloned)))
        except BaseException:
            # Half of an environment would be taken for a whole one the next time.
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return check(folder, given.pydantic)


def candidates() -> list[str]:
    """Where a Python 3.10 may be. pyenv's own ``python3.10`` runs only in folders that chose it."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    return ["python3.10", *map(str, sorted(root.glob("versions/3.10*/bin/python3.10")))]


def is_310(python: str) -> bool:
    """Whether this is a Python 3.10 that runs."""
    code = "import sys; sys.exit(sys.version_info[:2] != (3, 10))"
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def lacking(python: str) -> str:
    """What pip cannot get for the environment, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        probe = [python, "-m", "pip", "--retries", "1", "download", "--quiet", "--no-deps", "--dest", folder, JAZZY[1]]
        if subprocess.run(probe, check=False, capture_output=True).returncode:
            return f"pip cannot get {JAZZY[1]}"
    return ""


def clones(folder: Path) -> Path | None:
    """Where Humble's ``ros2`` was cloned to, or None where GitHub cannot be reached."""
    for name in sorted({Path(source).parts[0] for source in SOURCES}):
        command = ["git", "clone", "--quiet", "--depth", "1", "--branch", "humble", f"https://github.com/ros2/{name}"]
        try:
            done = subprocess.run(
                [*command, str(folder / name)],
                check=False,
                capture_output=True,
                timeout=60,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
    return folder


def make(folder: Path, python: str, pydantic: str, sources: Path | None) -> None:
    """Create and fill the environment."""
    run(python, "-m", "venv", str(folder))
    own = str(folder / "bin" / "python")

    def pip(*words: str) -> None:
        run(own, "-m", "pip", "install", "--quiet", *words)

    pip(*TOOLS, *COLCON, *APT, *JAZZY, *([] if pydantic == "none" else [f"pydantic=={pydantic}"]))
    # PyYAML 5.4.1 has no wheel for Python 3.10 that builds with today's Cython.
    pip("pyyaml==6.0.1")
    pip("setuptools==59.6.0")
    for name in SOURCES if sources else ():
        pip("--no-deps", "--no-build-isolation", str(sources / name))
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    for name, text in ABSENT.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    (folder / "setup.bash").write_text(
        f"source {folder}/bin/activate\nexport AMENT_PREFIX_PATH={folder} ROS_VERSION=2 ROS_DISTRO=humble\n",
        encoding="utf-8",
    )


def check(folder: Path, pydantic: str) -> int:
    """Print the versions, and refuse what the image does not have."""
    own = str(folder / "bin" / "python")
    names = [*FORBIDDEN, *(["pydantic"] if pydantic == "none" else [])]
    code = f"import importlib.util; print([name for name in {names!r} if importlib.util.find_spec(name)])"
    found = subprocess.run([own, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout.strip()
    run(own, "-m", "pip", "list")
    if found != "[]":
        print(f"the image has none of {found}", file=sys.stderr)
        return 1
    if shutil.which("ros2", path=str(folder / "bin")):
        print("with the real ros2 launch and ros2 run")
    else:
        print("without ros2 launch and ros2 run: no --sources, and GitHub cannot be reached")
    print(f"source {folder}/setup.bash")
    return 0


def run(*command: str) -> None:
    """Run a command without the caller's ROS and Python; an exit code that is not 0 ends all."""
    left_out = ("PYTHONPATH", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
