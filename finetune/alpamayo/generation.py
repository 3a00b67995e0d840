"""Writing the reasoning: batched decoding with trajectory words forbidden, each row to its own end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from collector.common.errors import MonoError
from finetune.alpamayo.cache import DecodeKVCache, PrefixCache

if TYPE_CHECKING:
    from finetune.alpamayo.model import AlpamayoR1


@dataclass(frozen=True)
class Generation:
    """Reasoning texts and what the expert needs to drive from them.

    Attributes:
        tokens: per row the generated ids, up to and including ``<|traj_future_start|>``.
        prefix: keys and values including the generated tokens.
    """

    tokens: list[list[int]]
    prefix: PrefixCache


@torch.no_grad()
def generate(
    model: AlpamayoR1, prefix: PrefixCache, *, cot_end_id: int, max_new_tokens: int = 128, forced: Tensor | None = None
) -> Generation:
    """Continue every row of a prefix, greedily, until it says ``<|traj_future_start|>``.

    Args:
        model: the model the prefix came from.
        prefix: of rows that end in ``<|cot_start|>``, possibly of different lengths.
        cot_end_id: id of ``<|cot_end|>``; a row out of room gets it and the trajectory's start written.
        max_new_tokens: room per row, at least 2.
        forced: (B, n) ids to write instead of the model's choice, for tests and for forcing a reasoning.

    Raises:
        MonoError: no room, or a prefix without hidden states.
    """
    if max_new_tokens < 2 or prefix.hidden is None:
        raise MonoError("no room to write a reasoning", "max_new_tokens >= 2 and a prefix from run_prefix")
    settings, device = model.settings, prefix.hidden.device
    end_id = settings.token_ids.future_start
    language = model.vlm.model.language_model
    bins = slice(settings.traj_token_start_idx, settings.traj_token_start_idx + settings.traj_vocab_size)
    store = DecodeKVCache(prefix, max_new_tokens)
    rows = torch.arange(len(prefix), device=device)
    hidden = prefix.hidden[rows, prefix.filled.sum(-1) - 1]
    filled, position = prefix.filled, prefix.next_position
    done = torch.zeros(len(prefix), dtype=torch.bool, device=device)
    reasoning_over = done.clone()
    written: list[Tensor] = []
    for step in range(max_new_tokens):
        if forced is not None and step < forced.shape[1]:
            token = forced[:, step].to(device)
        else:
            logits = model.text_logits(hidden)
            logits[:, bins] = -torch.inf
            token = logits.argmax(-1)
        if step >= max_new_tokens - 2:
            late = ~done & (token != end_id)
            # Two places left: close the reasoning if it is open, then start the trajectory.
            closing = step == max_new_tokens - 2
            ending = torch.full_like(token, cot_end_id if closing else end_id)
            if closing:
                ending = torch.where(reasoning_over, torch.full_like(token, end_id), ending)
            token = torch.where(late, ending, token)
        reasoning_over = reasoning_over | (token == cot_end_id)
        alive = ~done
        filled = torch.cat([filled, alive[:, None]], dim=1)
        written.append(torch.where(alive, token, torch.full_like(token, -1)))
        store.advance()
        embeds = language.embed_tokens(token)[:, None]
        mask = torch.zeros(filled.shape, dtype=embeds.dtype, device=device)
        mask = mask.masked_fill(~filled, torch.finfo(embeds.dtype).min)
        output = language(
            inputs_embeds=embeds,
            position_ids=position[None, :, None].expand(3, -1, -1),
            use_cache=True,
            attention_mask=mask[:, None, None],
            past_key_values=store,
        )
        hidden = output.last_hidden_state[:, 0]
        position = position + alive
        done = done | (token == end_id)
        if bool(done.all()):
            break
    tokens = torch.stack(written, dim=1)
    keys, values = store.tensors()
    grown = replace(
        prefix,
        keys=keys,
        values=values,
        filled=filled,
        visible=filled,
        next_position=position,
        expert_position=position,
        hidden=None,
        input_ids=torch.cat([prefix.input_ids, tokens.clamp(min=0)], dim=1),
    )
    lists = [[index for index in row if index >= 0] for row in tokens.tolist()]
    return Generation(lists, grown)
