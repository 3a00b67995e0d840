"""Manners of driving: what a driver was asked to do on a road that would allow other things as well.

A manner is said in words, on a topic beside the recording: ``left``, ``slow``, ``right brisk``, ``stop``, ``out left``,
``usual``; numbers (``lateral_m=0.9``) and a cause (``because cones stand on the right``) may follow. Only the standard
library is needed: nodes and launch files read manners too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from collector.common.errors import MonoError

Line = Literal["usual", "middle", "left", "right", "racing"]
Pace = Literal["usual", "slow", "brisk"]
Act = Literal["drive", "stop", "out left", "out right"]
_SYNONYMS = {
    "centre": "middle",
    "center": "middle",
    "slowly": "slow",
    "briskly": "brisk",
    "fast": "brisk",
    "out-left": "out left",
    "out-right": "out right",
}
_CAUSE = re.compile(r"\bbecause\b")
# A cause is learnt by a model: nothing in it may look like a word of the model's own, or stand for a lost character.
_NO_WORDS = re.compile("[<>|\ufffd]")
_NUMBER = re.compile(r"[a-z_]+=[-+0-9.e]+")
MOST_LETTERS = 200  # of a manner's message


@dataclass(frozen=True)
class Manner:
    """A line, a pace and an act; ``cause`` is why, in words."""

    line: Line = "usual"
    pace: Pace = "usual"
    act: Act = "drive"
    cause: str = ""

    @property
    def words(self) -> str:
        """As :func:`read_manner` reads it, without the cause; "usual" where nothing is asked for."""
        words: list[str] = [word for word in (self.line, self.pace) if word != "usual"]
        words += [self.act] if self.act != "drive" else []
        return " ".join(words) or "usual"

    @property
    def is_usual(self) -> bool:
        """Whether nothing is asked for."""
        return self.words == "usual"

    @property
    def is_reference(self) -> bool:
        """Whether a drive like this shows where the road's middle is, and what is usual."""
        return self.line in ("usual", "middle") and self.pace == "usual" and self.act == "drive"


def read_manner(text: str) -> Manner:
    """The manner a message says.

    Raises:
        MonoError: it says none, or two that exclude one another.
    """
    known = "left, right, middle, racing, slow, brisk, stop, out left, out right or usual, then perhaps: because ..."
    do = 'say it in these words, e.g. "left slow"'
    if len(text) > MOST_LETTERS or not text.isprintable() or _NO_WORDS.search(text):
        unfit = f"a manner of {len(text)} characters, {text[:40]!a}: too many, or some that are no words"
        raise MonoError(unfit, known, do)
    said, _, cause = (part.strip() for part in _partition(text))
    words = said.lower().replace("out left", "out-left").replace("out right", "out-right").replace(",", " ").split()
    found: dict[str, str] = {}
    for word in words:
        name = _SYNONYMS.get(word, word)
        if _NUMBER.fullmatch(name):
            continue
        part = next((part for part, kinds in _KINDS.items() if name in kinds), "")
        if name == "usual":
            continue
        if not part or found.setdefault(part, name) != name:
            raise MonoError(f"the manner {text!r}: {word!r} {'beside another' if part else 'is none'}", known, do)
    if not words:
        raise MonoError(f"the manner {text!r} says nothing", known, do)
    if found.get("act", "").startswith("out") and "line" in found:
        raise MonoError(f"the manner {text!r}: pulling out has a line of its own", known, do)
    return Manner(
        cast(Line, found.get("line", "usual")),
        cast(Pace, found.get("pace", "usual")),
        cast(Act, found.get("act", "drive")),
        cause.rstrip("."),
    )


_KINDS = {"line": get_args(Line)[1:], "pace": get_args(Pace)[1:], "act": get_args(Act)[1:]}


def _partition(text: str) -> tuple[str, str, str]:
    found = _CAUSE.search(text)
    return (text[: found.start()], found.group(), text[found.end() :]) if found else (text, "", "")
