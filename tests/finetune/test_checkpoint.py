"""Model folders: official layout out and in, foreign or damaged ones refused, the released sizes, new models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from benchmarks.tiny_base.new_model import fit_vocabulary, new_model, official_config  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.alpamayo.action_projection import fourier_frequencies  # noqa: E402
from finetune.alpamayo.configuration import RELEASED_BACKBONES, AlpamayoConfig  # noqa: E402
from finetune.alpamayo.model import AlpamayoR1  # noqa: E402
from finetune.checkpoint import load_base, load_model, save_model  # noqa: E402
from finetune.model_files.configuration_files import official_vlm, parse_config, read_config  # noqa: E402
from finetune.processing.images import ImageSettings  # noqa: E402
from finetune.processing.tokenizer import Tokenizer  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(raw))


def edit_weights(folder: Path, drop: tuple[str, ...] = (), **extra: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**{k: v for k, v in tensors.items() if k not in drop}, **extra}, folder / "model.safetensors")


def test_saved_folder_has_the_official_tensors_and_gives_the_same_model(tmp_path: Path) -> None:
    official = load_file(TINY / "model.safetensors")
    first = load_model(TINY)
    save_model(first, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert set(written) == set(official)
    assert all(torch.equal(written[name], official[name]) for name in official)
    second = load_model(tmp_path)
    assert second.config.vlm == first.config.vlm
    official_json = json.loads((TINY / "config.json").read_text())
    assert json.loads((tmp_path / "config.json").read_text()) == official_json
    for name, buffer in first.model.named_buffers():  # rotary frequencies are rebuilt, not saved
        assert torch.equal(buffer, second.model.get_buffer(name)) and not buffer.is_meta


def test_half_precision_keeps_constants_and_rotary_frequencies(tmp_path: Path) -> None:
    model = load_model(TINY, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers()} == {torch.float32}


def test_absent_constants_are_made_again(folder: Path) -> None:
    constants = tuple(
        name
        for name in load_file(folder / "model.safetensors")
        if name.startswith("action_space.") or name.endswith("freqs")
    )
    assert len(constants) == 7
    edit_weights(folder, drop=constants)
    model = load_model(folder).model
    assert torch.equal(model.action_in_proj.sinus[0].freqs, fourier_frequencies(20, 100.0))
    assert float(model.action_space.accel_std) == pytest.approx(0.6810426736454882)
    edit_config(folder, dtype="bfloat16")
    rounded = load_model(folder).model.action_space
    assert [
        float(rounded.accel_mean),
        float(rounded.accel_std),
        float(rounded.curvature_mean),
        float(rounded.curvature_std),
    ] == [0.029052734375, 0.6796875, 0.0002689361572265625, 0.026123046875]


def test_shards_load_as_one(folder: Path) -> None:
    whole = load_model(folder).model.state_dict()
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / file)
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, chosen in parts.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    loaded = load_model(folder).model.state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)
    (folder / "b.safetensors").unlink()
    with pytest.raises(MonoError, match=r"b\.safetensors"):
        load_model(folder)


def test_missing_surplus_and_misshapen_tensors_are_all_named_at_once(folder: Path) -> None:
    edit_weights(
        folder,
        drop=("expert.norm.weight", "action_out_proj.bias"),
        **{"vlm.spare": torch.zeros(1), "action_out_proj.weight": torch.zeros(3, 32)},
    )
    with pytest.raises(MonoError) as caught:
        load_model(folder)
    for word in (
        "missing",
        "expert.norm.weight",
        "action_out_proj.bias",
        "surplus",
        "vlm.spare",
        "action_out_proj.weight (3, 32) instead of (2, 32)",
    ):
        assert word in str(caught.value)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: -(1 << 16)])
    with pytest.raises(MonoError, match="damaged"):
        load_model(folder)
    path.unlink()
    with pytest.raises(MonoError, match=r"no file .*model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"action_space_cfg": {"_target_": "os.system"}}, "os.system"),
        ({"action_out_proj_cfg": {"_target_": "torch.hub.load"}}, "torch.hub.load"),
        ({"diffusion_cfg": {"_target_": "alpamayo_r1.diffusion.flow_matching.FlowMatching2"}}, "FlowMatching2"),
        ({"diffusion_cfg": {"int_method": "heun"}}, "heun"),
        ({"diffusion_cfg": {"stepps": 3}}, "stepps"),
        ({"model_type": "alpamayo_reasoning_vla"}, "alpamayo_reasoning_vla"),
        ({"traj_token_start_idx": 5}, "traj_token_start_idx"),
        ({"vocab_size": None}, "vocab_size"),
        ({"expert_cfg": {"head_dim": 8}}, "head_dim"),
    ],
)
def test_foreign_configurations_are_refused_by_name(folder: Path, changes: dict[str, Any], found: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(MonoError, match=found):
        load_model(folder)


def test_both_generations_of_class_names_are_known(folder: Path) -> None:
    text = (folder / "config.json").read_text().replace("alpamayo_r1", "alpamayo1_5")
    (folder / "config.json").write_text(text)
    newer = read_config(folder)
    assert newer.model_type == "alpamayo1_5"
    assert replace(newer, raw={}, model_type="alpamayo_r1") == replace(read_config(TINY), raw={})


def test_unknown_backbone_needs_its_sizes(folder: Path) -> None:
    (folder / "vlm_config.json").unlink()
    with pytest.raises(MonoError, match="tiny-local"):
        read_config(folder)
    raw = json.loads((folder / "config.json").read_text())
    embedded = parse_config({**raw, "vlm_config": json.loads((TINY / "vlm_config.json").read_text())})
    assert embedded.vlm == read_config(TINY).vlm


@pytest.mark.parametrize("sizes", ["tiny", "released"])
def test_vlm_config_is_what_transformers_reads(folder: Path, sizes: str) -> None:
    from transformers import Qwen3VLConfig

    config = read_config(TINY) if sizes == "tiny" else AlpamayoConfig()
    written = official_vlm(config)
    read: Any = Qwen3VLConfig(**json.loads(json.dumps(written)))
    text, vision = config.vlm["text_config"], config.vlm["vision_config"]
    assert {key: read.text_config.rope_parameters[key] for key in ("rope_theta", "mrope_section", "rope_type")} == {
        "rope_theta": text["rope_theta"],
        "mrope_section": text["mrope_section"],
        "rope_type": "default",
    }
    assert read.text_config.rope_parameters["mrope_interleaved"] is True and not read.tie_word_embeddings
    plain = {key: value for key, value in text.items() if key not in ("rope_theta", "mrope_section")}
    assert {key: getattr(read.text_config, key) for key in plain} == plain
    assert {key: getattr(read.vision_config, key) for key in vision} == vision
    # Both spellings load to the same settings: transformers', and the flat one that version 0.1 wrote.
    raw = {**json.loads((folder / "config.json").read_text()), "vocab_size": text["vocab_size"]}
    if sizes == "tiny":
        assert parse_config(raw, written).vlm == parse_config(raw, config.vlm).vlm == config.vlm


def test_the_shipped_base_is_spelled_for_transformers() -> None:
    from transformers import Qwen3VLConfig

    read: Any = Qwen3VLConfig.from_pretrained(TINY_BASE / "vlm_config.json")
    assert json.loads((TINY_BASE / "vlm_config.json").read_text()) == official_vlm(read_config(TINY_BASE))
    assert read.text_config.rope_parameters["mrope_section"] == [6, 5, 5]


def test_released_sizes_give_the_released_parameters() -> None:
    raw = {**official_config(AlpamayoConfig()), "vlm_name_or_path": RELEASED_BACKBONES[0]}
    config = parse_config(raw)
    with torch.device("meta"):
        model = AlpamayoR1(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_078_526_194
    names = list(model.state_dict())
    assert sum(not name.startswith("vlm.") for name in names) == 416
    assert config.history_token_start_idx == 154669


def test_new_models_repeat_by_seed_and_survive_saving(tmp_path: Path) -> None:
    base = replace(read_config(TINY), raw={})
    tokenizer = Tokenizer.from_folder(TINY)
    config = fit_vocabulary(base, tokenizer)
    assert config == base  # the reference's own vocabulary is laid out in the same order
    images = ImageSettings(resize_width_px=64, resize_height_px=32, crop_top=0.5)
    first, same, other = (new_model(config, tokenizer, images=images, seed=seed) for seed in (1, 1, 2))
    weight = "vlm.model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.model.get_parameter(weight), same.model.get_parameter(weight))
    assert not torch.equal(first.model.get_parameter(weight), other.model.get_parameter(weight))
    save_model(first, tmp_path, dtype=torch.bfloat16)
    back = load_model(tmp_path)
    assert back.processor.images == images
    assert set(load_file(tmp_path / "model.safetensors")) == set(load_file(TINY / "model.safetensors"))
    assert {p.dtype for p in back.model.parameters()} == {torch.bfloat16}
    assert torch.equal(back.model.action_in_proj.sinus[0].freqs, first.model.action_in_proj.sinus[0].freqs)


def test_a_model_with_adapters_is_not_saved_as_a_plain_one(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    loaded = load_model(TINY)
    lora = peft.LoraConfig(r=2, target_modules=r".*layers\.\d+\.self_attn\.q_proj")
    wrapped = peft.get_peft_model(loaded.model, lora)
    adapted = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert any("expert" in name for name in adapted) and any("language_model" in name for name in adapted)
    with pytest.raises(MonoError, match="adapters"):
        save_model(loaded, tmp_path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:7", "meta", ""])
def test_a_device_that_is_not_there_is_no_damaged_model(device: str) -> None:
    for load in (load_model, load_base):
        with pytest.raises(MonoError, match=r"device.*Expected: one of cpu"):
            load(TINY, device=device)
