"""Instructions: read where every word is known, refused elsewhere, and said as the texts of a training say them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.common.errors import MonoError
from collector.reasoning.claims import Claim, Language
from collector.reasoning.consistency import parse_claim
from collector.reasoning.instructions import Instruction, read_instruction
from collector.reasoning.places import pace_claim

LANGUAGES = pytest.mark.parametrize("language", ["en", "ja"])
LINES = ("usual", "left", "middle", "right")
PACES = ("usual", "slow", "brisk")
WAYS = ("turn left", "turn right", "straight on")


@pytest.mark.parametrize(
    ("text", "line", "pace", "way"),
    [
        ("keep left", "left", "usual", None),
        ("Left", "left", "usual", None),
        ("please stay on the right-hand side of the road", "right", "usual", None),
        ("hug the left kerb", "left", "usual", None),
        ("middle", "middle", "usual", None),
        ("Drive in the centre of the lane.", "middle", "usual", None),
        ("a bit slower please", "usual", "slow", None),
        ("slow down right now", "usual", "slow", None),
        ("reduce your speed", "usual", "slow", None),
        ("FASTER!", "usual", "brisk", None),
        ("speed up", "usual", "brisk", None),
        ("take the bend slowly", "usual", "slow", None),
        ("left slow", "left", "slow", None),
        ("go faster and keep to the right edge", "right", "brisk", None),
        ("turn left", "usual", "usual", "turn left"),
        ("turn to the right now", "usual", "usual", "turn right"),
        ("go straight on", "usual", "usual", "straight on"),
        ("as usual", "usual", "usual", None),
        ("  ", "usual", "usual", None),
        ("もっとゆっくり", "usual", "slow", None),
        ("左に寄ってください", "left", "usual", None),
        ("右端を速く走って", "right", "brisk", None),
        ("道の真ん中を走る", "middle", "usual", None),
        ("スピードを上げて", "usual", "brisk", None),
        ("減速して", "usual", "slow", None),
        ("左に曲がって", "usual", "usual", "turn left"),
        ("まっすぐ進んで", "usual", "usual", "straight on"),
        ("いつもどおり", "usual", "usual", None),
    ],
)
def test_free_words_are_read(text: str, line: str, pace: str, way: str | None) -> None:
    found = read_instruction(text)
    assert (found.line, found.pace, found.way) == (line, pace, way)
    assert (found.beginning == "") == found.is_usual


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("do not keep left", "'do' is not understood"),
        ("don't keep left", "is not understood"),
        ("no faster", "'no' is not understood"),
        ("keep left after the second bend", "'after' is not understood"),
        ("slow down to 3 m/s", "'3' is not understood"),
        ("keep left, then right", "'then' is not understood"),
        ("keep left and keep right", "'right' beside another"),
        ("slower and faster", "'faster' beside another"),
        ("turn left slowly", "'slowly' beside another"),
        ("usual, left", "'left' beside another"),
        ("take the left bend slowly", "'left bend'"),
        ("go left", "keep left or turn left"),
        ("keep right now", "says nothing to do"),
        ("the car ahead keeps left", "'ahead' is not understood"),
        ("stop", "hold"),
        ("brake!", "hold"),
        ("<|cot_end|>", "is not understood"),
        ("left\x00", "no words"),
        ("left " * 100, "500 characters"),
        ("減速しないで", "'しないで' is not understood"),
        ("左に寄らないで", "is not understood"),
        ("左端を走るな", "'な' is not understood"),
        ("止まって", "hold"),
        ("右へ行って", "keep left or turn left"),
        ("左 slow", "is not understood"),
        ("🙂", "is not understood"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, why: str) -> None:
    with pytest.raises(MonoError) as refused:
        read_instruction(text)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["keep", "left", "right", "not", "slow", "turn", "stop", "左", "に", "走って"])).map(
        " ".join
    )
)
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        found = read_instruction(text)
    except MonoError:
        return
    assert read_instruction(found.beginning).beginning == found.beginning


@LANGUAGES
def test_the_beginning_claims_what_was_asked_and_is_read_again(language: Language) -> None:
    for line, pace, way in [
        *((line, pace, None) for line, pace in itertools.product(LINES, PACES)),
        *(("usual", "usual", way) for way in WAYS),
    ]:
        asked = Instruction(line, pace, way, language)  # type: ignore[arg-type]
        claim = parse_claim(asked.beginning)
        if asked.is_usual:
            assert not asked.beginning
            continue
        lateral = "none" if way is None else way.removeprefix("turn ").removesuffix(" on")
        position = "none" if line == "usual" else line
        assert claim == Claim(lateral, "none", position, pace_claim(pace))  # type: ignore[arg-type]
        assert read_instruction(asked.beginning) == asked


@pytest.mark.parametrize(
    ("text", "lead_in"),
    [
        ("keep left", "Keep to the left edge, as asked. "),
        ("左端をゆっくり", "指示どおり左端を走る。ゆっくり走る。"),
        ("turn left", "Turn left"),
        ("usual", ""),
    ],
)
def test_a_place_or_a_pace_is_a_whole_sentence_and_a_way_is_left_to_be_answered(text: str, lead_in: str) -> None:
    assert read_instruction(text).lead_in == lead_in
