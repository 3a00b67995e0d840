"""What a reasoning will probably say: a draft for nothing, from what was said before.

From one plan to the next a driver mostly thinks the same, or the same but for a phrase. The model verifies a draft
(:mod:`finetune.alpamayo.generation`), so a wrong one costs time and never a word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

# Distinct texts remembered; a lap of the demo says some 80.
_TEXTS = 512
# Words of context that decide what comes next; the longest one known wins.
_CONTEXT = 8

_Words = tuple[int, ...]
_Said = tuple[int, _Words, _Words]  # stamp of the frame it was written for, the words, those it had to begin with
_NOTHING: _Said = (0, (), ())


class ReasoningDraft:
    """Remembers reasonings as ids, and continues a beginning as the newest one with the longest like context did."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing was said yet."""
        self._last: list[_Words] = []
        self._texts: OrderedDict[_Words, None] = OrderedDict()
        # A context of words (the text's beginning where it is shorter) to the newest text with it and the place after.
        self._after: dict[tuple[bool, _Words], tuple[_Words, int]] = {}

    def first(self, rows: int) -> list[list[int]]:
        """The reasoning expected of each row: what was said last there, else what was said last at all."""
        newest = next(reversed(self._texts), ())
        return [list(self._last[row] if row < len(self._last) else newest) for row in range(rows)]

    def after(self, written: Sequence[int]) -> Sequence[int]:
        """The words expected after those written."""
        for size in range(min(_CONTEXT, len(written)), 0, -1):
            key = (size == len(written), tuple(written[-size:]))
            if (found := self._after.get(key)) is not None:
                text, place = found
                return text[place:]
        return ()

    def learn(self, reasonings: Sequence[Sequence[int]]) -> None:
        """Remember what each row said, to its last word."""
        self._last = [tuple(reasoning) for reasoning in reasonings]
        for text in self._last:
            self._texts[text] = None
            self._texts.move_to_end(text)
            self._index(text)
        if len(self._texts) > _TEXTS:
            while len(self._texts) > _TEXTS // 2:
                self._texts.popitem(last=False)
            self._after.clear()
            for text in self._texts:
                self._index(text)

    def _index(self, text: _Words) -> None:
        for place in range(1, len(text)):
            for size in range(1, min(_CONTEXT, place) + 1):
                self._after[size == place, text[place - size : place]] = text, place


class ReasoningPace:
    """Whether a reasoning that was written is said once more.

    Args:
        hz: reasonings written anew per second; 0 is with every plan.
    """

    def __init__(self, hz: float) -> None:
        self._every_ns = 1e9 / hz if hz > 0.0 else 0.0
        self.forget()

    def forget(self) -> None:
        """Nothing was said yet."""
        self._said: list[_Said] = []

    def kept(self, stamps_ns: Sequence[int], beginnings: Sequence[Sequence[int]]) -> list[list[int]]:
        """Per row, by the stamp of its frame, the words that are said once more; none where new ones are due.

        They are where a text has to begin otherwise than the one before had to.
        """
        kept: list[list[int]] = []
        for row, (stamp_ns, beginning) in enumerate(zip(stamps_ns, beginnings, strict=True)):
            written_ns, words, began = self._said[row] if row < len(self._said) else _NOTHING
            stays = began == tuple(beginning) and 0 <= stamp_ns - written_ns < self._every_ns
            kept.append(list(words) if stays else [])
        return kept

    def said(
        self, stamps_ns: Sequence[int], reasonings: Sequence[Sequence[int]], beginnings: Sequence[Sequence[int]]
    ) -> list[float]:
        """Note what each row said, and what it had to begin with; seconds since it was written."""
        kept = self.kept(stamps_ns, beginnings)
        self._said = [
            self._said[row] if words else (stamp_ns, tuple(reasoning), tuple(beginning))
            for row, (words, stamp_ns, reasoning, beginning) in enumerate(
                zip(kept, stamps_ns, reasonings, beginnings, strict=True)
            )
        ]
        return [(stamp_ns - said[0]) * 1e-9 for stamp_ns, said in zip(stamps_ns, self._said, strict=True)]


def drafts_and_forced(
    draft: ReasoningDraft | None, pace: ReasoningPace, stamps_ns: Sequence[int], beginnings: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Per row the words that are read along with the prompt, and those that are written whatever is seen.

    The latter are what is said once more, else the beginning that a text must have. Without a draft nothing but what is
    said once more is read along.
    """
    kept = pace.kept(stamps_ns, beginnings)
    drafts = draft.first(len(kept)) if draft else [[] for _ in kept]
    forced = []
    for row, (words, beginning) in enumerate(zip(kept, map(list, beginnings), strict=True)):
        if draft and drafts[row][: len(beginning)] != beginning:
            drafts[row] = [*beginning, *draft.after(beginning)]
        drafts[row] = words or drafts[row]
        forced.append(words or beginning)
    return drafts, forced
