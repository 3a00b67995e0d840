"""Hugging Face's ``load_dataset("imagefolder", data_dir=...)`` reads a dataset folder as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.schema import DatasetWriter, image_name, read_samples
from tests.helpers.synthetic_bag import drive_course, write_bag

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)


def test_a_dataset_folder_loads_with_texts_and_pictures(tmp_path: Path) -> None:
    # Names that Hugging Face would take for splits, a split of our own, and a folder called like one.
    drive = drive_course(((35, 0.0), (10, 0.15), (60, 0.0)))
    names = ("test", "my-train_2", "val", "validation.1")
    bags = tuple(write_bag(tmp_path / name, drive.moved(0.0, 50.0 * n, 0.0)) for n, name in enumerate(names))
    build_dataset(BuildConfig(bags, tmp_path / "ours", stride=3), show_progress=False)
    # Every third text contradicts its path: those pictures lie in the folder too, and must not come up as samples.
    texts, out = tmp_path / "texts.jsonl", tmp_path / "eval" / "dataset"
    with texts.open("w") as lines:
        for number, sample in enumerate(read_samples(tmp_path / "ours")):
            line = {"bag": sample.bag, "stamp_ns": sample.stamp_ns, "reasoning": sample.reasoning}
            lines.write(json.dumps(line | ({"reasoning": "Turn right."} if number % 3 == 0 else {})) + "\n")
    config = BuildConfig(bags, out, stride=3, val_fraction=0.25, reasoning=texts)
    report = build_dataset(config, show_progress=False)
    samples = list(read_samples(out))
    assert report.quarantined > 10 and report.kept == len(samples) > 20
    assert {sample.split for sample in samples} == {"train", "val"}

    loaded = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert rows["id"] == [sample.id for sample in samples]
    for row, sample in zip(rows, samples, strict=True):
        assert row["reasoning"] == sample.reasoning and row["split"] == sample.split
        assert row["curve"] == sample.curve.model_dump() and row["claim"] == sample.claim.model_dump()
        assert np.array_equal(np.array(row["future"]), sample.future_array())
        assert row["image"].size == (32, 24) and row["frames"] == list(sample.frames)
    assert len(rows.filter(lambda row: row["split"] == "val")) == sum(s.split == "val" for s in samples)


def test_many_straights_in_a_row_do_not_hide_what_a_curve_has(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive_course(((35, 0.0), (10, 0.15), (60, 0.0))))
    build_dataset(BuildConfig((bag,), tmp_path / "ours", val_fraction=0.0), show_progress=False)
    samples = list(read_samples(tmp_path / "ours"))
    straight = next(sample for sample in samples if sample.curve.label == "straight")
    curves = [sample for sample in samples if sample.curve.label != "straight"]
    assert curves and straight.curve.entry_m == pytest.approx(straight.speed_mps * 3.0, rel=0.1)
    out, number = tmp_path / "long", 7000
    lines = [straight.model_copy(update={"id": f"straight-{k}"}) for k in range(number)] + curves
    with DatasetWriter(out) as writer:
        for image in (tmp_path / "ours" / "images").iterdir():
            (writer.written() / "images" / image.name).write_bytes(image.read_bytes())
        for sample in lines:
            writer.write(sample)
        writer.finish({})
    # More than Hugging Face reads at a time; it keeps the types it saw in its first part.
    assert (out / "metadata.jsonl").stat().st_size > 12e6
    rows = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(rows) == len(lines) and rows[number]["curve"] == curves[0].curve.model_dump()


@pytest.mark.parametrize(
    ("bag", "stem"),
    [
        ("test", "test~"), ("run_test_2", "run_test~_2"), ("2val", "2val~"), ("dev-train", "dev~-train~"),
        ("latest", "latest"), ("trainer", "trainer"), ("rosbag2_autoware", "rosbag2_autoware"),
    ],
)  # fmt: skip
def test_no_picture_is_named_like_a_split(bag: str, stem: str) -> None:
    assert image_name(bag, 5) == f"images/{stem}_5.jpg"
