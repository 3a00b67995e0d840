"""Writing the reasoning: greedy, trajectory words forbidden, each row of a batch to its own end.

Reading many words costs a model little more than reading one. So words that are expected are read along and kept as
far as the model would have written them itself: what comes out is its own greedy choice, word by word, in fewer passes
(speculative decoding with greedy verification, Leviathan et al. 2023, arXiv:2211.17192).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from collector.common.errors import MonoError
from finetune.alpamayo.cache import Columns, PrefixCache
from finetune.alpamayo.decoder import Decoder, additive_mask

if TYPE_CHECKING:
    from finetune.alpamayo.configuration import AlpamayoConfig
    from finetune.alpamayo.model import AlpamayoR1

# Words read in one pass after the first: as many as cost a GPU no more than one.
WORDS_PER_PASS = 16

# The words expected after those that a row has written so far; none where nothing is expected.
Expectation = Callable[[Sequence[int]], Sequence[int]]


@dataclass(frozen=True)
class Generation:
    """Reasoning texts and what the expert needs to drive from them.

    Attributes:
        tokens: per row the generated ids, up to and including ``<|traj_future_start|>``.
        prefix: keys and values including the generated tokens.
        passes: how often the language model was run after the prefix.
    """

    tokens: list[list[int]]
    prefix: PrefixCache
    passes: int = 0


@dataclass(frozen=True)
class ReasoningRules:
    """What a reasoning may not be: unending, or without its last words.

    Attributes:
        room: words at most; a row out of room gets its last words written.
        cot_end_id, future_start_id: ids of ``<|cot_end|>`` and ``<|traj_future_start|>``, the last words.
    """

    room: int
    cot_end_id: int
    future_start_id: int

    def apply(self, written: Sequence[int], choice: int) -> int:
        """The word that follows those written, where the model would choose this one."""
        left = self.room - len(written)
        if left > 2:
            return choice
        is_open = left == 2 and choice != self.future_start_id and self.cot_end_id not in written
        return self.cot_end_id if is_open else self.future_start_id


@dataclass
class WrittenRow:
    """One row's reasoning as far as it is written.

    Attributes:
        rules: what it has to end like.
        forced: the words it has to consist of; empty leaves the choice to the model.
        words: written so far. All but perhaps the last have been read by the model.
        unread: the last word, where the model has not read it yet.
    """

    rules: ReasoningRules
    forced: Sequence[int] = ()
    words: list[int] = field(default_factory=list)
    unread: int | None = None

    def to_read(self, expect: Expectation | None) -> list[int]:
        """The words of the next pass: the unread one, and those expected after it; none for a row that is done."""
        if self.unread is None:
            return []
        if self.unread == self.rules.future_start_id:
            return [self.unread]
        coming = self.forced[len(self.words) :] or (expect(self.words) if expect else ())
        return [self.unread, *coming[: WORDS_PER_PASS - 1]]

    def has_read(self, words: Sequence[int], choices: Sequence[int]) -> int:
        """Go on after a pass over :meth:`to_read`, with the model's choice after each word; how many words stay."""
        if not words or words[0] == self.rules.future_start_id:
            self.unread = None
            return len(words)
        return 1 + self.take(words[1:], choices)

    def take(self, expected: Sequence[int], choices: Sequence[int]) -> int:
        """Go on with the model's choices: the first one, and those after each expected word.

        Returns:
            How many of the expected words were right.
        """
        self.unread = None
        for right, choice in enumerate(choices[: len(expected) + 1]):
            at = len(self.words)
            word = self.rules.apply(self.words, self.forced[at] if at < len(self.forced) else choice)
            self.words.append(word)
            if right == len(expected) or expected[right] != word:
                self.unread = word
                return right
            if word == self.rules.future_start_id:
                return right + 1
        raise ValueError("fewer choices than expected words")


@torch.inference_mode()
def generate(
    model: AlpamayoR1,
    prefix: PrefixCache,
    *,
    cot_end_id: int,
    max_new_tokens: int = 128,
    forced: Sequence[Sequence[int]] | None = None,
    drafts: Sequence[Sequence[int]] | None = None,
    expect: Expectation | None = None,
) -> Generation:
    """Continue every row of a prefix, greedily, until it says ``<|traj_future_start|>``.

    Args:
        model: the model the prefix came from.
        prefix: of rows that end in ``<|cot_start|>``, or after it in a draft, possibly of different lengths.
        cot_end_id: id of ``<|cot_end|>``; a row out of room gets it and the trajectory's start written.
        max_new_tokens: room per row, at least 2.
        forced: per row the words to write whatever the model would choose; a row without any chooses.
        drafts: per row the words behind ``<|cot_start|>`` in the prefix; None where it ends there.
        expect: what is read along in later passes; None writes word by word.

    Raises:
        MonoError: no room, or a prefix without hidden states.
    """
    if max_new_tokens < 2 or prefix.hidden is None:
        raise MonoError("no room to write a reasoning", "max_new_tokens >= 2 and a prefix from run_prefix")
    device, language = prefix.hidden.device, model.vlm.model.language_model
    rules = ReasoningRules(max_new_tokens, cot_end_id, model.settings.token_ids.future_start)
    rows = [WrittenRow(rules, words) for words in forced or [()] * len(prefix)]
    drafts = [()] * len(prefix) if drafts is None else drafts

    # What the prefix says after its own last word, and after each word of the draft.
    drafted = torch.tensor([len(draft) for draft in drafts], device=device)
    ends, starts = prefix.filled.sum(-1) - drafted, prefix.next_position - drafted
    places = ends[:, None] - 1 + torch.arange(max(map(len, drafts)) + 1, device=device)
    places = places.clamp(max=prefix.filled.shape[1] - 1)
    every = torch.arange(len(rows), device=device)[:, None]
    choices = choose(model, prefix.hidden[every, places])
    stay = [row.take(draft, chosen) for row, draft, chosen in zip(rows, drafts, choices, strict=True)]
    kept = ends + torch.tensor(stay, device=device)
    width = prefix.filled.shape[1] if len(rows) > 1 else int(kept)
    columns = [(keys[:, :, :width], values[:, :, :width]) for keys, values in prefix.columns]
    filled, ids = torch.arange(width, device=device) < kept[:, None], prefix.input_ids[:, :width]

    decoder, store, passes = Decoder(language), Columns(columns, max_new_tokens), 0
    steps = starts[:, None] + torch.arange(max_new_tokens + WORDS_PER_PASS, device=device)
    cos, sin = decoder.rotary(steps.expand(3, -1, -1), prefix.hidden)
    while any(row.unread is not None for row in rows):
        read = [row.to_read(expect) for row in rows]
        count = max(map(len, read))
        words = torch.tensor([[*line, *[0] * (count - len(line))] for line in read], device=device)
        at = torch.tensor([len(row.words) - 1 for row in rows], device=device)[:, None]
        at = at + torch.arange(count, device=device)
        # Columns of words that were not to be stay where they are in rows of a batch, unseen.
        seen = functional.pad(filled, (0, count), value=True)[:, None].expand(-1, count, -1)
        causal = torch.ones(seen.shape[1:], dtype=torch.bool, device=device).tril(filled.shape[1])
        mask = additive_mask(seen & causal, prefix.hidden.dtype)
        turns = cos[every, at], sin[every, at]
        hidden = decoder.run(language.embed_tokens(words), turns, store.open(count), mask=mask)
        passes += 1
        choices = choose(model, hidden)
        stay = [row.has_read(line, chosen) for row, line, chosen in zip(rows, read, choices, strict=True)]
        store.keep(max(stay))
        now = torch.arange(max(stay), device=device) < torch.tensor(stay, device=device)[:, None]
        filled, ids = torch.cat([filled, now], dim=1), torch.cat([ids, words[:, : max(stay)]], dim=1)
    position = starts + torch.tensor([len(row.words) for row in rows], device=device)
    return Generation([row.words for row in rows], prefix.with_words(*store.tensors(), filled, position, ids), passes)


def choose(model: AlpamayoR1, hidden: Tensor) -> list[list[int]]:
    """The model's next word after each of the hidden states (B, n, D); words of trajectories are forbidden."""
    chosen: list[list[int]] = likeliest(model.text_logits(hidden), model.settings).tolist()
    return chosen


def likeliest(logits: Tensor, settings: AlpamayoConfig) -> Tensor:
    """The likeliest word (...,) that is none of a trajectory's, of logits (..., V), which are written into."""
    start = settings.traj_token_start_idx
    logits[..., start : start + settings.traj_vocab_size] = -torch.inf
    return logits.argmax(-1)
