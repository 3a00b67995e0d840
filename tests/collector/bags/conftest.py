"""A short sound bag, and a copy of it to harm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.odd_bags import some_frames
from tests.helpers.synthetic_bag import drive_course, write_bag


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "bag"
    return write_bag(folder, drive_course(((20, 0.0),)), frames=some_frames())


@pytest.fixture
def bag(tmp_path: Path, sound: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "bag")
