"""Instructions of an operator to a model that drives: free words in, the beginning of a reasoning out.

"keep left", "a bit slower please", "もっとゆっくり左端を走って": read only where every word of it is known, since half
an instruction is another one ("slow down after the second bend"). What is understood is said in the words of the texts
that a model learns from (:mod:`collector.reasoning.manner_writing`), and the model goes on from there: it may take back
what the road does not allow, as it learned to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

from collector.common.errors import MonoError
from collector.reasoning.claims import Language
from collector.reasoning.consistency import language_of
from collector.reasoning.manner_writing import Way, gap_after, write_demand
from collector.reasoning.manners import MOST_LETTERS, Pace

AskedLine = Literal["usual", "left", "middle", "right"]
UNDERSTOOD = (
    "keep left, keep right, keep to the middle, slower, faster, a place and a pace together, turn left, turn right, "
    "straight on, or usual; in English or Japanese"
)


@dataclass(frozen=True)
class Instruction:
    """A place on the road, a pace, or a way to go; nothing of these where nothing is asked for."""

    line: AskedLine
    pace: Pace
    way: Way | None
    language: Language

    @property
    def is_usual(self) -> bool:
        """Whether nothing is asked for."""
        return self.line == "usual" and self.pace == "usual" and self.way is None

    @property
    def beginning(self) -> str:
        """What the reasoning is to begin with, empty where nothing is asked for; read again it is the same."""
        line = None if self.line == "usual" else self.line
        return "" if self.is_usual else write_demand(line, self.pace, self.way, self.language)

    @property
    def lead_in(self) -> str:
        """The beginning and what parts it from the model's own words."""
        return self.beginning if self.is_usual or self.way else self.beginning + gap_after(self.language)


@lru_cache(maxsize=256)
def read_instruction(text: str) -> Instruction:
    """What an operator asks for; of an empty text, nothing.

    Raises:
        MonoError: a word that is not known, two that exclude one another, or one that is no matter of words.
    """
    if len(text) > MOST_LETTERS or not all(letter.isprintable() or letter.isspace() for letter in text):
        found = f"an instruction of {len(text)} characters, {text[:40]!a}: too many, or some that are no words"
        raise MonoError(found, UNDERSTOOD, "say it in a few words")
    language = language_of(text)
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("-", " ")
    plain = re.sub(r"\s+", "" if language == "ja" else " ", plain.replace("_", " ")).strip()
    said: dict[str, str] = {}
    for kind, word, part in _meanings(plain, text, language):
        if said.setdefault(kind, word) != word or (len(said) > 1 and said.keys() & {"way", "usual"}):
            raise MonoError(f"the instruction {text!r}: {part!r} beside another", UNDERSTOOD, "say one thing at a time")
    if plain and not said:
        raise MonoError(f"the instruction {text!r} says nothing to do", UNDERSTOOD, "say one of these")
    way = said.get("way")
    return Instruction(
        cast(AskedLine, said.get("line", "usual")),
        cast(Pace, said.get("pace", "usual")),
        cast(Way, way) if way else None,
        language,
    )


def _meanings(plain: str, text: str, language: Language) -> Sequence[tuple[str, str, str]]:
    """The parts of a text that mean something: what kind of thing is asked, which one, and in which words."""
    found, place = [], 0
    while place < len(plain):
        fits = ((meaning, pattern.match(plain, place)) for meaning, pattern in _LEXICON[language])
        meaning, match = next(((meaning, match) for meaning, match in fits if match), ("", None))
        if match is None:
            word = re.split(r"[\s、。,.]", plain[place:], maxsplit=1)[0][:40]
            raise MonoError(f"the instruction {text!r}: {word!r} is not understood", UNDERSTOOD, "say one of these")
        place, part = match.end(), match.group()
        if meaning in _REFUSED:
            expected, do = _REFUSED[meaning]
            raise MonoError(f"the instruction {text!r}: {part!r}", expected, do)
        if meaning:
            kind, _, word = meaning.partition(" ")
            side = _SIDES.get(match.groupdict().get("side") or "", "")
            found.append((kind, word.format(side=side), part))
    return found


_SIDES = {"left": "left", "right": "right", "左": "left", "右": "right"}
# What is recognised and no instruction: what would do instead.
_REFUSED: Mapping[str, tuple[str, str]] = {
    "stop": (
        "words for how to drive; a stop is no matter of persuasion",
        'ros2 param set /alpamayo_drive hold "stop" brakes for certain, and "" lets the kart go',
    ),
    "either": ("a place on the road, or a turn", "say keep left or turn left (right likewise)"),
    "bend": ("something to do now", "leave the bend out and say it when it comes"),
}


def _en(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{words})\b")


_THE = "(?:(?:the|our|your|its|this) )?"
_ROAD = "(?:road|lane|track|course|street)"
_WHICH = "(?P<side>left|right)"
_EDGE = "(?:side|edge|border|kerb|curb|margin)"
_SPEED = f"{_THE}(?:speed|pace)"
_GOING = "走(?:って|る|り|れ)|進(?:んで|む|み|め)|通(?:って|る|り|れ)"
_JA_SIDE = "(?P<side>左|右)"
_JA_STAY = (
    f"(?:{_GOING}|寄(?:って(?:走って|走る)?|せて|る|り|れ)|保って|キープ(?:して)?|移(?:って|動して)|戻(?:って|る|れ))"
)
_JA_SPEED = "(?:速度|スピード|ペース)を?"
_JA_DRIVEN = f"と?(?:{_GOING}|曲が(?:って|る|り|れ)|して)?"
# The first pattern that fits where the text has been read to decides; what means nothing has no name.
_LEXICON: Mapping[Language, Sequence[tuple[str, re.Pattern[str]]]] = {
    "en": (
        ("", _en("right (?:now|away)|(?:since|as) (?:we were )?asked(?: to)?|as asked")),
        ("bend", _en(f"{_WHICH}(?: hand)? (?:bend|curve|corner|turn|hairpin|hander)s?")),
        ("way turn {side}", _en(f"(?:turn|steer|bear)(?: to)?(?: the)? {_WHICH}")),
        ("way straight on", _en("(?:(?:go|drive|keep|carry|continue) )?straight(?: on| ahead)?")),
        ("either", _en(rf"(?:go|drive|head|veer)(?: to the)? {_WHICH}\b(?!(?: hand)?(?: {_ROAD})? {_EDGE})")),
        ("line {side}", _en(f"{_WHICH}(?: hand)?(?: {_ROAD})?(?: {_EDGE})?(?: of {_THE}{_ROAD})?")),
        ("line middle", _en(f"(?:middle|cent(?:er|re)(?: ?line)?)(?: of {_THE}{_ROAD})?")),
        (
            "pace slow",
            _en(
                f"slow(?:er|ly)?(?: down)?|decelerate|(?:reduce|lower|decrease|less) {_SPEED}|ease off|"
                "at (?:a )?(?:low|lower|slow|slower) (?:speed|pace)"
            ),
        ),
        (
            "pace brisk",
            _en(
                f"fast(?:er)?|quick(?:er|ly)?|brisk(?:ly)?|speed up|accelerate|hurry(?: up)?|"
                f"(?:increase|raise|more|higher) {_SPEED}|at (?:a )?(?:high|higher|brisk|fast) (?:speed|pace)"
            ),
        ),
        ("usual usual", _en("(?:as )?(?:usual|normal)(?:ly)?(?: (?:line|speed|pace))?|none|nothing")),
        ("stop", _en("(?:emergency )?(?:stop|halt|brake|wait|park)|stand still")),
        (
            "",
            _en(
                "keep|stay|stick|hug|hold|drive|go|ride|run|move|shift|take|please|now|just|and|to|on|at|in|near|along|"
                "by|the|it|a|an|our|your|bit|little|slightly|more|much|very|far|over|towards?|bends?|curves?|corners?|"
                f"{_ROAD}|you|we|should|can|could|must|kart|car"
            ),
        ),
        ("", re.compile(r"[\s.,;!?]+")),
    ),
    "ja": (
        ("", re.compile("指示(?:どおり|通り)|指示があったので")),
        ("bend", re.compile(f"{_JA_SIDE}(?:の|側の)?(?:カーブ|コーナー|ヘアピン)")),
        (
            "way turn {side}",
            re.compile(
                f"{_JA_SIDE}(?:に|へ)?(?:曲が(?:って|る|れ|り)|折(?:して|する|せよ)?|旋回(?:して|する)?)(?:ところだが)?"
            ),
        ),
        (
            "way straight on",
            re.compile(
                f"(?:まっすぐ|真っ直ぐ|真っすぐ|直進)に?(?:{_GOING}|行(?:って|く|け)|して|する)?(?:ところだが)?"
            ),
        ),
        ("either", re.compile(f"{_JA_SIDE}(?:に|へ)(?:進(?:んで|む|め)|行(?:って|く|け)|走(?:って|る|れ))")),
        ("line {side}", re.compile(f"{_JA_SIDE}の?(?:端|側|寄り|際|縁|いっぱい|路肩)*[をにへで]?{_JA_STAY}?")),
        (
            "line middle",
            re.compile(f"(?:(?:道|道路|車線|コース)の)?(?:真ん?中|中央|センター)(?:付近)?[をにへで]?{_JA_STAY}?"),
        ),
        (
            "pace slow",
            re.compile(
                f"(?:ゆっくり|遅く|低速で){_JA_DRIVEN}|(?:減速|徐行|スローダウン)(?:して|する|せよ)?|"
                f"{_JA_SPEED}(?:落と(?:して|す|せ)|下げ(?:て|る|ろ)|緩め(?:て|る|ろ))"
            ),
        ),
        (
            "pace brisk",
            re.compile(
                f"(?:速く|早く|はやく|きびきび|素早く|高速で){_JA_DRIVEN}|(?:加速|スピードアップ)(?:して|する|せよ)?|"
                f"急いで|{_JA_SPEED}上げ(?:て|る|ろ)"
            ),
        ),
        ("usual usual", re.compile(f"(?:普通|通常|いつも)(?:に|どおり|通り)*(?:{_GOING})?|指示なし")),
        ("stop", re.compile("停止|止ま|停車|ストップ|ブレーキ")),
        (
            "",
            re.compile("もっと|もう少し|少し|ちょっと|今すぐ|今|そして|ください|下さい|お願いします|お願い|[、。,.!]+"),
        ),
    ),
}
