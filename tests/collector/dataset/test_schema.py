"""The dataset folder's contract: one strict definition, errors that point at line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.dataset.schema import (
    DatasetWriter,
    Sample,
    SchemaError,
    load_manifest,
    parse_sample,
    read_samples,
    scan_samples,
)

FUTURE = [[0.5 * n, 0.0, 0.0] for n in range(1, 65)]
HISTORY = [[0.5 * n, 0.0, 0.0] for n in range(-15, 1)]


MANIFEST = '{"schema_version": 1}'


def values(**changes: Any) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "file_name": "images/bag_4.jpg",
        "frames": [f"images/bag_{n}.jpg" for n in range(1, 5)],
        "id": "bag_4",
        "bag": "bag",
        "lap": 2,
        "stamp_ns": 1_700_000_000_123_456_789,
        "reasoning": "The lane is straight, so keep the speed and keep straight.",
        "history": HISTORY,
        "future": FUTURE,
        "dt_s": 0.1,
        "speed_mps": 5.0,
        "curve": {"label": "straight", "max_abs_curvature_1pm": 0.0, "entry_m": None, "turn_rad": 0.0},
        "claim": {"lateral": "straight", "longitudinal": "keep"},
        "split": "train",
    }
    return {**sample, **changes}


def test_a_sample_survives_the_file(tmp_path: Path) -> None:
    sample = Sample.model_validate(values())
    other = sample.model_copy(update={"id": "bag_5", "split": "val"})
    with DatasetWriter(tmp_path) as writer:
        assert writer.add_image("bag", 4, b"jpeg") == "images/bag_4.jpg"
        writer.add_image("bag", 4, b"not written twice")
        writer.write(sample)
        writer.write(other)
        writer.quarantine(sample, {"reason": "because"})
        with pytest.raises(MonoError, match=r"manifest\.json"):
            load_manifest(tmp_path)
        writer.finish({"counts": {"kept": 2}})
    assert list(read_samples(tmp_path)) == [sample, other]
    assert list(read_samples(tmp_path, split="val")) == [other]
    assert load_manifest(tmp_path) == {"schema_version": 1, "counts": {"kept": 2}}
    assert (tmp_path / "images/bag_4.jpg").read_bytes() == b"jpeg"
    line = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert line["verdict"] == {"reason": "because"} and line["id"] == "bag_4"
    # Plain JSON, the names, nanoseconds unharmed.
    first = json.loads((tmp_path / "metadata.jsonl").read_text().splitlines()[0])
    assert first == values() and first["stamp_ns"] == 1_700_000_000_123_456_789
    assert sample.history_array().shape == (16, 3) and sample.future_array().shape == (64, 3)
    assert np.array_equal(sample.future_array()[-1], [32.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"future": FUTURE[:63]}, "future"),
        ({"future": [*FUTURE, FUTURE[0]]}, "future"),
        ({"history": HISTORY[:-1]}, "history"),
        ({"future": [*FUTURE[:10], [1.0, 2.0], *FUTURE[11:]]}, "future.10.2"),
        ({"future": [*FUTURE[:10], [1.0, "x", 0.0], *FUTURE[11:]]}, "future.10.1"),
        ({"future": [*FUTURE[:10], [1.0, float("nan"), 0.0], *FUTURE[11:]]}, "future.10.1"),
        ({"speed_mps": float("inf")}, "speed_mps"),
        ({"stamp_ns": 1.5}, "stamp_ns"),
        ({"stamp_ns": None}, "stamp_ns"),
        ({"lap": "two"}, "lap"),
        ({"stamp_ns": 10**30}, "stamp_ns"),
        ({"file_name": "../../secret.jpg"}, "file_name"),
        ({"file_name": "images/../../secret.jpg"}, "file_name"),
        ({"file_name": "/dev/zero"}, "file_name"),
        ({"file_name": "//dev/stdin"}, "file_name"),
        ({"file_name": "images/\0.jpg"}, "file_name"),
        ({"file_name": "images/\n.jpg"}, "file_name"),
        ({"file_name": ""}, "file_name"),
        ({"file_name": "."}, "file_name"),
        ({"file_name": "a" * 5000}, "file_name"),
        ({"frames": ["images/1.jpg", "images/2.jpg", "images/3.jpg", "/proc/self/environ"]}, "frames.3"),
        ({"frames": ["..", "images/2.jpg", "images/3.jpg", "images/4.jpg"]}, "frames.0"),
        ({"lap": "2"}, "lap"),
        ({"frames": ["one.jpg"]}, "frames"),
        ({"dt_s": 0.0}, "dt_s"),
        ({"split": "test"}, "split"),
        ({"curve": {"label": "wiggly", "max_abs_curvature_1pm": 0.0, "entry_m": None, "turn_rad": 0.0}}, "curve.label"),
        ({"claim": {"lateral": "up", "longitudinal": "keep"}}, "claim.lateral"),
        ({"claim": {"lateral": "left"}}, "claim.longitudinal"),
        ({"speed": 3.0}, "speed"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    lines = [json.dumps(values()), "", json.dumps(values(**changes)), json.dumps(values())]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "manifest.json").write_text(MANIFEST)
    with pytest.raises(SchemaError) as caught:
        list(read_samples(tmp_path))
    assert f"metadata.jsonl, line 3, field {field}:" in str(caught.value)


@pytest.mark.parametrize("line", ["{", "[]", "7", '"text"', '{"a": 1', "\x00", "nonsense " * 1000])
def test_no_line_makes_a_traceback(line: str) -> None:
    with pytest.raises(SchemaError, match="line 5") as caught:
        parse_sample(line, "metadata.jsonl", 5, Sample)
    assert len(str(caught.value)) < 600


def test_a_missing_field_broken_text_and_a_missing_file(tmp_path: Path) -> None:
    lacking = values()
    del lacking["reasoning"]
    with pytest.raises(SchemaError, match="field reasoning"):
        parse_sample(json.dumps(lacking), "m", 1, Sample)
    with pytest.raises(MonoError, match=r"no metadata\.jsonl"):
        read_samples(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(MonoError, match=r"no manifest\.json"):
        read_samples(tmp_path)
    (tmp_path / "manifest.json").write_text(MANIFEST)
    with pytest.raises(SchemaError, match="line 1"):
        list(read_samples(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(MonoError, match="cannot be read: not JSON"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(MonoError, match="99"):
        load_manifest(tmp_path)


def test_samples_cannot_be_changed() -> None:
    sample = Sample.model_validate(values())
    with pytest.raises(ValueError, match="frozen"):
        sample.lap = 3  # type: ignore[misc]


def test_hugging_face_reads_the_folder_as_it_is(tmp_path: Path) -> None:
    """Frames that only serve as older images have no line of their own; the loader must not mind."""
    datasets = pytest.importorskip("datasets")
    import cv2

    folder = tmp_path / "dataset"
    with DatasetWriter(folder) as writer:
        for stamp in range(1, 6):
            data = cv2.imencode(".jpg", np.full((8, 8, 3), stamp * 40, np.uint8))[1].tobytes()
            writer.add_image("bag", stamp, data)
        writer.write(Sample.model_validate(values()))
        writer.write(Sample.model_validate(values(file_name="images/bag_5.jpg", id="bag_5")))
        writer.finish({})
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) == 2 and loaded[0]["image"].size == (8, 8)
    assert loaded[1]["id"] == "bag_5" and len(loaded[0]["future"]) == 64


def test_a_line_without_end_is_one_line_and_the_next_is_read(tmp_path: Path) -> None:
    file = tmp_path / "metadata.jsonl"
    good = json.dumps(values())
    deep = json.dumps(values()).replace('"lap": 2', '"lap": ' + "[" * 100_000)
    file.write_text(f"{good}\n{'x' * 5_000_000}\n\n{deep}\n{good}")
    found = list(scan_samples(file, Sample))
    assert [isinstance(each, Sample) for each in found] == [True, False, False, True]
    assert "line 2" in str(found[1]) and "more than 1.05 MB" in str(found[1]) and "line 4" in str(found[2])
