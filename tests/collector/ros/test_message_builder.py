"""Message packages from text: what is built is what ROS builds, once, and failures name the remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.ros.message_builder import DEFINITIONS, build_messages, dependencies, messages_folder, package_names
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.ros


def child(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small_definitions(tmp_path: Path) -> Path:
    """One package with a constant, a nested message, bounded and foreign fields."""
    folder = tmp_path / "definitions" / "spy_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Inner.msg").write_text("uint8 MANY = 7\nfloat32 value\n")
    (folder / "Outer.msg").write_text("std_msgs/Header header\nInner[<=3] items\nstring name\n")
    return folder.parents[1]


def test_two_builders_at_once_build_once_and_the_result_works(own_cache: Path, small_definitions: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from collector.ros.message_builder import build_messages\n"
        "folder = build_messages(Path(sys.argv[1]), say=print); print(folder)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(small_definitions)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    lines = [process.communicate(timeout=200)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(line.startswith("building") for output in lines for line in output) == 1
    folder = messages_folder(small_definitions)
    assert {output[-1] for output in lines} == {str(folder)}
    assert own_cache in folder.parents
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("building-")] == []

    # Through the C type support and back: what a publisher and a subscriber do.
    done = child(
        "import sys; sys.path.append(sys.argv[1])\n"
        "from rclpy.serialization import deserialize_message, serialize_message\n"
        "from spy_msgs.msg import Inner, Outer\n"
        "assert Inner.MANY == 7\n"
        "sent = Outer(name='kart', items=[Inner(value=1.5), Inner(value=-2.0)])\n"
        "sent.header.frame_id, sent.header.stamp.sec = 'map', 12\n"
        "got = deserialize_message(serialize_message(sent), Outer)\n"
        "print(got == sent, got.header.frame_id, [item.value for item in got.items])",
        str(folder),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True map [1.5, -2.0]"


def test_type_hashes_of_stock_messages_are_reproduced(tmp_path: Path) -> None:
    """The same text must give the same type hash as in the distribution, or peers would refuse our types."""
    import rosidl_adapter

    prefix = next(path for path in Path(rosidl_adapter.__file__).parents if (path / "share/std_msgs").is_dir())
    share, definitions = prefix / "share", tmp_path / "definitions"
    for package, names in {"nav_msgs": ("Path", "Odometry"), "std_msgs": ("Header", "String")}.items():
        for name in names:
            target = definitions / package / "msg" / f"{name}.msg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(share / package / "msg" / f"{name}.msg", target)
    for package in ("nav_msgs", "std_msgs"):
        done = child(
            "import sys; from pathlib import Path; from collector.ros.message_builder import generate\n"
            "generate(sys.argv[1], *map(Path, sys.argv[2:]))",
            package,
            str(definitions),
            str(share),
            str(tmp_path / "work"),
            AMENT_PREFIX_PATH=str(prefix),
        )
        assert done.returncode == 0, done.stderr
        for ours in (tmp_path / "work" / "idl" / package / "msg").glob("*.json"):
            hashes = [
                json.loads(path.read_text())["type_hashes"] for path in (ours, share / package / "msg" / ours.name)
            ]
            assert hashes[0] == hashes[1]


def test_dependencies_are_transitive() -> None:
    import rosidl_adapter

    share = next(path / "share" for path in Path(rosidl_adapter.__file__).parents if (path / "share/std_msgs").is_dir())
    found = dependencies(DEFINITIONS / "autoware_auto_planning_msgs", share)
    assert found == ["builtin_interfaces", "geometry_msgs", "std_msgs"]


def test_other_text_is_another_folder(own_cache: Path, small_definitions: Path) -> None:
    before = messages_folder(small_definitions)
    assert before == messages_folder(small_definitions)
    (small_definitions / "spy_msgs" / "msg" / "Inner.msg").write_text("float64 value\n")
    assert messages_folder(small_definitions) != before


def test_missing_compiler_names_the_package(
    own_cache: Path, small_definitions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MonoError, match=r"'gcc'.*apt install g\+\+ python3-dev"):
        build_messages(small_definitions)


def test_unwritable_cache_names_the_variable(
    small_definitions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MonoError, match="XDG_CACHE_HOME"):
        build_messages(small_definitions)


@pytest.mark.parametrize("text", ["float33 value\n", "nowhere_msgs/Thing thing\n"])
def test_bad_definition_leaves_no_folder(own_cache: Path, small_definitions: Path, text: str) -> None:
    (small_definitions / "spy_msgs" / "msg" / "Inner.msg").write_text(text)
    with pytest.raises(MonoError, match=r"spy_msgs|message_builder"):
        build_messages(small_definitions)
    assert not messages_folder(small_definitions).exists()


def test_our_packages() -> None:
    assert package_names() == (
        "autoware_auto_control_msgs",
        "autoware_auto_planning_msgs",
        "autoware_auto_vehicle_msgs",
        "tf2_msgs",
    )
