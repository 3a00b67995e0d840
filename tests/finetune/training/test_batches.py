"""A mirrored row is what a mirror would show: pixels, history, path and words alike."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.builder import main as build  # noqa: E402
from collector.dataset.schema import Sample, read_samples  # noqa: E402
from collector.geometry.poses import mirror_poses  # noqa: E402
from collector.reasoning.consistency import parse_claim  # noqa: E402
from collector.reasoning.writing import swap_sides  # noqa: E402
from finetune.alpamayo.configuration import ALPAMAYO_1_5  # noqa: E402
from finetune.processing.processor import DISPLAY_NAMES, Processor  # noqa: E402
from finetune.training.batches import cache_vision, collate, encode_row, observe, read_frame, unpack_pixels  # noqa: E402
from finetune.training.encoding import SetAside, encode_dataset, encoded_rows  # noqa: E402
from tests.helpers.small_model import small_model  # noqa: E402
from tests.helpers.synthetic_bag import drive_course, write_bag  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    """A few real samples; their frames replaced by a picture that is not its own mirror image."""
    root = tmp_path_factory.mktemp("batches")
    build(["--bags", str(write_bag(root / "bag", drive_course())), "--out", str(root / "set"), "--stride", "25"])
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    for path in (root / "set" / "images").iterdir():
        cv2.imwrite(str(path), picture)
    return root / "set", list(read_samples(root / "set"))


def test_a_mirrored_row_is_the_mirrored_sample(dataset: tuple[Path, list[Sample]]) -> None:
    folder, samples = dataset
    loaded = small_model()
    curved = next(sample for sample in samples if sample.curve.label in ("left", "right"))
    row = encode_row(loaded, curved, folder, "mono", mirrored=True)
    twin = curved.model_copy(
        update={
            "future": mirror_poses(curved.future).tolist(),
            "history": mirror_poses(curved.history).tolist(),
            "reasoning": swap_sides(curved.reasoning),
        }
    )
    expected = encode_row(loaded, twin, folder, "mono")
    assert torch.equal(row.input_ids, expected.input_ids)
    assert torch.allclose(row.actions, expected.actions, atol=1e-5)
    assert row.sample_id.endswith("-mirror")
    assert not torch.equal(row.pixels, expected.pixels), "the picture itself must be mirrored too"
    observation = observe(curved, folder)
    flipped = loaded.processor.encode([observation.frames["front"][-1][:, ::-1]], observation.history, None)
    assert torch.equal(unpack_pixels(row.pixels), flipped.pixel_values), "packing loses nothing"
    assert row.pixels.nbytes * 8 == flipped.pixel_values.nbytes


def test_curvature_changes_sign_and_acceleration_stays(dataset: tuple[Path, list[Sample]]) -> None:
    folder, samples = dataset
    loaded = small_model()
    plain = encode_row(loaded, samples[0], folder, "mono").actions
    turned = encode_row(loaded, samples[0], folder, "mono", mirrored=True).actions
    space = loaded.config.action_space
    physical = [actions[:, 1] * space.curvature_std + space.curvature_mean for actions in (plain, turned)]
    assert torch.allclose(physical[0], -physical[1], atol=1e-4)
    assert torch.allclose(plain[:, 0], turned[:, 0], atol=1e-3)


def test_a_mirrored_claim_names_the_other_side(dataset: tuple[Path, list[Sample]]) -> None:
    for sample in dataset[1]:
        sides = {"left": "right", "right": "left"}
        claimed = parse_claim(sample.reasoning).lateral
        assert parse_claim(swap_sides(sample.reasoning)).lateral == sides.get(claimed, claimed)


def test_an_absent_frame_is_named(tmp_path: Path, dataset: tuple[Path, list[Sample]]) -> None:
    with pytest.raises(MonoError, match=r"nothing\.jpg"):
        read_frame(tmp_path / "nothing.jpg")


def test_rows_of_alpamayo_1_5_name_their_cameras_with_and_without_reasoning(dataset: tuple[Path, list[Sample]]) -> None:
    folder, samples = dataset
    loaded = small_model()
    config = replace(loaded.config, model_type=ALPAMAYO_1_5)
    newer = replace(loaded, processor=Processor(config, loaded.processor.tokenizer, loaded.processor.images))
    for mode, named in (("mono", ["Front camera"]), ("mono-padded", list(DISPLAY_NAMES.values())[:3])):
        row = encode_row(newer, samples[0], folder, mode)
        for ids in (row.input_ids, row.silent_ids):
            text = newer.processor.tokenizer.decode(ids.tolist(), keep_special=True)
            assert all(f"{name}: frame 0 <|vision_start|>" in text for name in named)
        plain = encode_row(loaded, samples[0], folder, mode)
        assert "camera: frame" not in loaded.processor.tokenizer.decode(plain.input_ids.tolist())


def test_samples_of_one_frame_share_its_features_and_are_what_they_are_alone(
    tmp_path: Path, dataset: tuple[Path, list[Sample]]
) -> None:
    folder, (first, second, *_) = dataset
    loaded = small_model()
    asked = "Keep to the left edge, as asked. "
    pair = [
        first.model_copy(update={"id": name, "pair": "one", "reasoning": text})
        for name, text in (("plain", first.reasoning), ("asked", asked + first.reasoning))
    ]
    chosen = {folder: [*pair, second.model_copy(update={"split": "train"})]}
    how = {"cameras": "mono", "mirror": True, "frozen_vision": True, "device": torch.device("cpu")}
    encode_dataset(loaded, chosen, tmp_path / "rows", SetAside(), **how)  # type: ignore[arg-type]
    rows, _, _ = encoded_rows(tmp_path / "rows")
    pairs = [row.pair.removeprefix(f"{folder}: ") for row in rows]
    assert pairs == ["one", "one-mirror", "one", "one-mirror", "", ""]
    alone = [encode_row(loaded, one, folder, "mono", mirrored) for one in chosen[folder] for mirrored in (False, True)]
    for row, one in zip(rows, alone, strict=True):
        expected = next(iter(cache_vision(loaded.model, [one], torch.device("cpu"))))
        for name in ("input_ids", "label_mask", "silent_ids", "actions", "history"):
            assert torch.equal(getattr(row, name), getattr(expected, name)), (row.sample_id, name)
        assert torch.allclose(row.vision.embeds, expected.vision.embeds, atol=1e-5)
    plain, mirrored, again, *_ = (row.vision.embeds.data_ptr() for row in rows)
    assert plain == again != mirrored, "the features of one picture are there once"


def test_pairs_of_two_datasets_are_not_one_pair_though_they_have_one_name(
    tmp_path: Path, dataset: tuple[Path, list[Sample]]
) -> None:
    folder, (first, second, *_) = dataset
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    chosen = {
        place: [
            sample.model_copy(update={"id": f"one~{number}", "pair": "one", "reasoning": text, "split": "train"})
            for number, text in enumerate((sample.reasoning, "Keep to the left edge, as asked. " + sample.reasoning))
        ]
        for place, sample in ((folder, first), (copied, second))
    }
    how = {"cameras": "mono", "mirror": False, "frozen_vision": True, "device": torch.device("cpu")}
    encode_dataset(small_model(), chosen, tmp_path / "rows", SetAside(), **how)  # type: ignore[arg-type]
    rows, _, _ = encoded_rows(tmp_path / "rows")
    assert collate(rows, 0).partner.tolist() == [1, 0, 3, 2]
    packed = collate(rows, 0, packed=True)
    assert packed.packing is not None and packed.packing.row.tolist() == [0, 0, 1, 1]
    assert torch.equal(packed.vision.embeds, torch.cat([rows[0].vision.embeds, rows[2].vision.embeds]))


def test_what_was_asked_is_read_and_not_learned(dataset: tuple[Path, list[Sample]]) -> None:
    folder, samples = dataset
    loaded = small_model()
    decode = loaded.processor.tokenizer.decode
    for asked, answer in (
        ("Keep to the left edge, as asked. ", ""),
        ("Turn left", ", but the lane is straight, so follow it. "),
    ):
        text = f"{asked}{answer}{samples[0].reasoning}"
        row = encode_row(loaded, samples[0].model_copy(update={"reasoning": text}), folder, "mono")
        assert text in decode(row.input_ids.tolist())
        assert decode(row.input_ids[row.label_mask].tolist()) == f"{answer}{samples[0].reasoning}"
