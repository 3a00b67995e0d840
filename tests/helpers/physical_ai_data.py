"""A small data set in PhysicalAI-AV's layout, as a fixture; import ``data`` and ``no_network`` where it is read."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("physical_ai_av")
av = pytest.importorskip("av")
pd = pytest.importorskip("pandas")
hub = pytest.importorskip("huggingface_hub")

from collector.dataset.physical_ai import REPOSITORY  # noqa: E402
from tests.helpers.synthetic_bag import drive_course  # noqa: E402

LEFT, RIGHT = ((35, 0.0), (20, 0.08), (60, 0.0)), ((30, 0.0), (20, -0.08), (60, 0.0))
ROADS = {
    "0a-left": LEFT, "1b-straight": ((140, 0.0),), "2c-right": RIGHT, "3d-left": LEFT, "4e-torn": LEFT,
    "5f-cloud": LEFT,
}  # fmt: skip
CHUNKS = dict(zip(ROADS, (0, 0, 0, 1, 1, 2), strict=False))  # chunk 2 is not downloaded
CAMERA = "camera_front_wide_120fov"
FPS = 30


def video(frames: int) -> bytes:
    """Frame k is a grey of brightness 20 + k % 200."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + k % 200, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def parquet(table: object) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder as the package leaves it after downloading two of three chunks."""
    cache = tmp_path_factory.mktemp("physical") / "cache"
    root = cache / f"datasets--{REPOSITORY.replace('/', '--')}" / "snapshots" / ("ab" * 20)
    names = {
        CAMERA: ("camera", {"video": ".mp4", "frame_timestamps": ".timestamps.parquet"}),
        "egomotion": ("labels", {"egomotion": ".parquet"}),
    }
    rows = []
    for feature, (directory, members) in names.items():
        templates = {alias: f"{{clip_id}}.{feature}{end}" for alias, end in members.items()}
        path = f"{directory}/{feature}/{feature}.chunk_{{chunk_id:04d}}.zip"
        rows.append((feature, directory, path, json.dumps(templates)))
    features = pd.DataFrame(rows, columns=["feature", "directory", "chunk_path", "clip_files_in_zip"])
    index = pd.DataFrame({"chunk": CHUNKS.values()}, index=pd.Index(list(CHUNKS), name="clip_id"))
    present = pd.DataFrame(dict.fromkeys(names, True), index=index.index)
    (root / "metadata").mkdir(parents=True)
    features.to_csv(root / "features.csv", index=False)
    index.to_parquet(root / "clip_index.parquet")
    present.to_parquet(root / "metadata" / "feature_presence.parquet")
    pd.DataFrame({"country": "JP"}, index=index.index).to_parquet(root / "metadata" / "data_collection.parquet")
    for chunk in (0, 1):
        archives = {}
        for feature, (directory, _) in names.items():
            folder = root / directory / feature
            folder.mkdir(parents=True, exist_ok=True)
            archives[feature] = zipfile.ZipFile(folder / f"{feature}.chunk_{chunk:04d}.zip", "w")
        for clip in (clip for clip, held in CHUNKS.items() if held == chunk):
            drive = drive_course(ROADS[clip], 6.0)
            time_us = (drive.stamps_ns - drive.stamps_ns[0]) // 1000 - 200_000
            yaw = drive.poses[:, 2]
            motion = pd.DataFrame(
                {
                    "timestamp": time_us, "qx": 0.0, "qy": 0.0, "qz": np.sin(yaw / 2), "qw": np.cos(yaw / 2),
                    "x": drive.poses[:, 0], "y": drive.poses[:, 1], "z": 0.4, "vx": drive.speeds_mps * np.cos(yaw),
                    "vy": drive.speeds_mps * np.sin(yaw), "vz": 0.0, "ax": 0.0, "ay": 0.0, "az": 0.0,
                    "curvature": 0.0,
                }
            )  # fmt: skip
            frames = int((time_us[-1] - 100_000) * FPS // 1_000_000)
            stamps = pd.DataFrame({"timestamp": np.arange(frames) * 1_000_000 // FPS + 40_000})
            torn = clip == "4e-torn"
            archives["egomotion"].writestr(f"{clip}.egomotion.parquet", b"torn" if torn else parquet(motion))
            archives[CAMERA].writestr(f"{clip}.{CAMERA}.mp4", video(frames))
            archives[CAMERA].writestr(f"{clip}.{CAMERA}.timestamps.parquet", parquet(stamps))
        for archive in archives.values():
            archive.close()
    return cache


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("went online")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)  # and put back what the reader sets
