"""The image transport: when it is set, what it says, and that frames really arrive through it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from collector.common.errors import MonoError
from collector.ros.transport import PROFILE_VARIABLES, WHEELS_GUARD, prepare_publisher, without_our_libraries
from tests.helpers.paths import ROOT


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    for variable in PROFILE_VARIABLES:
        # Set first, so that what prepare_publisher sets is undone after the test as well.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    return monkeypatch


def test_profile_has_shared_memory_and_udp(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = prepare_publisher()
    assert path is not None and tmp_path in path.parents
    assert [os.environ[name] for name in PROFILE_VARIABLES if name in os.environ] == [str(path)]
    root = ET.parse(path).getroot()
    space = "{http://www.eprosima.com}"
    transports = {
        item.findtext(f"{space}transport_id"): item.findtext(f"{space}type")
        for item in root.iter(f"{space}transport_descriptor")
    }
    assert sorted(transports.values()) == ["SHM", "UDPv4"]  # type: ignore[type-var]
    used = [item.text for item in root.iter(f"{space}userTransports") for item in item]
    assert sorted(used) == sorted(transports)  # type: ignore[type-var]
    assert root.findtext(f".//{space}useBuiltinTransports") == "false"
    segment = int(root.findtext(f".//{space}segment_size") or 0)
    assert segment >= int(root.findtext(f".//{space}maxMessageSize") or 0) > 1920 * 1080 * 3


def test_other_middleware_and_own_profiles_are_left_alone(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert prepare_publisher() is None
    clean.setenv("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    clean.setenv(PROFILE_VARIABLES[1], "/etc/mine.xml")
    assert prepare_publisher() is None
    assert os.environ[PROFILE_VARIABLES[1]] == "/etc/mine.xml" and PROFILE_VARIABLES[0] not in os.environ
    assert not list(tmp_path.iterdir())


def test_unwritable_cache_is_a_sentence(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    clean.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MonoError, match="XDG_CACHE_HOME"):
        prepare_publisher()


def test_child_environment_of_the_wheels() -> None:
    ours = str(Path(sys.prefix) / "lib")
    before = {WHEELS_GUARD: "1", "LD_LIBRARY_PATH": f"{ours}:/opt/vendor/lib", "HOME": "/home/kart"}
    assert without_our_libraries(before) == {"LD_LIBRARY_PATH": "/opt/vendor/lib", "HOME": "/home/kart"}
    assert without_our_libraries({WHEELS_GUARD: "1", "LD_LIBRARY_PATH": ours}) == {}
    assert WHEELS_GUARD in before, "the caller's mapping is not touched"


def test_child_environment_of_a_sourced_ros() -> None:
    before = {"LD_LIBRARY_PATH": "/opt/ros/humble/lib", "AMENT_PREFIX_PATH": "/opt/ros/humble"}
    assert without_our_libraries(before) == before


FRAMES = 30
LISTENER = f"""
import time, rclpy
from collector.ros.message_packages import message_class
from collector.ros.topics import CAMERA_IMAGE, qos_profile
rclpy.init()
node, got = rclpy.create_node("listener"), []
node.create_subscription(
    message_class(CAMERA_IMAGE.type), CAMERA_IMAGE.name, lambda image: got.append(image.header.stamp.sec),
    qos_profile(CAMERA_IMAGE, depth={FRAMES}),
)
deadline = time.monotonic() + 20
while len(got) < {FRAMES} and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.2)
print(got)
"""
PUBLISHER = f"""
import array, time
from collector.ros.transport import prepare_publisher
assert prepare_publisher() is not None
import rclpy
from collector.ros.message_packages import message_class
from collector.ros.topics import CAMERA_IMAGE, qos_profile
rclpy.init()
node = rclpy.create_node("publisher")
publisher = node.create_publisher(message_class(CAMERA_IMAGE.type), CAMERA_IMAGE.name, qos_profile(CAMERA_IMAGE))
deadline = time.monotonic() + 20
while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
    time.sleep(0.05)
time.sleep(0.5)
image = message_class(CAMERA_IMAGE.type)(height=360, width=640, encoding="rgb8", step=1920)
image.data = array.array("B", bytes(640 * 360 * 3))
for number in range({FRAMES}):
    image.header.stamp.sec = number
    publisher.publish(image)
    time.sleep(0.05)
time.sleep(1.0)
"""


@pytest.mark.ros
def test_every_best_effort_frame_arrives(ros_environment: dict[str, str], clean: pytest.MonkeyPatch) -> None:
    """On the default transport nearly none of these frames would arrive."""
    if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        pytest.skip("another middleware has its own transport")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    listener = subprocess.Popen([sys.executable, "-c", LISTENER], env=environment, stdout=subprocess.PIPE, text=True)
    publisher = subprocess.run([sys.executable, "-c", PUBLISHER], env=environment, timeout=60, check=False)
    assert publisher.returncode == 0
    output, _ = listener.communicate(timeout=60)
    assert output.strip() == str(list(range(FRAMES)))
