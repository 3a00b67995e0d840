"""The tiny base's own training: rigs of several cameras, and a short run of the documented commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.tiny_base.architecture import IMAGES, PROMPT_WORDS, build_tokenizer, tiny_config  # noqa: E402
from benchmarks.tiny_base.new_model import adopt_weights, new_model  # noqa: E402
from benchmarks.tiny_base.prompts import encode_prompts  # noqa: E402
from benchmarks.tiny_base.render import main as render_base  # noqa: E402
from benchmarks.tiny_base.shards import FULL_RIG, SMALL_RIGS, load_shards  # noqa: E402
from benchmarks.tiny_base.train import main as train_base  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.checkpoint import load_model  # noqa: E402
from finetune.policy import CAMERA_ORDER, FRAMES_PER_CAMERA  # noqa: E402

TOKENS = 50


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered courses with very few samples."""
    folder = tmp_path_factory.mktemp("shards")
    render_base(["--out", str(folder), "--courses", "2", "--episodes", "1", "--window-s", "0.1", "--workers", "1"])
    return folder


def test_a_rig_shows_its_cameras_in_their_order(shards: Path) -> None:
    data = load_shards(shards, torch.device("cpu"), 0)
    assert len(data) == 2 * 2 * 2 and bool(data.mirrored[-1]) and not bool(data.mirrored[0])
    chosen = torch.tensor([0, len(data) - 1])  # the last one is seen in a mirror
    full = data.images(chosen).unflatten(0, (2, len(CAMERA_ORDER), FRAMES_PER_CAMERA))
    rare = [rig for rig in SMALL_RIGS if "front_tele" not in rig.cameras]
    assert len(rare) == 8 and len(SMALL_RIGS) == 998 and {len(rig.cameras) for rig in rare} == {2}
    for rig in set(SMALL_RIGS):
        assert "front" in rig.cameras
        seen = data.images(chosen, rig).unflatten(0, (2, len(rig.cameras), rig.frames))
        places = [CAMERA_ORDER.index(name) for name in rig.cameras]
        assert torch.equal(seen, full[:, places, -rig.frames :])
    plain = data.images(torch.tensor([len(data) // 2 - 1])).unflatten(0, (1, 4, FRAMES_PER_CAMERA))
    assert torch.equal(full[1, 0], plain[0, 2].flip(-2)), "a mirror exchanges the cross cameras"


def test_the_prompt_of_a_rig_is_the_one_the_builder_writes(shards: Path) -> None:
    data = load_shards(shards, torch.device("cpu"), 0)
    processor = load_model(TINY_BASE).processor
    prompts = encode_prompts(data, processor, TOKENS, torch.device("cpu"))
    chosen = torch.arange(0, len(data), 3)
    for rig in (FULL_RIG, *sorted(set(SMALL_RIGS))):
        counts = [TOKENS] * rig.images
        for silent in (False, True):
            ids, mask, labels = prompts.batch(chosen, silent, len(counts))
            for row, sample in enumerate(chosen.tolist()):
                words = processor.history_ids(data.history[sample])
                text = "" if silent else data.reasoning[sample]
                expected, learned = processor.prompt_ids(counts, words, text)
                assert ids[row][mask[row]].tolist() == expected
                assert labels[row].nonzero().flatten().tolist() == list(range(len(expected) - learned, len(expected)))


@pytest.mark.slow
def test_the_seed_gives_the_weights_and_training_goes_on(shards: Path, tmp_path: Path) -> None:
    def train(out: str, *more: str) -> list[str]:
        words = ["--data", str(shards), "--out", str(tmp_path / out), "--validation-courses", "1", "--batch-size", "2"]
        train_base([*words, "--projection-steps", "2", "--small-rigs", "0.7", "--device", "cpu", *more])
        lines = (tmp_path / out / "training.jsonl").read_text().splitlines()
        return [json.loads(line)["weights_sha256"] for line in lines]

    assert train("base", "--steps", "2") == train("again", "--steps", "2")
    record = json.loads((tmp_path / "base" / "training.json").read_text())
    assert record["config"]["steps"] == 2
    assert np.isfinite(record["metrics"]["flow_loss"])
    loaded = load_model(tmp_path / "base")
    assert loaded.model.settings.flow.num_inference_steps == 10
    more = ("--steps", "1", "--learning-rate", "1e-9", "--average", "0", "--init", str(tmp_path / "base"))
    assert train("more", *more) != train("other", "--steps", "1", "--seed", "1")
    again = load_model(tmp_path / "more").model.state_dict()
    for name, value in loaded.model.state_dict().items():
        assert torch.allclose(again[name].float(), value.float(), atol=0.01), name


def test_a_base_that_spelled_its_prompt_goes_on_in_words() -> None:
    spelled, words = (build_tokenizer(["The road."] * 2 + [PROMPT_WORDS], merges=count) for count in (0, 600))
    old, young = (
        new_model(tiny_config(each), each, images=IMAGES, seed=seed) for seed, each in enumerate((spelled, words))
    )
    adopt_weights(young, old)
    table, pieces = (each.model.vlm.model.language_model.embed_tokens.weight for each in (young, old))
    assert torch.allclose(table[words.encode(" road")[0]], pieces[spelled.encode(" road")].mean(0))
    assert torch.equal(table[words.id_of("<i7>")], pieces[spelled.id_of("<i7>")])
    assert len(words.encode("You are a driving assistant that generates safe and accurate actions.")) == 12
    assert torch.equal(young.model.action_out_proj.weight, old.model.action_out_proj.weight)
