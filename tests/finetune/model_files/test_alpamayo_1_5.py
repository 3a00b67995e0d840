"""Alpamayo 1.5: its renamed words, its names of cameras and frames in the prompt, and a folder without constants."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from benchmarks.tiny_base.architecture import QWEN_SPECIALS  # noqa: E402
from benchmarks.tiny_base.new_model import new_model  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from finetune.alpamayo.action_projection import fourier_frequencies  # noqa: E402
from finetune.alpamayo.configuration import ALPAMAYO_1_5  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.checkpoint import LoadedModel, load_model, save_model  # noqa: E402
from finetune.policy import CAMERA_ORDER, Observation, camera_of_each_image, select_images  # noqa: E402
from finetune.processing.images import ImageSettings  # noqa: E402
from finetune.processing.processor import Processor, captions, prompt_text  # noqa: E402
from finetune.processing.tokenizer import RENAMED_IN_1_5, SPECIAL_KEYS, Tokenizer, in_1_5, special  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402
from tests.helpers.small_model import small_model, small_rows  # noqa: E402

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
FOUR_FRAMES = f"frame 0 {IMAGE}frame 1 {IMAGE}frame 2 {IMAGE}frame 3 {IMAGE}"
ALL_CAMERAS = (
    f"Front left camera: {FOUR_FRAMES}Front camera: {FOUR_FRAMES}Front right camera: {FOUR_FRAMES}"
    f"Front telephoto camera: {FOUR_FRAMES}"
)
HISTORY = np.column_stack([np.linspace(-7.5, 0.0, 16), np.zeros(16), np.zeros(16)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny reference model as 1.5 lays it out: its class names, no stored constants."""
    place = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("models") / "newer"))
    text = (place / "config.json").read_text().replace("alpamayo_r1", "alpamayo1_5")
    text = text.replace("AlpamayoR1", "Alpamayo1_5")
    (place / "config.json").write_text(text)
    tensors = load_file(place / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not (k.startswith("action_space.") or k.endswith(".freqs"))}
    assert len(tensors) - len(kept) == 7
    save_file(kept, place / "model.safetensors")
    return place


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    model = load_model(folder)
    images = ImageSettings(resize_width_px=96, resize_height_px=64)
    return LoadedModel(model.model, Processor(model.config, model.processor.tokenizer, images), model.config, folder)


def backbone_tokenizer() -> Tokenizer:
    """A byte-level tokenizer with Qwen's words and none of Alpamayo's, as the backbone's is."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(QWEN_SPECIALS))
    return Tokenizer(backend)


@pytest.mark.parametrize(
    ("mode", "images"),
    [
        ("mono", f"Front camera: frame 0 {IMAGE}"),
        ("mono-4frames", f"Front camera: {FOUR_FRAMES}"),
        ("four", ALL_CAMERAS),
        ("mono-padded", ALL_CAMERAS),
    ],
)
def test_the_prompt_names_cameras_and_frames(mode: str, images: str, loaded: LoadedModel) -> None:
    each = camera_of_each_image(mode)
    expected = (
        "<|im_start|>system\nYou are a driving assistant that generates safe and accurate actions.<|im_end|>\n"
        f"<|im_start|>user\n{images}<|traj_history_start|>" + "<|traj_history|>" * 48 + "<|traj_history_end|>"
        "output the chain-of-thought reasoning of the driving process, then output the future trajectory.<|im_end|>\n"
        "<|im_start|>assistant\n<|cot_start|>"
    )
    assert prompt_text([1] * len(each), before_images=captions(each)) == expected
    grids = np.tile([1, 2, 2], (len(each), 1))
    ids, _ = loaded.processor.tokens(grids, HISTORY, None, each)
    words = loaded.processor.tokenizer
    bins = range(loaded.config.history_token_start_idx, loaded.config.history_token_start_idx + 40)
    fused = [words.id_of("<|traj_history|>") if index in bins else index for index in ids.tolist()]
    assert fused == words.encode(expected)


def test_images_and_their_cameras_come_in_the_same_order() -> None:
    shade = {name: 10 * (number + 1) for number, name in enumerate(CAMERA_ORDER)}
    frames = {
        name: np.stack([np.full((4, 4, 3), value + frame, np.uint8) for frame in range(4)])
        for name, value in shade.items()
    }
    observation = Observation(0, frames, HISTORY)
    for mode, black in (("mono", 0), ("mono-4frames", 0), ("four", 0), ("mono-padded", 12)):
        images, each = select_images(observation, mode), camera_of_each_image(mode)
        assert len(images) == len(each)
        shown = [(int(image[0, 0, 0]) // 10 * 10, camera) for image, camera in zip(images, each, strict=True)]
        assert sum(value == 0 for value, _ in shown) == black
        assert all(value in (0, shade[camera]) for value, camera in shown)


def test_cameras_left_out_are_an_error_and_not_another_prompt(loaded: LoadedModel) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    for cameras in (None, ["front", "front"], ["windscreen"]):
        with pytest.raises(MonoError, match="camera"):
            loaded.processor.encode([image], HISTORY, None, cameras)


def test_alpamayo_1_does_not_look_at_cameras() -> None:
    processor = load_model(TINY).processor
    grids = np.array([[1, 4, 4]])
    named, _ = processor.tokens(grids, HISTORY, "Keep lane.", ["front"])
    plain, _ = processor.tokens(grids, HISTORY, "Keep lane.")
    assert torch.equal(named, plain)


def test_renamed_words_keep_their_ids() -> None:
    first, newer = backbone_tokenizer().extend(50), backbone_tokenizer().extend(50, ALPAMAYO_1_5)
    assert len(first) == len(newer)
    for key in SPECIAL_KEYS:
        assert newer.id_of(special(in_1_5(key))) == first.id_of(special(key))
    assert newer.id_of("<|_padding_0|>") == first.id_of("<|image_pre_tkn|>")
    assert newer.id_of("<|_padding_3|>") == first.id_of("<|meta_action_end|>")
    assert newer.id_of("<|_padding_8|>") == first.id_of("<|vectorized_wm_pre_tkn|>")
    assert not any(newer.has(special(key)) for key in RENAMED_IN_1_5)
    size = len(first)
    assert len(first.extend(50, ALPAMAYO_1_5)) == size, "a converted checkpoint keeps its vocabulary"


def test_a_folder_survives_saving_without_constants(folder: Path, tmp_path: Path) -> None:
    first = load_model(folder)
    reference = dict(load_model(TINY).model.named_parameters())
    assert all(torch.equal(value, reference[name]) for name, value in first.model.named_parameters())
    buffers = dict(first.model.named_buffers())
    assert torch.equal(buffers["action_in_proj.sinus.0.freqs"], fourier_frequencies(20, 100.0))
    assert float(buffers["action_space.curvature_std"]) == pytest.approx(0.026148280660833106, rel=1e-6)
    save_model(first, tmp_path)
    written, official = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(written) == set(official) and all(torch.equal(written[name], official[name]) for name in official)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    again = load_model(tmp_path).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.model.state_dict().items())


def test_a_new_model_of_this_kind_says_so(tmp_path: Path) -> None:
    small = small_model()
    config = replace(small.config, model_type=ALPAMAYO_1_5, raw={})
    save_model(new_model(config, backbone_tokenizer(), images=small.processor.images, seed=1), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["model_type"] == "alpamayo1_5" and raw["architectures"] == ["Alpamayo1_5"]
    assert raw["diffusion_cfg"]["_target_"] == "alpamayo1_5.diffusion.flow_matching.FlowMatching"
    assert load_model(tmp_path).processor.tokenizer.has("<|_padding_0|>")
    with pytest.raises(MonoError, match="camera"):
        small_rows(load_model(tmp_path), 1)  # encodes without naming cameras


def test_it_drives_in_every_camera_mode(loaded: LoadedModel) -> None:
    generator = np.random.default_rng(0)
    frames = {name: generator.integers(0, 255, (4, 36, 64, 3), dtype=np.uint8) for name in CAMERA_ORDER}
    observation = Observation(5, frames, HISTORY, 5.0)
    for mode in ("mono", "mono-4frames", "mono-padded", "four"):
        plan = AlpamayoPolicy(loaded, cameras=mode, reasoning=False, flow_steps=1).plan(observation)
        assert np.isfinite(plan.poses).all()
