"""LoRA reaches both halves, changes them, survives saving, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from collector.errors import MonoError  # noqa: E402
from finetune.adapters import (  # noqa: E402
    LoraSettings,
    add_lora,
    load_adapter,
    part_of,
    save_adapter,
    trainable_counts,
)
from tests.small_model import small_model, small_rows  # noqa: E402


def _losses(loaded, rows):
    from finetune.batches import collate
    from finetune.training import JointLoss, LoopSettings, draws

    settings = LoopSettings(noise_draws=1)
    noise, times = draws(len(rows), settings, 0, torch.device("cpu"))
    with torch.no_grad():
        return JointLoss(loaded.model)(collate(rows, loaded.processor.pad_id), noise, times)


def test_both_halves_have_trainable_parameters_and_the_rest_is_frozen() -> None:
    loaded = small_model()
    add_lora(loaded.model, LoraSettings(rank=4, alpha=8))
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
        add_lora(small_model().model, LoraSettings(language_model=False, action_expert=False))


def test_a_trained_adapter_reloads_to_the_same_losses(tmp_path: Path) -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    base = _losses(loaded, rows)
    adapted = add_lora(loaded.model, LoraSettings(rank=4, alpha=8))
    fresh = _losses(loaded, rows)
    assert torch.allclose(torch.stack(base), torch.stack(fresh), atol=1e-6), "LoRA must begin as the identity"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    changed = _losses(loaded, rows)
    assert not torch.allclose(torch.stack(base), torch.stack(changed), atol=1e-3)
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")
    assert json.loads((tmp_path / "adapter" / "alpamayo_mono.json").read_text()) == {
        "base": "small", "cameras": "mono", "rank": 4, "alpha": 8,
    }

    again = small_model()
    again = type(again)(load_adapter(again.model, tmp_path / "adapter"), again.processor, again.config, None)
    assert not [name for name, _ in again.model.named_parameters() if "lora_" in name], "weights must be merged"
    assert torch.allclose(torch.stack(_losses(again, rows)), torch.stack(changed), atol=1e-5)


def test_an_untrained_adapter_is_refused(tmp_path: Path) -> None:
    loaded = small_model()
    save_adapter(add_lora(loaded.model, LoraSettings(rank=4)), tmp_path / "adapter", Path("small"), "mono")
    with pytest.raises(MonoError, match="changes nothing"):
        load_adapter(small_model().model, tmp_path / "adapter")


def test_an_adapter_of_another_size_is_refused(tmp_path: Path) -> None:
    loaded = small_model()
    adapted = add_lora(loaded.model, LoraSettings(rank=4))
    save_adapter(adapted, tmp_path / "adapter", Path("small"), "mono")
    with pytest.raises(MonoError, match="does not fit"):
        load_adapter(small_model(hidden=48).model, tmp_path / "adapter")


def test_a_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="no adapter"):
        load_adapter(small_model().model, tmp_path)
