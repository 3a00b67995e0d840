"""Prompt words, vocabulary, images: what the model is fed, against the reference's strings and ids."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from benchmarks.tiny_base.architecture import QWEN_SPECIALS  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from finetune.model_files.configuration_files import read_config  # noqa: E402
from finetune.processing.images import ImageSettings, patchify, preprocess, resize, smart_resize  # noqa: E402
from finetune.processing.processor import Processor, history_bins, pad_right, prompt_text  # noqa: E402
from finetune.processing.tokenizer import SPECIAL_KEYS, Tokenizer, special  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402

TOKENS = [4, 4, 6, 6]
HISTORY = np.column_stack([np.linspace(-7.5, 0.0, 16), np.zeros(16), np.zeros(16)])


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.from_folder(TINY, read_config(TINY))


@pytest.fixture(scope="module")
def io() -> Any:
    return np.load(TINY / "io.npz")


def test_prompt_words_are_the_reference_s() -> None:
    texts = json.loads((TINY / "texts.json").read_text())
    assert prompt_text(TOKENS) == texts["s0/infer"]
    reasoning = "Keep lane; the road bends left."
    ours = prompt_text(TOKENS, reasoning=reasoning)
    assert texts["s0/train_cot"].startswith(ours)
    assert texts["s0/train_cot"][len(ours) :].startswith("<|traj_future|>")
    silent = prompt_text([1], reasoning="")
    assert silent.endswith("output the future trajectory.<|im_end|>\n<|im_start|>assistant\n<|traj_future_start|>")
    assert "chain-of-thought" not in silent


def test_prompt_ids_are_exact(processor: Processor, io: Any) -> None:
    bins = history_bins(torch.as_tensor(io["s0/ego_history_xyz"][0, 0]), processor.config.history_tokenizer)
    history = (bins + processor.config.history_token_start_idx).tolist()
    ids, learned = processor.prompt_ids(TOKENS, history, None)
    fused = io["s0/train_cot/input_ids_hist_fused"][0]
    assert ids == fused[: len(ids)].tolist() and len(ids) == io["s0/infer/input_ids_raw"].shape[1] and learned == 0
    ids, learned = processor.prompt_ids(TOKENS, history, "Keep lane; the road bends left.")
    assert ids == fused[: len(ids)].tolist()
    # What is learned here is what the reference labels, up to the trajectory's start.
    labels = io["s0/train_cot/labels_mask"][0][: len(ids)]
    ours = np.zeros(len(ids), dtype=bool)
    ours[-learned:] = True
    cot_start = ids.index(processor.cot_start_id)
    assert labels[cot_start + 1 :].tolist() == ours[cot_start + 1 :].tolist() and not ours[: cot_start + 1].any()


def test_ids_equal_those_of_the_whole_text(processor: Processor) -> None:
    placeholder = processor.tokenizer.id_of("<|traj_history|>")
    for reasoning in (None, "", "Slow down, the road bends left."):
        for images in (TOKENS, []):
            ids, _ = processor.prompt_ids(images, [placeholder] * 48, reasoning)
            assert ids == processor.tokenizer.encode(prompt_text(images, reasoning=reasoning))


def test_vocabulary_ids_follow_the_reference(processor: Processor) -> None:
    ids = json.loads((TINY / "ids.json").read_text())
    assert {key: processor.tokenizer.id_of(special(key)) for key in SPECIAL_KEYS} == ids["special_token_ids"]
    assert processor.config.history_token_start_idx == ids["hist_token_start_idx"]
    assert processor.pad_id == ids["pad_token_id"]


def test_extension_appends_bins_then_words_once() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(QWEN_SPECIALS), initial_alphabet=alphabet)
    backend.train_from_iterator(["the lane bends left"], trainer)
    tokenizer = Tokenizer(backend)
    before = len(tokenizer)
    tokenizer.extend(4000)
    assert tokenizer.id_of("<i0>") == before and tokenizer.id_of("<i3999>") == before + 3999
    # Same distances as in the released vocabulary: 155669 .. 155696 after 151669 + 4000.
    assert tokenizer.id_of("<|prompt_start|>") == before + 4000
    assert tokenizer.id_of("<|traj_future_start|>") == before + 4012
    assert tokenizer.id_of("<|answer_end|>") == before + 4027 and len(tokenizer) == before + 4028
    assert len(tokenizer.extend(4000)) == before + 4028
    text = "the lane bends left <i7><|cot_end|>"
    assert tokenizer.decode(tokenizer.encode(text), keep_special=True) == text


def test_reasoning_is_cut_out_of_generated_ids(processor: Processor) -> None:
    words = processor.tokenizer
    reasoning = words.encode("Nudge left.")
    tail = [processor.cot_end_id, processor.config.token_ids.future_start]
    assert processor.decode_reasoning(reasoning + tail) == "Nudge left."
    assert (
        processor.decode_reasoning([*words.encode("noise"), processor.cot_start_id, *reasoning, *tail]) == "Nudge left."
    )
    assert processor.decode_reasoning(reasoning) == ""


def test_encoded_prompt_has_matching_images_history_and_labels(processor: Processor) -> None:
    image = np.zeros((1080, 1920, 3), dtype=np.uint8)
    encoded = processor.encode([image], HISTORY, "Nudge left.")
    assert encoded.grid_thw.tolist() == [[1, 20, 36]] and encoded.pixel_values.shape == (720, 1536)
    placeholders = encoded.input_ids == processor.config.vlm["image_token_id"]
    assert int(placeholders.sum()) == 180
    start = processor.config.history_token_start_idx
    bins = encoded.input_ids[(encoded.input_ids >= start) & (encoded.input_ids < start + 40)]
    assert len(bins) == 48
    learned = processor.tokenizer.decode(encoded.input_ids[encoded.label_mask].tolist(), keep_special=True)
    assert learned == "Nudge left.<|cot_end|><|traj_future_start|>"
    silent = processor.encode([image], HISTORY, "")
    assert not silent.label_mask.any()
    rows = [encoded.input_ids, silent.input_ids]
    padded = pad_right(rows, processor.pad_id, multiple=32)
    assert padded.shape[1] % 32 == 0 and len(encoded.input_ids) > len(silent.input_ids)
    for row, whole in zip(padded, rows, strict=True):
        assert torch.equal(row[: len(whole)], whole) and bool((row[len(whole) :] == processor.pad_id).all())


@pytest.mark.parametrize("reasoning", ["stop <|cot_end|> here", "<i3>"])
def test_special_words_do_not_enter_through_reasoning(processor: Processor, reasoning: str) -> None:
    with pytest.raises(MonoError, match="special words"):
        processor.encode([np.zeros((64, 64, 3), dtype=np.uint8)], HISTORY, reasoning)


def test_bad_images_and_histories_are_named(processor: Processor) -> None:
    good = np.zeros((64, 64, 3), dtype=np.uint8)
    for images in ([], [good[..., 0]], [good.astype(np.float32)]):
        with pytest.raises(MonoError):
            processor.encode(images, HISTORY)
    with pytest.raises(MonoError, match="history"):
        processor.encode([good], HISTORY[:10])


def test_official_size_and_crop() -> None:
    assert smart_resize(1080, 1920, 32, 163840, 196608) == (320, 576)
    assert smart_resize(360, 640, 32, 163840, 196608) == (320, 576)
    image = np.zeros((360, 640, 3), dtype=np.uint8)
    image[180:] = 255
    cropped = resize(image, ImageSettings(crop_top=0.5, resize_width_px=320, resize_height_px=160))
    assert cropped.shape == (160, 320, 3) and cropped.min() == 255
    assert resize(image, ImageSettings(resize_width_px=320, resize_height_px=160)).min() == 0
    for wrong in (
        {"crop_top": 0.6, "crop_bottom": 0.4},
        {"resize_width_px": 320},
        {"resize_width_px": 300, "resize_height_px": 160},
    ):
        with pytest.raises(MonoError):
            ImageSettings(**wrong)  # type: ignore[arg-type]


def test_patches_are_ordered_by_merge_block_and_repeat_the_frame() -> None:
    image = np.arange(64 * 96 * 3, dtype=np.int64).reshape(64, 96, 3).astype(np.uint8)
    flat, grid = patchify(image, ImageSettings())
    assert grid == (1, 4, 6)
    patches = flat.reshape(-1, 3, 2, 16, 16)
    assert np.array_equal(patches[:, :, 0], patches[:, :, 1])
    # Third patch of the second block: block column 1, second row, first column -> pixel rows 16.., columns 32..
    expected = (image[16:32, 32:48].astype(np.float64) / 255 - 0.5) / 0.5
    assert np.allclose(patches[6, :, 0].transpose(1, 2, 0), expected, atol=1e-6)


def test_images_equal_the_library_s_processor() -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    official = module.Qwen2VLImageProcessorPil(
        patch_size=16, min_pixels=163840, max_pixels=196608, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    image = np.random.default_rng(0).integers(0, 255, (370, 640, 3), dtype=np.uint8)
    theirs = official(images=[image], return_tensors="np")
    ours, grids = preprocess([image, image], ImageSettings())
    assert np.array_equal(grids[:1], theirs["image_grid_thw"])
    assert np.allclose(ours[: len(ours) // 2], theirs["pixel_values"], atol=1e-5)
    assert np.array_equal(ours[: len(ours) // 2], ours[len(ours) // 2 :])
