"""Picture files that are none, or far too much of one, end in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.common.pictures import read_picture
from collector.ros.images import FrameError, RawFrame, encode_jpeg, frame_jpeg
from tests.helpers.pictures import black_png


def test_a_picture_is_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(encode_jpeg(np.full((40, 60, 3), 90, np.uint8), 95))
    assert read_picture(path).shape == (40, 60, 3)
    path.write_bytes(black_png(60, 40))
    assert read_picture(path).shape == (40, 60, 3)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (900_000, 90), (8193, 8192)])
def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "frame.jpg"
    data = black_png(width, height)
    path.write_bytes(data)
    with pytest.raises(MonoError, match="too many pixels"):
        read_picture(path)
    with pytest.raises(FrameError):
        frame_jpeg(RawFrame(0, 0, "camera", jpeg=data))


def test_what_is_no_picture_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "torn.png").write_bytes(black_png(60, 40)[:30])
    with (tmp_path / "sparse.jpg").open("wb") as stream:
        stream.truncate(1 << 40)
    for name, sentence in (
        ("pipe.jpg", "is a pipe"),
        ("endless.jpg", "is a device"),
        ("text.jpg", "no picture"),
        ("empty.jpg", "no picture"),
        ("torn.png", "no picture"),
        ("sparse.jpg", "more than 67.1 MB"),
        ("absent.jpg", "No such file"),
        (".", "directory"),
    ):
        with pytest.raises(MonoError, match=sentence):
            read_picture(tmp_path / name)
