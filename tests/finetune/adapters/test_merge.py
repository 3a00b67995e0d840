"""Base plus adapter as one checkpoint: the base's own tensors, the adapted model's answers, nothing overwritten."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from collector.common.errors import MonoError  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora, fixed_answer, load_adapter, save_adapter  # noqa: E402
from finetune.adapters.merge import MERGE_FACTS, MergeConfig, merge, shards  # noqa: E402
from finetune.checkpoint import load_model  # noqa: E402
from finetune.model_files.weight_files import stored_tensors, write_weights  # noqa: E402
from tests.helpers.other_process import held_elsewhere  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402
from tests.helpers.small_model import stand_for_training  # noqa: E402

CONSTANTS = 7


def make_base(folder: Path, kind: str, dtype: Any = None) -> Path:
    """A base as NVIDIA lays it out: R1 with its seven buffers, or 1.5 without and with its own class names."""
    shutil.copytree(TINY, folder)
    tensors = load_file(folder / "model.safetensors")
    if kind == "1.5":
        text = (folder / "config.json").read_text().replace("alpamayo_r1", "alpamayo1_5")
        (folder / "config.json").write_text(text.replace("AlpamayoR1", "Alpamayo1_5"))
        tensors = {
            name: value
            for name, value in tensors.items()
            if not (name.startswith("action_space.") or name.endswith(".freqs"))
        }
    if dtype is not None:
        tensors = {name: value.to(dtype) for name, value in tensors.items()}
        raw = json.loads((folder / "config.json").read_text())
        raw["dtype"] = raw["model_dtype"] = str(dtype).replace("torch.", "")
        (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors")
    return folder


def make_adapter(folder: Path, base: Path, scale: float = 0.05, cameras: str = "mono") -> Path:
    """An adapter as finetune saves it, of random numbers instead of training."""
    loaded = load_model(base, dtype=torch.float32)
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    stand_for_training(loaded.model, scale)
    save_adapter(adapted, folder, base, cameras)
    return folder


@pytest.mark.parametrize("kind", ["R1", "1.5"])
def test_merged_has_the_official_tensors_and_answers_like_base_and_adapter(kind: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", kind)
    (base / "LICENSE").write_text("terms")
    adapter = make_adapter(tmp_path / "adapter", base)
    record = merge(MergeConfig(base, adapter, tmp_path / "merged"))
    official, written = stored_tensors(base), stored_tensors(tmp_path / "merged")
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in official.items()}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in written.items()} == layout
    assert len(layout) == 156 - (CONSTANTS if kind == "1.5" else 0)
    for name in ("config.json", "vlm_config.json", "tokenizer.json", "LICENSE"):
        assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes(), name
    assert record["weight_change"]["language model"] > 0 and record["weight_change"]["action expert"] > 0
    assert json.loads((tmp_path / "merged" / MERGE_FACTS).read_text()) == record

    alone = load_model(base)
    before = fixed_answer(alone.model)
    with_adapter = fixed_answer(load_adapter(alone.model, adapter, base=base))
    merged = fixed_answer(load_model(tmp_path / "merged").model)
    assert float((with_adapter - before).abs().max()) > 1e-2
    assert float((merged - with_adapter).abs().max()) < 1e-5
    untouched = "vlm.model.visual.blocks.0.attn.qkv.weight"
    assert np.array_equal(official[untouched].read(), written[untouched].read())


def test_the_arithmetic_is_peft_s(tmp_path: Path) -> None:
    import peft

    base = make_base(tmp_path / "base", "R1")
    adapter = make_adapter(tmp_path / "adapter", base)
    theirs = peft.PeftModel.from_pretrained(load_model(base).model, str(adapter)).merge_and_unload().state_dict()
    merge(MergeConfig(base, adapter, tmp_path / "merged"))
    ours = load_file(tmp_path / "merged" / "model.safetensors")
    assert set(ours) == set(theirs)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6


def test_shards_are_what_transformers_reads(tmp_path: Path) -> None:
    """The library's own loader, index and all, on a class with the official attribute names."""
    from transformers import PretrainedConfig, PreTrainedModel

    from finetune.alpamayo.model import AlpamayoR1
    from finetune.model_files.configuration_files import read_config

    class OfficialConfig(PretrainedConfig):
        model_type = "alpamayo_r1"

    class Official(PreTrainedModel):
        config_class = OfficialConfig
        base_model_prefix = "vlm"
        _supports_sdpa = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name, module in AlpamayoR1(read_config(TINY)).named_children():
                setattr(self, name, module)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            pass

    base = make_base(tmp_path / "base", "R1")
    adapter = make_adapter(tmp_path / "adapter", base)
    merge(MergeConfig(base, adapter, tmp_path / "whole"))
    merge(MergeConfig(base, adapter, tmp_path / "cut", shard_gib=0.4 / 1024))
    files = sorted(path.name for path in (tmp_path / "cut").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in stored_tensors(base).values())
    model, info = Official.from_pretrained(tmp_path / "cut", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], whole[name]) for name in parameters)
    ours = load_model(tmp_path / "cut").model.state_dict()
    assert set(ours) == set(whole) and all(torch.equal(ours[name], whole[name]) for name in whole)


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "R1", torch.bfloat16)
    adapter = make_adapter(tmp_path / "adapter", base)
    for dtype in ("base", "float32"):
        merge(MergeConfig(base, adapter, tmp_path / f"as-{dtype}", dtype=dtype))  # type: ignore[arg-type]
    rounded, exact = (load_file(tmp_path / f"as-{dtype}" / "model.safetensors") for dtype in ("base", "float32"))
    assert {value.dtype for value in rounded.values()} == {torch.bfloat16}
    assert {value.dtype for value in exact.values()} == {torch.float32}
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in rounded)
    name = "expert.layers.0.mlp.up_proj.weight"
    assert not torch.equal(exact[name], exact[name].bfloat16().float()), "the update must not be lost in bfloat16"
    assert json.loads((tmp_path / "as-float32" / "config.json").read_text())["dtype"] == "float32"
    assert load_model(tmp_path / "as-float32").config.dtype == "float32"


def test_nothing_is_overwritten_and_nothing_half_done_is_left(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "R1")
    adapter = make_adapter(tmp_path / "adapter", base)
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    with pytest.raises(MonoError, match="not empty"):
        merge(MergeConfig(base, adapter, used))
    assert [path.name for path in used.iterdir()] == ["mine.txt"]
    with pytest.raises(MonoError, match="not empty"):
        merge(MergeConfig(base, adapter, base))
    zero = make_adapter(tmp_path / "zero", base, scale=0.0)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(MonoError, match="changes nothing"):
        merge(MergeConfig(base, zero, tmp_path / "new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "empty").mkdir()
    merge(MergeConfig(base, adapter, tmp_path / "empty"))
    load_model(tmp_path / "empty")


def test_tensors_larger_than_a_shard_have_one_to_themselves() -> None:
    assert shards({"a": 3, "b": 3, "c": 20, "d": 1, "e": 9}, 10) == [["a", "b"], ["c"], ["d", "e"]]


def test_the_writer_refuses_what_it_did_not_announce(tmp_path: Path) -> None:
    path, eight = tmp_path / "w.safetensors", np.zeros(8, np.uint8)
    write_weights(path, [("a", "F32", (2,))], [eight])
    assert load_file(path)["a"].tolist() == [0.0, 0.0]
    for contents in ([eight[:4]], []):
        with pytest.raises(ValueError, match=r"argument|bytes"):
            write_weights(path, [("a", "F32", (2,))], contents)


def test_a_model_is_merged_into_the_folder_that_a_link_names(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "r1")
    adapter = make_adapter(tmp_path / "adapter", base)
    (tmp_path / "disk").mkdir()
    for name, target in (("empty", tmp_path / "disk" / "empty"), ("absent", tmp_path / "disk" / "absent")):
        if name == "empty":
            target.mkdir()
        (tmp_path / name).symlink_to(target)
        merge(MergeConfig(base, adapter, tmp_path / name))
        assert (tmp_path / name).is_symlink() and (target / MERGE_FACTS).is_file()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()}
        (tmp_path / "plain").touch()
        assert set(modes.values()) == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"empty", "absent"}
    with held_elsewhere(tmp_path / "other"), pytest.raises(MonoError, match="is being written by process"):
        merge(MergeConfig(base, adapter, tmp_path / "other"))
