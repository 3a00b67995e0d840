"""LoRA reaches both halves, changes them, survives saving, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from collector.common.errors import MonoError  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.adapters.folder import AdapterFacts, check_belongs, checksum, write_checksum  # noqa: E402
from finetune.adapters.lora import (  # noqa: E402
    LoraSettings,
    add_lora,
    fixed_answer,
    go_on_from,
    load_adapter,
    part_of,
    save_adapter,
    trainable_counts,
)
from finetune.adapters.weights import PartChanges  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.checkpoint import LoadedModel, load_model, save_model  # noqa: E402
from finetune.model_files.location import base_fingerprint  # noqa: E402
from finetune.policy import Observation  # noqa: E402
from finetune.training.batches import EncodedSample  # noqa: E402
from tests.helpers.small_model import small_model, small_rows, stand_for_training  # noqa: E402


def _losses(loaded: LoadedModel, rows: Sequence[EncodedSample]) -> tuple[torch.Tensor, ...]:
    from finetune.training.batches import collate
    from finetune.training.loop import JointLoss, LoopSettings, draws

    settings = LoopSettings(noise_draws=1)
    noise, times = draws(len(rows), settings, 0, torch.device("cpu"))
    with torch.no_grad():
        return JointLoss(loaded.model)(collate(rows, loaded.processor.pad_id), noise, times)


def test_both_halves_have_trainable_parameters_and_the_rest_is_frozen() -> None:
    loaded = small_model()
    add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    counts = trainable_counts(loaded.model)
    assert counts["language model"][0] > 0
    assert counts["action expert"][0] > 0
    assert counts["action projections"][0] == counts["action projections"][1] > 0
    assert counts["vision tower"][0] == 0
    assert counts["embeddings and norms"][0] == 0


def test_expert_projections_are_not_mistaken_for_the_language_models() -> None:
    assert part_of("base_model.model.expert.layers.0.self_attn.q_proj.lora_A.default.weight") == "action expert"
    assert part_of("vlm.model.language_model.layers.1.mlp.up_proj.base_layer.weight") == "language model"
    assert part_of("vlm.model.visual.blocks.0.attn.qkv.lora_B.default.weight") == "vision tower"
    assert part_of("action_in_proj.modules_to_save.default.norm.weight") == "action projections"
    assert part_of("vlm.lm_head.weight") == "embeddings and norms"


def test_every_part_off_is_refused() -> None:
    with pytest.raises(MonoError, match="every part"):
        add_lora(small_model().model, LoraSettings(adapt_language=False, adapt_expert=False))


def test_a_trained_adapter_reloads_to_the_same_losses(tmp_path: Path) -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    base = _losses(loaded, rows)
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    fresh = _losses(loaded, rows)
    assert torch.allclose(torch.stack(base), torch.stack(fresh), atol=1e-6), "LoRA must begin as the identity"
    stand_for_training(loaded.model, 0.05)
    changed = _losses(loaded, rows)
    assert not torch.allclose(torch.stack(base), torch.stack(changed), atol=1e-3)
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")
    facts = json.loads((tmp_path / "adapter" / "alpamayo_mono.json").read_text())
    assert len(facts.pop("checksum")) == 64
    assert facts == {"base": "small", "cameras": "mono", "rank": 4, "alpha": 8}

    again = small_model()
    again = type(again)(load_adapter(again.model, tmp_path / "adapter"), again.processor, again.config, None)
    assert not [name for name, _ in again.model.named_parameters() if "lora_" in name], "weights must be merged"
    assert torch.allclose(torch.stack(_losses(again, rows)), torch.stack(changed), atol=1e-5)


def test_training_goes_on_from_an_adapter_where_it_was(tmp_path: Path) -> None:
    loaded, settings = small_model(), LoraSettings(lora_rank=4, lora_alpha=8)
    adapted = add_lora(loaded.model, settings)
    stand_for_training(loaded.model, 0.05)
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")
    again = small_model()
    settings.check_start(tmp_path / "adapter", cameras="mono")
    go_on_from(add_lora(again.model, settings), tmp_path / "adapter")
    assert torch.equal(fixed_answer(again.model), fixed_answer(loaded.model))
    assert not torch.equal(fixed_answer(again.model), fixed_answer(small_model().model))
    assert trainable_counts(again.model) == trainable_counts(loaded.model)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (LoraSettings(lora_rank=2, lora_alpha=8), "rank 4, alpha 8"),
        (LoraSettings(lora_rank=4, lora_alpha=16), "alpha 16"),
        (LoraSettings(lora_rank=4, lora_alpha=8, adapt_language=False), "not the same"),
        (LoraSettings(lora_rank=4, lora_alpha=8, train_projections=False), "not the same"),
    ],
)
def test_an_adapter_of_other_settings_is_no_beginning(tmp_path: Path, settings: LoraSettings, said: str) -> None:
    loaded = small_model()
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    stand_for_training(loaded.model, 0.05)
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")

    def begin() -> None:
        settings.check_start(tmp_path / "adapter")
        go_on_from(add_lora(small_model().model, settings), tmp_path / "adapter")

    with pytest.raises(MonoError, match=said):
        begin()


def test_no_training_begins_with_a_damaged_adapter_or_for_other_cameras(tmp_path: Path) -> None:
    loaded, settings, folder = small_model(), LoraSettings(lora_rank=4), tmp_path / "adapter"
    adapted = add_lora(loaded.model, settings)
    stand_for_training(loaded.model, 0.05)
    save_adapter(adapted, folder, Path("small"), "mono")
    with pytest.raises(MonoError, match="cameras"):
        settings.check_start(folder, cameras="four")
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MonoError, match="not as it was saved"):
        settings.check_start(folder)
    with pytest.raises(MonoError, match="no adapter"):
        settings.check_start(tmp_path)


def test_no_training_begins_with_an_adapter_of_another_scale(tmp_path: Path) -> None:
    loaded, settings, folder = small_model(), LoraSettings(lora_rank=4, lora_alpha=8), tmp_path / "adapter"
    adapted = add_lora(loaded.model, settings)
    stand_for_training(loaded.model, 0.05)
    save_adapter(adapted, folder, Path("small"), "mono")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    write_checksum(folder)
    with pytest.raises(MonoError, match=r"scale of 4[\s\S]*without rsLoRA"):
        settings.check_start(folder)


def test_an_untrained_adapter_is_refused(tmp_path: Path) -> None:
    loaded = small_model()
    save_adapter(add_lora(loaded.model, LoraSettings(lora_rank=4)), tmp_path / "adapter", Path("small"), "mono")
    with pytest.raises(MonoError, match="changes nothing"):
        load_adapter(small_model().model, tmp_path / "adapter")


def test_an_adapter_of_another_size_is_refused(tmp_path: Path) -> None:
    loaded = small_model()
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4))
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")
    with pytest.raises(MonoError, match="does not fit"):
        load_adapter(small_model(hidden=48).model, tmp_path / "adapter")


def test_a_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="no adapter"):
        load_adapter(small_model().model, tmp_path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in a folder, since an adapter's base is told by what lies there."""
    folder = tmp_path_factory.mktemp("bases") / "first"
    save_model(small_model(), folder)
    return folder


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of that base; random numbers stand for training."""
    loaded = load_model(base)
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    stand_for_training(loaded.model, 0.05)
    folder = tmp_path_factory.mktemp("adapters") / "trained"
    save_adapter(adapted, folder, base, "mono")
    return folder


def complaint(base: Path, adapter: Path, **asked: Any) -> str:
    with pytest.raises(MonoError) as caught:
        load_adapter(load_model(base).model, adapter, base=base, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_adapter_says_where_it_belongs(base: Path, trained: Path) -> None:
    facts = json.loads((trained / "alpamayo_mono.json").read_text())
    assert facts.pop("checksum") == checksum(trained)
    assert facts == {
        "base": "first",
        "cameras": "mono",
        "rank": 4,
        "alpha": 8,
        "base_fingerprint": base_fingerprint(base),
    }
    before = fixed_answer(load_model(base).model)
    after = fixed_answer(load_adapter(load_model(base).model, trained, base=base, cameras="mono"))
    assert float((after - before).abs().max()) > 1e-3


def test_another_base_is_refused_with_both_names_whatever_it_is_called(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    model = small_model()
    with torch.no_grad():
        model.model.action_out_proj.bias += 0.5
    other = tmp_path / "second"
    save_model(model, other)
    said = complaint(other, trained)
    assert "trained on first (" in said and "this model is second (" in said
    shutil.copytree(other, tmp_path / "first")  # the same name does not help
    assert "this model is first (" in complaint(tmp_path / "first", trained)
    renamed = Path(shutil.copytree(base, tmp_path / "renamed"))  # nor does another name hurt
    load_adapter(load_model(renamed).model, trained, base=renamed)


def test_an_older_adapter_without_fingerprint_goes_by_the_name(base: Path, trained: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(trained, tmp_path / "old"))
    (old / "alpamayo_mono.json").write_text('{"base": "first", "cameras": "mono"}')
    load_adapter(load_model(base).model, old, base=base)
    renamed = Path(shutil.copytree(base, tmp_path / "renamed"))
    said = complaint(renamed, old)
    assert "trained on first" in said and "this model is renamed" in said


def test_other_cameras_are_refused_with_both_names(base: Path, trained: Path) -> None:
    with pytest.raises(MonoError, match=r"'mono'.*'mono-padded'"):
        AlpamayoPolicy(base, adapter=trained, cameras="mono-padded")
    assert np.isfinite(AlpamayoPolicy(base, adapter=trained, cameras="mono").plan(_observation()).poses).all()


def _observation() -> Observation:
    history = np.zeros((16, 3))
    history[:, 0] = np.linspace(-7.5, 0.0, 16)
    return Observation(3, {"front": np.zeros((4, 64, 96, 3), np.uint8)}, history, 5.0)


def test_rank_and_alpha_must_agree_everywhere(base: Path, trained: Path, tmp_path: Path) -> None:
    for key, name in (("r", "rank"), ("lora_alpha", "alpha")):
        wrong = Path(shutil.copytree(trained, tmp_path / name))
        config = json.loads((wrong / "adapter_config.json").read_text())
        (wrong / "adapter_config.json").write_text(json.dumps({**config, key: 16}))
        said = complaint(base, wrong)
        assert f"{name} {config[key]}" in said and f"{name} 16" in said
    (tmp_path / "rank" / "alpamayo_mono.json").unlink()  # then the tensors themselves tell
    assert "says rank 16" in complaint(base, tmp_path / "rank")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncated", "bytes are missing"),
        ("half", "lacks lora_B of vlm"),
        ("layer", "lacks lora_A of expert"),
        ("projection", "lacks action_out_proj.bias"),
        ("surplus", "has no place for: base_model.model.vlm.spare"),
        ("nan", "holds NaN or infinity for expert"),
        ("json", "not JSON"),
        ("dora", "use_dora"),
    ],
)
def test_damage_is_one_sentence(damage: str, said: str, base: Path, trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(trained, tmp_path / "damaged"))
    path = folder / "adapter_model.safetensors"
    tensors, start = load_file(path), "base_model.model."
    language, expert = (
        f"{start}{part}.layers.0.self_attn.q_proj.lora_" for part in ("vlm.model.language_model", "expert")
    )
    if damage == "half":
        del tensors[f"{language}B.weight"]
    elif damage == "layer":
        del tensors[f"{expert}A.weight"], tensors[f"{expert}B.weight"]
    elif damage == "projection":
        del tensors[f"{start}action_out_proj.bias"]
    elif damage == "surplus":
        tensors[f"{start}vlm.spare"] = torch.ones(2)
    elif damage == "nan":
        tensors[f"{expert}B.weight"][0, 0] = torch.nan
    save_file(tensors, path)
    if damage == "nan":  # as a training that went astray would have saved it
        write_checksum(folder)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "json":
        (folder / "adapter_config.json").write_text("{")
    elif damage == "dora":
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    assert said in complaint(base, folder)


def test_an_update_that_rounding_swallows_is_no_change() -> None:
    for dtype, kept in ((torch.float32, True), (torch.bfloat16, False)):
        changes, weight = PartChanges(Path("faint")), torch.ones(4, 4, dtype=dtype)
        changes.add("action expert", weight, (weight.float() + 1e-4).to(dtype))
        if kept:
            assert changes.proven()["action expert"] == pytest.approx(4e-4, rel=1e-3)
        else:
            with pytest.raises(MonoError, match="changes nothing in: action expert"):
                changes.proven()


def test_weights_that_change_without_an_answer_that_does_are_no_proof(base: Path, tmp_path: Path) -> None:
    """The last layer's queries reach nothing but the vocabulary, and here the vocabulary is silent."""
    loaded = load_model(base)
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, adapt_expert=False, train_projections=False))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name and "layers.1.self_attn.q_proj" in name:
                parameter.add_(0.1)
    save_adapter(adapted, tmp_path / "silent", Path("first"), "mono")
    mute = load_model(base)
    with torch.no_grad():
        mute.model.vlm.lm_head.weight.zero_()
    with pytest.raises(MonoError, match="exactly as without it"):
        load_adapter(mute.model, tmp_path / "silent")


@pytest.mark.parametrize(
    ("base", "advice"), [("tiny_base", "of the version that trained it"), ("other", "id of other")]
)
def test_the_advice_for_another_base_is_not_the_one_already_followed(base: str, advice: str) -> None:
    facts = AdapterFacts(Path("adapter"), base, "deadbeef", "mono", 4, 8.0, 2.0, (), ())
    with pytest.raises(MonoError, match=advice):
        check_belongs(facts, TINY_BASE)
