"""What the claim parser reads in sentences whose claims were written down by hand.

``data/claims.csv`` holds sentences of both languages with the claims a reader finds in them; the expectations were
written before the parser was asked, and none was changed to suit it. The parser was improved on all kinds of sentences
but the "unseen" ones, which were written when it was finished and say how it does on words that nobody tried on it.
"""

from __future__ import annotations

import csv
from collections import Counter
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.reasoning.claims import LateralClaim, LongitudinalClaim
from collector.reasoning.consistency import language_of, parse_claim
from collector.reasoning.writing import swap_sides
from tests.helpers.paths import DATA

with (DATA / "claims.csv").open(encoding="utf-8", newline="") as file:
    TABLE = list(csv.DictReader(file))
AXES = ("lateral", "longitudinal")
# Sentences it reads wrongly today, per language and axis.
MISTAKES = {("en", "lateral"): 3, ("en", "longitudinal"): 2, ("ja", "lateral"): 2, ("ja", "longitudinal"): 0}


def test_the_table_is_wide() -> None:
    assert len({row["text"] for row in TABLE}) == len(TABLE) >= 200
    assert {row["lateral"] for row in TABLE} == set(get_args(LateralClaim))
    assert {row["longitudinal"] for row in TABLE} == set(get_args(LongitudinalClaim))
    kinds = Counter((row["language"], row["kind"]) for row in TABLE)
    for language in ("en", "ja"):
        for kind in ("both", "road", "s-bend", "stop", "negation", "others", "coc", "words", "mixed", "unseen"):
            assert kinds[language, kind] >= 8, (language, kind)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_accuracy(language: str, axis: str) -> None:
    rows = [row for row in TABLE if row["language"] == language]
    wrong = [row for row in rows if getattr(parse_claim(row["text"]), axis) != row[axis]]
    unseen = [sum(row["kind"] == "unseen" for row in some) for some in (wrong, rows)]
    print(
        f"{language} {axis}: {len(rows) - len(wrong)} of {len(rows)} right ({1 - len(wrong) / len(rows):.1%}); "
        f"of the unseen ones {unseen[1] - unseen[0]} of {unseen[1]}"
    )
    assert len(wrong) <= MISTAKES[language, axis], wrong


def test_languages_are_told_apart_by_their_letters() -> None:
    for row in TABLE:
        assert language_of(row["text"]) == row["language"], row["text"]
    assert language_of("The sign says 止まれ, so stop at the line.") == "en"
    assert language_of("ABSが作動したのでブレーキを緩める。") == "ja"
    assert language_of("") == language_of("12 %") == "en"


def test_a_mirrored_sentence_makes_the_mirrored_claim() -> None:
    """The parser prefers no side: all it knows of left it knows of right."""
    other = {"left": "right", "right": "left"}
    for row in TABLE:
        claim, mirrored = parse_claim(row["text"]), parse_claim(swap_sides(row["text"]))
        assert mirrored.lateral == other.get(claim.lateral, claim.lateral), row["text"]
        assert mirrored.longitudinal == claim.longitudinal, row["text"]


# Anything a babbling model may string together, words it knows among them.
KNOWN = (
    "the car ahead turns left right and not stop keep speed , . it road "
    "左 右 に 車 が 曲がる ない 減速 ので 、 。 \x00 \ud800"
)
BABBLE = st.lists(st.sampled_from(KNOWN.split()), max_size=40)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), BABBLE.map("".join), BABBLE.map(" ".join)))
@example("右左")
@example("左左右")
def test_any_text_has_a_claim_or_none(text: str) -> None:
    claim = parse_claim(text)
    assert claim.lateral in get_args(LateralClaim) and claim.longitudinal in get_args(LongitudinalClaim)
    assert swap_sides(swap_sides(text)) == text


def test_long_babble_is_read_too() -> None:
    for phrase in ("the car ahead turns left and ", "左に曲がる車が減速して右に寄るので、", "very ", "左、", "て車"):
        parse_claim(phrase * 4000)
