"""The plain decoder against transformers' modules, from the same weights."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel  # noqa: E402

from finetune.adapters.lora import add_lora  # noqa: E402
from finetune.adapters.settings import LoraSettings  # noqa: E402
from finetune.alpamayo import decoder as decoder_module  # noqa: E402
from finetune.alpamayo.cache import Columns, PrefixCache  # noqa: E402
from finetune.alpamayo.decoder import Decoder, RMSNorm, additive_mask, pack_linears  # noqa: E402
from finetune.alpamayo.flow_matching import integrate  # noqa: E402
from finetune.alpamayo.generation import generate  # noqa: E402
from finetune.alpamayo.layers import forward_layers  # noqa: E402
from finetune.alpamayo.model import text_config  # noqa: E402
from finetune.checkpoint import LoadedModel  # noqa: E402
from finetune.processing.processor import Encoded  # noqa: E402
from finetune.training.batches import unpack_pixels  # noqa: E402
from tests.helpers.small_model import prompt_batch, small_model, small_rows  # noqa: E402

# Random weights of a thousandth leave the layers almost the identity; these make every term count.
SPREAD = 0.3
# Rounding alone makes up to 6e-5 with weights this wild; a norm wrong by a hundredth is found.
WRONG = 1e-4


def gap(a: Any, b: Any) -> float:
    """Largest difference as a share of the largest value."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-3))


@pytest.fixture(params=["apart", "packed", "adapted"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    """A model with weights as they are loaded, as a driver lays them, or with LoRA beside them."""
    loaded = small_model()
    generator = torch.Generator().manual_seed(1)
    if request.param == "adapted":
        add_lora(loaded.model, LoraSettings(lora_rank=2))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "visual" not in name and "action" not in name:
                parameter.copy_(SPREAD * torch.randn(parameter.shape, generator=generator) + ("norm" in name))
    if request.param == "packed":
        for part in (loaded.model.vlm.model.language_model, loaded.model.expert):
            pack_linears(part)
    loaded.model.eval()
    return loaded


def prefix_of(loaded: LoadedModel, rows: int = 3) -> PrefixCache:
    """Rows of different length, padded on the right."""
    prompts = [
        Encoded(row.input_ids, row.label_mask, unpack_pixels(row.pixels), row.grid_thw)
        for row in small_rows(loaded, rows)
    ]
    batch = prompt_batch(prompts, loaded.processor.pad_id)
    assert not bool(batch.attention_mask.all())
    vision = loaded.model.encode_images(batch.pixel_values, batch.grid_thw)
    return loaded.model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)


def test_reading_equals_transformers(loaded: LoadedModel) -> None:
    theirs = prefix_of(loaded)
    with torch.no_grad():
        ours = prefix_of(loaded)
    assert theirs.hidden is not None and ours.hidden is not None
    assert float(theirs.hidden.detach().abs().mean()) > 0.1
    places = theirs.filled
    assert gap(ours.hidden[places], theirs.hidden[places]) < WRONG
    for (keys, values), (their_keys, their_values) in zip(ours.columns, theirs.columns, strict=True):
        assert gap(keys.transpose(1, 2)[places], their_keys.transpose(1, 2)[places]) < WRONG
        assert gap(values.transpose(1, 2)[places], their_values.transpose(1, 2)[places]) < WRONG


@pytest.mark.parametrize("draws", [1, 3])
def test_driving_equals_transformers(loaded: LoadedModel, draws: int) -> None:
    model = loaded.model
    noise = torch.randn(3 * draws, 64, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        prefix = prefix_of(loaded)
        ours = model.sample_actions(prefix, noise, 2)
        theirs = integrate(lambda x, t: model.velocity(prefix, x, t), noise, 2)
    assert gap(theirs, noise) > 0.1
    assert gap(ours, theirs) < WRONG


def test_writing_equals_transformers(loaded: LoadedModel) -> None:
    """Words written one by one leave what reading them at once leaves, in rows of different length."""
    model = loaded.model
    with torch.no_grad():
        prefix = prefix_of(loaded)
        answer = generate(model, prefix, cot_end_id=loaded.processor.cot_end_id, max_new_tokens=9)
    language = model.vlm.model.language_model
    for row, words in enumerate(answer.tokens):
        length = int(prefix.filled[row].sum())
        past = [(keys[row : row + 1, :, :length], values[row : row + 1, :, :length]) for keys, values in prefix.columns]
        embeds = language.embed_tokens(torch.tensor([words]))
        positions = (prefix.next_position[row] + torch.arange(len(words))).expand(3, 1, -1)
        seen = torch.ones(len(words), length + len(words), dtype=torch.bool).tril(length)
        mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)[None, None]
        hidden, columns = forward_layers(language, embeds, positions, mask=mask, past=past)
        logits = model.text_logits(hidden[0, : len(words) - 3])
        start = model.settings.traj_token_start_idx
        logits[:, start : start + model.settings.traj_vocab_size] = -torch.inf
        assert logits.argmax(-1).tolist() == words[1 : len(words) - 2]
        filled = answer.prefix.filled[row]
        for (keys, _), (new_keys, _) in zip(answer.prefix.columns, columns, strict=True):
            assert gap(keys[row][:, filled][:, length:], new_keys[0]) < WRONG


@pytest.mark.parametrize("causal", [True, False])
def test_heads_that_share_keys_equal_transformers(causal: bool) -> None:
    """Six heads on two for keys; columns that a row must not see lie among its past."""
    sizes = {"vocab_size": 8, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
    torch.manual_seed(4)
    module = Qwen3VLTextModel(text_config({**sizes, **heads, "rope_theta": 1e4, "mrope_section": [2, 1, 1]})).eval()
    for parameter in module.parameters():
        parameter.data.normal_()
    past = [(torch.randn(2, 2, 0 if causal else 5, 8), torch.randn(2, 2, 0 if causal else 5, 8)) for _ in range(2)]
    hidden, positions = torch.randn(2, 7, 24), torch.randint(0, 30, (3, 2, 7))
    visible = torch.ones(2, past[0][0].shape[2] + 7, dtype=torch.bool)
    visible[1, 2:4] = causal
    theirs_mask = torch.zeros(2, 1, 7, visible.shape[1]).masked_fill(~visible[:, None, None], -torch.inf)
    with torch.no_grad():
        theirs, _ = forward_layers(module, hidden, positions, mask=None if causal else theirs_mask, past=past)
        ours = Decoder(module)
        mask = additive_mask(visible[:, None], hidden.dtype)
        assert (mask is None) == causal
        store, rotary = Columns(past, 7), ours.rotary(positions, hidden)
        assert gap(ours.run(hidden, rotary, store.open(7), mask=mask, causal=causal), theirs) < WRONG


def test_packed_weights_stay_the_models_own() -> None:
    loaded = small_model()
    state = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    language = loaded.model.vlm.model.language_model
    pack_linears(language)
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
    linear = language.layers[0].self_attn.k_proj
    group = decoder_module.linear_groups(language.layers[0])[0]
    with torch.no_grad():
        linear.weight.fill_(7.0)
    joined = decoder_module.joined_weight(group)
    assert joined is not None and float((joined == 7.0).float().mean()) == len(linear.weight) / len(joined)
    linear.weight = nn.Parameter(linear.weight.detach().clone())
    assert decoder_module.joined_weight(group) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_equals_transformers(dtype: Any) -> None:
    language = small_model().model.vlm.model.language_model
    theirs = language.norm.to(dtype)
    with torch.no_grad():
        theirs.weight.copy_(torch.randn(theirs.weight.shape))
        ours = RMSNorm(theirs.weight, theirs.variance_epsilon)
        # Of a length where the term under the root counts, and of none at all.
        for size in (1.0, 1e-3, 0.0):
            x = (size * torch.randn(5, 7, len(theirs.weight))).to(dtype)
            assert gap(ours(x), theirs(x)) <= 1e-6


def test_bfloat16_drives_as_transformers_does() -> None:
    loaded = small_model()
    for part in (loaded.model.vlm, loaded.model.expert):
        part.to(torch.bfloat16)
    with torch.no_grad():
        prefix = prefix_of(loaded)
        assert prefix.keys[0].dtype == torch.bfloat16
        noise = torch.randn(3, 64, 2, generator=torch.Generator().manual_seed(2))
        ours = loaded.model.sample_actions(prefix, noise, 2)
        theirs = integrate(lambda x, t: loaded.model.velocity(prefix, x, t), noise, 2)
    assert gap(ours, theirs) < 0.02 * float(theirs.abs().max())
