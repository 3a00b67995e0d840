"""What a node needs is what `rosdep install` brings: nothing else is asked for on the way of record, drive and doctor.

The Challenge's image has no mcap, rosbags, tyro, rich or torch, and a pydantic of version 1 or none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from closed_loop.cli import NODES
from closed_loop.ros.config import DRIVE_NODE, SIMULATE_NODE
from collector.ros.parameters import RECORD_NODE
from tests.helpers.paths import ROOT
from tests.helpers.refused_imports import import_all

# Python's name of what a key of rosdep installs on Ubuntu 22.04, and the version there (packages.ubuntu.com).
ROSDEP = {
    "python3-numpy": ("numpy", "1.21.5"),
    "python3-opencv": ("cv2", "4.5.4"),
    "python3-tqdm": ("tqdm", "4.57.0"),
    "python3-yaml": ("yaml", "5.4.1"),
}
ROS_PYTHON = ("rclpy", "launch", "launch_ros", "ros2launch")
OWN = ("collector", "finetune", "closed_loop")
MODULES = (
    "closed_loop.cli",
    "closed_loop.launcher",
    "closed_loop.comparison.measure",
    "collector.bags.recover",
    "collector.doctor.command",
    "collector.recording.recorder",
    "collector.ros.message_packages",
)
ROS_MODULES = (RECORD_NODE.module, DRIVE_NODE.module, SIMULATE_NODE.module, "collector.doctor.node")
VERBS = ("record", "drive", "simulate", "doctor", "measure", "messages", "recover")

# Runs in a Python that refuses every package but some: each verb explains itself, and a drive is recorded and read.
SCRIPT = """
import importlib.abc, json, sys
allowed = json.loads(sys.argv[1])
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_sysconfig"):
            raise ModuleNotFoundError(f"refused by the test: {name}", name=name)
sys.meta_path.insert(0, Refuse())
from closed_loop.cli import main
for verb in json.loads(sys.argv[2]):
    try:
        code = main([verb, "--help"])
    except SystemExit as end:
        code = end.code
    assert not code, verb
assert main(["record", "jpeg_quality:=400"]) == 2 and main(["measure", "nowhere"]) == 2
import numpy as np
from collector.bags.recover import recover_bag
from collector.recording.recorder import BagRecorder
from collector.ros.topics import CAMERA_INFO, CAMERA_JPEG, VELOCITY_STATUS
recorder = BagRecorder(sys.argv[3], (CAMERA_JPEG, CAMERA_INFO, VELOCITY_STATUS))
for k in range(20):
    recorder.write_image(k * 10**8, 36, 64, "bgr8", np.full(36 * 64 * 3, k, np.uint8), received_ns=1 + k * 10**8)
    recorder.write(VELOCITY_STATUS.name, 1 + k * 10**8, bytes(32))
report = recorder.close()
print(report.table())
assert main(["recover", sys.argv[3]]) == 0
"""


def needed() -> set[str]:
    """The Python packages that package.xml brings."""
    keys = [each.text or "" for each in ET.parse(ROOT / "package.xml").getroot().iter("exec_depend")]
    assert all(key in ROSDEP or re.fullmatch(r"[a-z0-9_]+", key) for key in keys), (
        "an apt name that is no key of rosdep"
    )
    return {ROSDEP[key][0] if key in ROSDEP else key for key in keys}


def test_package_xml_names_what_the_nodes_import(tmp_path: Path) -> None:
    allowed = [*OWN, *needed()]
    bag = tmp_path / "bag"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(allowed), json.dumps(VERBS), str(bag)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # And what was written there is a bag to those who have the libraries.
    from rosbags.highlevel import AnyReader

    with AnyReader([bag]) as reader:
        assert {each.topic: each.msgcount for each in reader.connections if each.msgcount}.popitem()[1] == 20
        assert reader.message_count == 40


def test_modules_need_nothing_else() -> None:
    names, failed = import_all(allowed=(*OWN, *needed()), chosen=MODULES)
    assert names == list(MODULES) and not failed


@pytest.mark.ros
def test_nodes_need_nothing_else() -> None:
    """ROS's own packages bring what they like, but not what the image lacks."""
    refused = (
        "mcap",
        "rosbags",
        "tyro",
        "rich",
        "pydantic",
        "jinja2",
        "matplotlib",
        "torch",
        "lz4",
        "zstandard",
        "scipy",
    )
    names, failed = import_all(refused, chosen=(*ROS_MODULES, *MODULES))
    assert len(names) == len(ROS_MODULES) + len(MODULES) and not failed


def test_the_test_can_fail() -> None:
    _, failed = import_all(allowed=(*OWN, *needed()), chosen=("collector.dataset.schema",))
    assert "pydantic" in failed["collector.dataset.schema"]


def test_ros2_run_knows_the_nodes() -> None:
    programs = (RECORD_NODE, DRIVE_NODE, SIMULATE_NODE)
    assert {name: verb.target for name, verb in NODES.items()} == {each.name: each.module for each in programs}
    for name in (*NODES, "doctor", "alpamayo-mono"):
        assert os.access(ROOT / "resource/nodes" / name, os.X_OK)


IMAGE = os.environ.get("ALPAMAYO_IMAGE", "")


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.skipif(not IMAGE, reason="ALPAMAYO_IMAGE names no folder made by benchmarks/competition_image.py")
@pytest.mark.parametrize("options", ["", "--symlink-install"])
@pytest.mark.timeout(500)
def test_the_image_builds_and_records(options: str, tmp_path: Path) -> None:
    """Colcon build, source, and the real `ros2 launch` and `ros2 run`, in an environment with the image's versions.

    Where the image was made without `ros2`, what it would start is started: the launch files by our own command, the
    installed programs by their paths.
    """
    source = tmp_path / "src" / "alpamayo_mono"
    for name in ("collector", "finetune", "closed_loop", "launch", "resource"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "package.xml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)
    launched = "simulator:=true duration_s:=3 max_loss:=1 image_width:=160 image_height:=90"
    has_ros2 = (Path(IMAGE) / "bin" / "ros2").exists()
    run = "ros2 run" if has_ros2 else "bash start"
    record = "ros2 launch collector record.launch.py" if has_ros2 else "alpamayo-mono record"
    lines = f"""
        source {IMAGE}/setup.bash && cd {tmp_path} && colcon build --packages-select alpamayo_mono {options} &&
        source install/setup.bash && alpamayo-mono --version && {run} alpamayo_mono alpamayo-mono --version &&
        alpamayo-mono messages && alpamayo-mono messages --messages autoware &&
        {record} {launched} out:=one &&
        {record} {launched} messages:=autoware out:=two &&
        {{ {run} closed_loop simulator --ros-args -p duration_s:=30.0 -p messages:=autoware > simulator.txt & }} &&
        {run} collector record_node --ros-args -p duration_s:=2.0 -p max_loss:=1.0 -p out:=three &&
        {run} collector doctor --seconds 1; wait
    """
    (tmp_path / "start").write_text('exec "install/alpamayo_mono/lib/$1/$2" "${@:3}"\n', encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "_ROS", "LD_LIB"))}
    environment = {**kept, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = ["bash", "-c", lines.replace("&&\n", "&& ")]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=480)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    assert "messages: autoware (as simulator has it on" in said or "messages: autoware (as somebody has it on" in said
    for bag, types in (
        ("one", "autoware_auto_vehicle_msgs"),
        ("two", "autoware_vehicle_msgs"),
        ("three", "autoware_v"),
    ):
        assert f"type: {types}" in (tmp_path / bag / "metadata.yaml").read_text(), said[-5000:]
