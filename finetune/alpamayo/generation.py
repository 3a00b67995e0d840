"""Writing the reasoning: batched decoding with trajectory words forbidden, each row to its own end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from collector.common.errors import MonoError
from finetune.alpamayo.cache import Columns, PrefixCache
from finetune.alpamayo.decoder import Decoder, additive_mask

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


@torch.inference_mode()
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
    decoder, store = Decoder(language), Columns(prefix.columns, max_new_tokens)
    rows = torch.arange(len(prefix), device=device)
    hidden = prefix.hidden[rows, prefix.filled.sum(-1) - 1]
    position, width = prefix.next_position, prefix.filled.shape[1]
    # What a row that is done writes on is seen by itself alone, and never read.
    mask = additive_mask(functional.pad(prefix.filled, (0, max_new_tokens), value=True), hidden.dtype)
    steps = position[:, None] + torch.arange(max_new_tokens, device=device)
    rotary = decoder.rotary(steps.expand(3, -1, -1), hidden)
    # Kept as plain numbers: a few dozen rows are counted faster by Python than by a tensor operation each.
    lists: list[list[int]] = [[] for _ in range(len(prefix))]
    written: list[Tensor] = []
    for step in range(max_new_tokens):
        if forced is not None and step < forced.shape[1]:
            token = forced[:, step].to(device)
        else:
            logits = model.text_logits(hidden)
            logits[:, bins] = -torch.inf
            token = logits.argmax(-1)
        chosen = token.tolist()
        if step >= max_new_tokens - 2:
            # Two places left: close the reasoning if it is open, then start the trajectory.
            closing = step == max_new_tokens - 2
            open_rows = [
                closing and word != end_id and cot_end_id not in row for word, row in zip(chosen, lists, strict=True)
            ]
            chosen = [cot_end_id if is_open else end_id for is_open in open_rows]
            token = torch.tensor(chosen, device=device)
        for row, word in zip(lists, chosen, strict=True):
            if row[-1:] != [end_id]:
                row.append(word)
        written.append(token)
        embeds = language.embed_tokens(token)[:, None]
        now = rotary[0][:, step : step + 1], rotary[1][:, step : step + 1]
        seen = None if mask is None else mask[..., : width + step + 1]
        hidden = decoder.run(embeds, now, store.open(1), mask=seen)[:, 0]
        store.keep(1)
        if all(row[-1] == end_id for row in lists):
            break
    lengths = torch.tensor([len(row) for row in lists], device=device)
    filled = torch.arange(len(written), device=device) < lengths[:, None]
    tokens = torch.stack(written, dim=1).masked_fill(~filled, 0)
    filled, position = torch.cat([prefix.filled, filled], dim=1), position + lengths
    ids = torch.cat([prefix.input_ids, tokens], dim=1)
    return Generation(lists, prefix.with_words(*store.tensors(), filled, position, ids))
