"""One package answers to three ROS names: what `pip install` lays down, and what `ros2 launch` would find there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

LAUNCH_FILES = {
    "alpamayo_mono": {"record.launch.py", "drive.launch.py"},
    "collector": {"record.launch.py"},
    "closed_loop": {"drive.launch.py"},
}
SCHEMA = "http://download.ros.org/schema/package_format3.xsd"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is installed from a copy of the sources, without network."""
    pytest.importorskip("setuptools")
    copy = tmp_path_factory.mktemp("source")
    for name in ("collector", "finetune", "closed_loop", "launch", "resource"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "package.xml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    target = tmp_path_factory.mktemp("prefix")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--ignore-installed",
            "--no-warn-script-location",
            "--prefix",
            str(target),
            str(copy),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=250,
        cwd=copy,
    )
    assert done.returncode == 0, done.stderr
    # Debian's own Python installs below PREFIX/local.
    return next(path.parent for path in target.rglob("share") if (path / "ament_index").is_dir())


@pytest.mark.parametrize("name", sorted(LAUNCH_FILES))
def test_alias_is_complete(prefix: Path, name: str) -> None:
    assert (prefix / "share/ament_index/resource_index/packages" / name).is_file()
    manifest = ET.parse(prefix / "share" / name / "package.xml").getroot()
    assert manifest.findtext("name") == name
    # `ros2 launch` walks the whole share folder and refuses a name that occurs twice.
    found = [path.name for path in (prefix / "share" / name).rglob("*.launch.py")]
    assert sorted(found) == sorted(LAUNCH_FILES[name])


def test_ament_resolves_the_names(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = pytest.importorskip("ament_index_python.packages")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    for name, files in LAUNCH_FILES.items():
        share = Path(packages.get_package_share_directory(name))
        for file in files:
            assert (share / "launch" / file).read_bytes() == (ROOT / "launch" / file).read_bytes()


def test_data_files_are_installed(prefix: Path) -> None:
    site = next(prefix.rglob("collector/__init__.py")).parents[1]
    patterns = (
        ("collector", "msg/*/msg/*.msg"),
        ("collector", "msg/*/*/msg/*.msg"),
        ("collector", "bags/*.json"),
        ("collector", "dataset/templates/*"),
        ("collector", "ros/*.xml"),
        ("finetune", "tiny_base/*"),
        ("finetune", "adapters/*.md"),
        ("closed_loop", "report/templates/*"),
    )
    for package, pattern in patterns:
        expected = {path.relative_to(ROOT) for path in (ROOT / package).glob(pattern) if path.is_file()}
        missing = {str(path) for path in expected if not (site / path).is_file()}
        assert expected and not missing
    assert len(list((site / "collector").glob("msg/*/msg/*.msg"))) >= 11
    modules = {path.relative_to(ROOT) for name in LAUNCH_FILES for path in (ROOT / name).rglob("*.py")}
    assert not {str(path) for path in modules if not (site / path).is_file()}
    assert not (site / "tests").exists() and not (site / "launch").exists()


def test_the_command_runs_from_the_installation(prefix: Path, tmp_path: Path) -> None:
    script = prefix / "bin" / "alpamayo-mono"
    assert os.access(script, os.X_OK)
    site = next(prefix.rglob("collector/__init__.py")).parents[1]
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: alpamayo-mono" in done.stdout


@pytest.mark.parametrize(
    "path", ["package.xml", "resource/manifests/collector/package.xml", "resource/manifests/closed_loop/package.xml"]
)
def test_manifest_is_one_colcon_accepts(path: str) -> None:
    """A manifest that does not validate is silently treated as plain Python: no index entry, and launch breaks."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f'href="{SCHEMA}"' in text.splitlines()[1]
    root = ET.fromstring(text)
    assert root.tag == "package" and root.get("format") == "3"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", root.findtext("name") or "")
    assert root.findtext("version") == ET.parse(ROOT / "package.xml").getroot().findtext("version")
    assert (root.findtext("description") or "").strip() and root.findtext("license") == "Apache-2.0"
    maintainers = root.findall("maintainer")
    assert maintainers and all(re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", item.get("email", "")) for item in maintainers)
    assert root.findtext("export/build_type") == "ament_python"


def test_setuptools_stays_below_80() -> None:
    """From 80 on `colcon build --symlink-install` breaks."""
    assert "<80" in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("requires = ")[1].splitlines()[0]
