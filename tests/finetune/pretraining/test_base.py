"""The tiny base's own training: rigs of several cameras, and a short run of the two documented commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from closed_loop.simulator.base_data import main as render_base  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.checkpoint import load_model  # noqa: E402
from finetune.policy import CAMERA_ORDER, FRAMES_PER_CAMERA  # noqa: E402
from finetune.pretraining.shards import load_shards  # noqa: E402
from finetune.pretraining.train import FULL_RIG, SMALL_RIGS, encode_prompts  # noqa: E402
from finetune.pretraining.train import main as train_base  # noqa: E402

TOKENS = 50


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered courses with very few samples."""
    folder = tmp_path_factory.mktemp("shards")
    render_base(["--out", str(folder), "--courses", "2", "--episodes", "1", "--window-s", "0.3", "--workers", "1"])
    return folder


def test_a_rig_shows_its_cameras_in_their_order(shards: Path) -> None:
    data = load_shards(shards, torch.device("cpu"), 0)
    assert len(data) == 2 * 2 * 4 and bool(data.mirrored[-1]) and not bool(data.mirrored[0])
    chosen = torch.tensor([0, len(data) - 1])  # the last one is seen in a mirror
    full = data.images(chosen).unflatten(0, (2, len(CAMERA_ORDER), FRAMES_PER_CAMERA))
    for rig in SMALL_RIGS:
        assert "front" in rig and "front_tele" in rig and rig[-1] != "front"
        seen = data.images(chosen, rig).unflatten(0, (2, len(rig), FRAMES_PER_CAMERA))
        assert torch.equal(seen, full[:, [CAMERA_ORDER.index(name) for name in rig]])
    plain = data.images(torch.tensor([len(data) // 2 - 1])).unflatten(0, (1, 4, FRAMES_PER_CAMERA))
    assert torch.equal(full[1, 0], plain[0, 2].flip(-2)), "a mirror exchanges the cross cameras"


def test_the_prompt_of_a_rig_is_the_one_the_builder_writes(shards: Path) -> None:
    data = load_shards(shards, torch.device("cpu"), 0)
    processor = load_model(TINY_BASE).processor
    prompts = encode_prompts(data, processor, TOKENS, torch.device("cpu"))
    chosen = torch.arange(0, len(data), 3)
    for rig in (FULL_RIG, *SMALL_RIGS):
        counts = [TOKENS] * (len(rig) * FRAMES_PER_CAMERA)
        for silent in (False, True):
            ids, mask, labels = prompts.batch(chosen, silent, len(counts))
            for row, sample in enumerate(chosen.tolist()):
                words = processor.history_ids(data.history[sample])
                text = "" if silent else data.reasoning[sample]
                expected, learned = processor.prompt.build(counts, words, text)
                assert ids[row][mask[row]].tolist() == expected
                assert labels[row].nonzero().flatten().tolist() == list(range(len(expected) - learned, len(expected)))


def test_the_two_commands_make_a_model_folder(shards: Path, tmp_path: Path) -> None:
    train_base(
        [
            "--data",
            str(shards),
            "--out",
            str(tmp_path / "base"),
            "--validation-courses",
            "1",
            "--steps",
            "3",
            "--batch-size",
            "2",
            "--projection-steps",
            "5",
            "--small-rigs",
            "0.7",
            "--device",
            "cpu",
        ]
    )
    record = json.loads((tmp_path / "base" / "training.json").read_text())
    assert record["metrics"]["steps"] == 3 and np.isfinite(record["metrics"]["validation_flow_loss"])
    loaded = load_model(tmp_path / "base")
    assert loaded.model.settings.flow.num_inference_steps == 10
    train_base(
        [
            "--data",
            str(shards),
            "--out",
            str(tmp_path / "more"),
            "--init",
            str(tmp_path / "base"),
            "--validation-courses",
            "1",
            "--steps",
            "1",
            "--batch-size",
            "2",
            "--learning-rate",
            "0",
            "--average",
            "0",
            "--device",
            "cpu",
        ]
    )
    again = load_model(tmp_path / "more").model.state_dict()
    for name, value in loaded.model.state_dict().items():
        assert torch.allclose(again[name].float(), value.float(), atol=0.01), name
