"""Ways to save memory and time change no number: recomputed layers, fused LoRA, words on the host, four bits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from collector.common.errors import MonoError  # noqa: E402
from finetune.adapters.fused import fuse_lora  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora  # noqa: E402
from finetune.alpamayo.layers import compiled_layer  # noqa: E402
from finetune.alpamayo.placement import HostEmbedding, place_on_card  # noqa: E402
from finetune.checkpoint import LoadedModel  # noqa: E402
from finetune.training.batches import cache_vision, collate  # noqa: E402
from finetune.training.loop import JointLoss, LoopSettings, draws, train  # noqa: E402
from finetune.training.memory import Recomputation  # noqa: E402
from tests.helpers.small_model import small_model, small_rows  # noqa: E402


def adapted(dropout: float = 0.0, vision: bool = False) -> LoadedModel:
    """A small model whose adapters already do something."""
    torch.manual_seed(1)
    loaded = small_model()
    add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8, lora_dropout=dropout, adapt_vision=vision))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    return loaded


def losses_and_gradients(loaded: LoadedModel) -> tuple[list[float], dict[str, Any]]:
    batch = collate(small_rows(loaded, 3), loaded.processor.pad_id)
    noise, times = draws(3, LoopSettings(noise_draws=2), 0, torch.device("cpu"))
    loaded.model.zero_grad()
    text, flow = JointLoss(loaded.model)(batch, noise, times)
    (text + flow).backward()
    found = {
        name: parameter.grad.clone()
        for name, parameter in loaded.model.named_parameters()
        if parameter.grad is not None
    }
    return [text.item(), flow.item()], found


def assert_same(first: tuple[list[float], dict[str, Any]], second: tuple[list[float], dict[str, Any]]) -> None:
    assert first[0] == pytest.approx(second[0], rel=1e-6)
    assert first[1].keys() == second[1].keys() and any("expert" in name for name in first[1])
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("layers", [1, 2])
def test_recomputed_layers_give_the_same_losses_and_gradients(layers: int) -> None:
    loaded = adapted()
    remembered = losses_and_gradients(loaded)
    loaded.model.checkpointed_layers = layers
    assert_same(losses_and_gradients(loaded), remembered)


def test_recomputing_keeps_the_cache_that_the_expert_reads() -> None:
    """Transformers' own checkpointing drops it: then the flow loss could not reach the language model at all."""
    loaded = adapted()
    loaded.model.checkpointed_layers = 2
    batch = collate(small_rows(loaded, 2), loaded.processor.pad_id)
    noise, times = draws(2, LoopSettings(), 0, torch.device("cpu"))
    JointLoss(loaded.model)(batch, noise, times)[1].backward()
    gradients = [
        parameter.grad.abs().max()
        for name, parameter in loaded.model.named_parameters()
        if ".language_model.layers.0." in name and "lora_B" in name and "k_proj" in name
    ]
    assert gradients and min(gradients) > 0.0


def test_fewer_bytes_are_remembered() -> None:
    loaded = adapted()
    batch = collate(small_rows(loaded, 3), loaded.processor.pad_id)
    noise, times = draws(3, LoopSettings(), 0, torch.device("cpu"))

    def remembered_bytes() -> int:
        seen: dict[int, int] = {}

        def note(tensor: Any) -> Any:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            JointLoss(loaded.model)(batch, noise, times)
        return sum(seen.values())

    plain = remembered_bytes()
    loaded.model.checkpointed_layers = 2
    assert remembered_bytes() < 0.6 * plain


def test_fused_lora_is_pefts_lora() -> None:
    loaded = adapted()
    peft_way = losses_and_gradients(loaded)
    count = fuse_lora(loaded.model)
    assert count == 2 * 2 * 7  # two halves of two layers with seven linear layers each
    assert_same(losses_and_gradients(loaded), peft_way)
    loaded.model.checkpointed_layers = 2
    assert_same(losses_and_gradients(loaded), peft_way)


def test_a_number_of_recomputed_layers_is_kept_and_none_is_measured_on_a_cpu() -> None:
    model = adapted().model
    for wanted, expected in ((-1, 0), (0, 0), (2, 2)):
        recomputation = Recomputation(model, wanted, torch.device("cpu"), 100)
        for _ in range(5):
            recomputation.begin_step()
            recomputation.remembered(100)
            recomputation.end_step()
            assert model.checkpointed_layers == expected


def test_a_full_memory_costs_a_pass_and_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full in the middle of a step, when the first of its two passes has left its gradients."""
    settings = LoopSettings(steps=4, batch_size=4, rows_per_pass=2, checkpoint_every=4, validate_every=4)

    def curve(name: str) -> list[str]:
        loaded = adapted(dropout=0.1)
        (tmp_path / name).mkdir()
        train(loaded.model, small_rows(loaded, 6), [], settings, loaded.processor.pad_id, tmp_path / name)
        lines = (tmp_path / name / "training.jsonl").read_text().splitlines()
        return [line.partition(', "samples_per_s"')[0] for line in lines]

    undisturbed, whole, calls = curve("undisturbed"), JointLoss.rows, [0]

    def rows(self: JointLoss, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] in (4, 8):
            raise torch.cuda.OutOfMemoryError("planted")
        return whole(self, *arguments)

    monkeypatch.setattr(JointLoss, "rows", rows)
    assert curve("disturbed") == undisturbed and calls[0] == 8 + 2 + 2
    said = capsys.readouterr().out
    assert "1 of 2 layers" in said and "2 of 2 layers" in said
    calls[0] = -100
    monkeypatch.setattr(JointLoss, "rows", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("planted")))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    with pytest.raises(MonoError, match="memory of a card is full"):
        curve("full")


@pytest.mark.slow
def test_compiled_layers_give_the_same_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the C++ that would be written for a CPU, on which nothing is compiled, and which takes a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    loaded = adapted()
    plain = losses_and_gradients(loaded)
    fuse_lora(loaded.model)
    loaded.model.checkpointed_layers, loaded.model.body = 2, compiled_layer()
    torch._dynamo.utils.counters.clear()
    assert_same(losses_and_gradients(loaded), plain)
    stats = torch._dynamo.utils.counters
    # First language layer, the other, and the expert's two: three programs, none broken into pieces.
    assert stats["stats"]["unique_graphs"] == 3 and not stats["graph_break"]


@pytest.mark.slow
def test_few_programs_fit_texts_of_any_number_and_length_behind_any_number_of_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    loaded = adapted()
    fuse_lora(loaded.model)
    plain = list(cache_vision(loaded.model, small_rows(loaded, 4), torch.device("cpu")))
    picture = {"vision": plain[0].vision, "grid_thw": plain[0].grid_thw}
    loaded.model.body = compiled_layer(many_shapes=True)
    loss, made = JointLoss(loaded.model, contrast_margin=1.0), []
    for pairs in (("aa", "b"), ("aaa", ""), ("a", "bbb"), ("a", "bb"), ("aaaa", ""), ("aa", "bb")):
        rows = [replace(row, pair=pair, **picture) for row, pair in zip(plain, "".join(pairs), strict=False)]
        noise, times = draws(len(rows), LoopSettings(), 0, torch.device("cpu"))
        torch._dynamo.utils.counters.clear()
        losses = loss.rows(collate(rows, loaded.processor.pad_id, multiple=32, packed=True), noise, times)
        losses.table().sum().backward()
        made.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert made[0] >= 3 and made[3:] == [0, 0, 0], made


def test_fused_layers_with_bias_are_pefts_layers() -> None:
    loaded = adapted(vision=True)
    peft_way = losses_and_gradients(loaded)
    assert any("visual" in name and "lora_A" in name for name in peft_way[1])
    layers = [module for module in loaded.model.modules() if hasattr(module, "lora_A")]
    assert fuse_lora(loaded.model) == len(layers) > 28 and any(layer.base_layer.bias is not None for layer in layers)
    assert_same(losses_and_gradients(loaded), peft_way)


def test_layers_with_dropout_are_left_to_peft() -> None:
    assert fuse_lora(adapted(dropout=0.1).model) == 0


def test_words_on_the_host_give_the_same_losses() -> None:
    loaded = adapted()
    before = losses_and_gradients(loaded)
    place_on_card(loaded.model, torch.device("cpu"))
    embedding = loaded.model.vlm.model.language_model.embed_tokens
    assert isinstance(embedding, HostEmbedding) and "rows" not in dict(embedding.named_parameters())
    assert_same(losses_and_gradients(loaded), before)


def test_four_bit_layers_train_adapters_of_both_halves() -> None:
    pytest.importorskip("bitsandbytes")
    from finetune.alpamayo.placement import quantise_language_model

    def build(pack: bool) -> LoadedModel:
        torch.manual_seed(1)
        loaded = small_model(hidden=64)
        if pack:
            assert quantise_language_model(loaded.model, "cpu") == 14
        add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
        return loaded

    plain, packed = build(False), build(True)
    layer = packed.model.vlm.model.language_model.layers[0].mlp.down_proj
    stored = layer.base_layer.weight
    assert stored.dtype == torch.uint8 and stored.numel() == 64 * 48 // 2
    exact, rounded = losses_and_gradients(plain), losses_and_gradients(packed)
    assert exact[0] == pytest.approx(rounded[0], rel=0.2) and exact[0] != rounded[0]
    assert exact[1].keys() == rounded[1].keys()
    fuse_lora(packed.model)
    assert_same(losses_and_gradients(packed), rounded)
