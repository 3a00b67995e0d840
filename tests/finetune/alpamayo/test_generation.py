"""A draft changes how often the model is run, and not one word of what it says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from finetune.alpamayo.cache import PrefixCache
from finetune.alpamayo.draft import _TEXTS, ReasoningDraft
from finetune.alpamayo.generation import WORDS_PER_PASS, Generation, generate
from finetune.checkpoint import LoadedModel
from finetune.processing.processor import Encoded, pad_right
from finetune.training.batches import unpack_pixels
from tests.helpers.small_model import prompt_batch, small_model, small_rows

ROOM = 24
ROWS = 3


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return small_model()


def prompts(loaded: LoadedModel) -> list[Encoded]:
    """Prompts that end in ``<|cot_start|>``, of different length by what stands before their images."""
    found = []
    for index, row in enumerate(small_rows(loaded, ROWS)):
        ids = row.input_ids[: int((row.input_ids == loaded.processor.cot_start_id).nonzero()[0]) + 1]
        ids = torch.cat([ids[:1].repeat(index), ids])
        found.append(Encoded(ids, torch.zeros(len(ids), dtype=torch.bool), unpack_pixels(row.pixels), row.grid_thw))
    return found


def prefix_of(loaded: LoadedModel, drafts: Sequence[Sequence[int]], which: Sequence[int]) -> PrefixCache:
    given = [prompts(loaded)[index] for index in which]
    batch = prompt_batch(given, loaded.processor.pad_id)
    rows = [torch.cat([one.input_ids, torch.tensor(draft).long()]) for one, draft in zip(given, drafts, strict=True)]
    seen = pad_right([torch.ones_like(row) for row in rows], 0)
    vision = loaded.model.encode_images(batch.pixel_values, batch.grid_thw)
    return loaded.model.run_prefix(pad_right(rows, loaded.processor.pad_id), seen, vision, batch.grid_thw)


@torch.no_grad()
def written(
    loaded: LoadedModel,
    drafts: Sequence[Sequence[int]] = ((),) * ROWS,
    which: Sequence[int] = range(ROWS),
    **how: object,
) -> Generation:
    prefix = prefix_of(loaded, drafts, which)
    end = loaded.processor.cot_end_id
    return generate(loaded.model, prefix, cot_end_id=end, max_new_tokens=ROOM, drafts=drafts, **how)  # type: ignore[arg-type]


def columns(answer: Generation, row: int) -> Tensor:
    """Every key and value that the expert would see of a row."""
    seen = answer.prefix.filled[row]
    return torch.stack([part[row][:, seen] for pair in answer.prefix.columns for part in pair])


def drive(loaded: LoadedModel, answer: Generation, which: Sequence[int]) -> Tensor:
    noise = torch.randn(ROWS, 64, 2, generator=torch.Generator().manual_seed(1))
    return loaded.model.sample_actions(answer.prefix, noise[list(which)], 2)


def assert_same(loaded: LoadedModel, answer: Generation, plain: Generation, which: Sequence[int] = range(ROWS)) -> None:
    assert answer.tokens == [plain.tokens[index] for index in which]
    for row, index in enumerate(which):
        assert torch.equal(
            answer.prefix.input_ids[row][answer.prefix.filled[row]][-len(answer.tokens[row]) :],
            torch.tensor(answer.tokens[row]),
        )
        torch.testing.assert_close(columns(answer, row), columns(plain, index), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(answer.prefix.next_position, plain.prefix.next_position[list(which)])
    torch.testing.assert_close(
        drive(loaded, answer, which), drive(loaded, plain, range(ROWS))[list(which)], atol=1e-3, rtol=1e-3
    )


@pytest.fixture(scope="module")
def plain(loaded: LoadedModel) -> Generation:
    answer = written(loaded)
    assert {len(words) for words in answer.tokens} == {ROOM}
    assert len({tuple(words) for words in answer.tokens}) > 1
    assert answer.passes == ROOM
    return answer


def test_right_drafts_need_no_pass(loaded: LoadedModel, plain: Generation) -> None:
    answer = written(loaded, plain.tokens)
    assert answer.passes == 0
    assert_same(loaded, answer, plain)


@pytest.mark.parametrize("which", [(0,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("right", [0, 1, 7, ROOM - 2, ROOM - 1])
def test_drafts_that_go_wrong_are_left_there(
    loaded: LoadedModel, plain: Generation, right: int, which: tuple[int, ...]
) -> None:
    """Each row goes wrong at its own place; one has no draft and one is far too long."""
    drafts = []
    for row in which:
        words = plain.tokens[row]
        at = min(right + row, ROOM - 1)
        drafts.append([*words[:at], words[at] ^ 1, *words[at + 1 :], *words[:row]])
    if len(which) > 1:
        drafts[1] = []
    answer = written(loaded, drafts, which)
    assert 0 < answer.passes <= ROOM
    assert_same(loaded, answer, plain, which)


@pytest.mark.parametrize("which", [(1,), (0, 1, 2)])
def test_expected_words_are_read_along(loaded: LoadedModel, plain: Generation, which: tuple[int, ...]) -> None:
    def told(said: Sequence[int]) -> list[int]:
        return next(words[len(said) :] for words in plain.tokens if words[: len(said)] == list(said))

    answer = written(loaded, [[]] * len(which), which, expect=told)
    assert answer.passes <= -(-ROOM // WORDS_PER_PASS) + 2
    assert_same(loaded, answer, plain, which)


@pytest.mark.parametrize("lie", [[], [0], [5, 6, 7], list(range(40))])
def test_lies_cost_nothing_but_time(loaded: LoadedModel, plain: Generation, lie: list[int]) -> None:
    answer = written(loaded, [lie] * ROWS, expect=lambda _: lie)
    assert answer.passes <= ROOM
    assert_same(loaded, answer, plain)


def test_an_end_in_the_draft_is_no_end(loaded: LoadedModel, plain: Generation) -> None:
    end = loaded.model.settings.token_ids.future_start
    answer = written(loaded, [[loaded.processor.cot_end_id, end], [end], [*plain.tokens[2][:4], end]])
    assert_same(loaded, answer, plain)


def test_forced_words_are_written_whatever_was_expected(loaded: LoadedModel) -> None:
    end = loaded.model.settings.token_ids.future_start
    said = [[11, 12, 13, loaded.processor.cot_end_id, end], [21, loaded.processor.cot_end_id, end], [end]]
    plain = written(loaded, forced=said)
    assert plain.tokens == said
    assert plain.passes == 1
    other = written(loaded, [[11, 12, 99], [], said[2]], forced=said, expect=lambda _: [1, 2, 3])
    assert_same(loaded, other, plain)


def test_a_draft_is_what_was_said_last() -> None:
    draft = ReasoningDraft()
    assert draft.first(2) == [[], []]
    assert list(draft.after([1])) == []
    draft.learn([[1, 2, 3, 9], [1, 5, 9]])
    assert draft.first(3) == [[1, 2, 3, 9], [1, 5, 9], [1, 5, 9]]
    # The whole beginning decides, then the longest context, then the newest text.
    assert list(draft.after([1, 2])) == [3, 9]
    assert list(draft.after([1])) == [5, 9]
    assert list(draft.after([7, 7, 2])) == [3, 9]
    assert list(draft.after([7])) == []
    draft.learn([[1, 2, 4, 9]])
    assert list(draft.after([1, 2])) == [4, 9]
    assert draft.first(2) == [[1, 2, 4, 9]] * 2


def test_what_is_remembered_is_bounded() -> None:
    draft = ReasoningDraft()
    for number in range(3 * _TEXTS):
        draft.learn([[number, number + 1, 0]])
    assert list(draft.after([10])) == []
    assert list(draft.after([3 * _TEXTS - 1])) == [3 * _TEXTS, 0]
    assert len(draft._texts) <= _TEXTS
    assert len(draft._after) <= 8 * 3 * _TEXTS
