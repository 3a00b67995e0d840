"""Manners: read from messages, written into texts, read back as claims, and held against where a path runs."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.common.errors import MonoError
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from collector.geometry.poses import mirror_poses
from collector.geometry.road import LocalRoad
from collector.reasoning.claims import Claim, Language
from collector.reasoning.consistency import Motion, check_claim, language_of, measure_motion, parse_claim
from collector.reasoning.instructions import AskedLine, Instruction
from collector.reasoning.manner_writing import Way, asked_part, refusals, unasked, write_manner, write_refusal
from collector.reasoning.manners import Manner, Pace, read_manner
from collector.reasoning.writing import swap_sides, write_reasoning

LANGUAGES = pytest.mark.parametrize("language", ["en", "ja"])
CURVATURES = st.sampled_from([0.0, 0.05, -0.05, 0.15, -0.2])
USUAL_MPS = 4.0


def road(curvature_1pm: float, half_m: float = 2.5) -> LocalRoad:
    s = np.arange(-4.0, 60.0)
    xy = line(curvature_1pm, s, np.zeros_like(s))[:, :2]
    return LocalRoad(xy, np.full(len(s), half_m), np.full(len(s), half_m), np.full(len(s), USUAL_MPS))


def line(curvature_1pm: float, s_m: np.ndarray, aside_m: np.ndarray) -> np.ndarray:
    """Poses along a circle through the origin, so far left of it."""
    yaw = curvature_1pm * s_m
    if curvature_1pm == 0.0:
        x, y = s_m, np.zeros_like(s_m)
    else:
        x, y = np.sin(yaw) / curvature_1pm, (1.0 - np.cos(yaw)) / curvature_1pm
    return np.stack([x - aside_m * np.sin(yaw), y + aside_m * np.cos(yaw), yaw], axis=1)


def driven(words: str, curvature_1pm: float, side_m: float = 0.9) -> np.ndarray:
    """A future (64, 3) that has a manner."""
    t = 0.1 * np.arange(1, 65)
    scale = np.full(64, 0.6 if "slow" in words else 1.25 if "brisk" in words else 1.0)
    if words == "stop":
        scale = np.maximum(0.0, 1.0 - t / 2.7)
    ramp = np.minimum(1.0, t / 2.0)
    if words.startswith("out"):
        ramp = np.sin(np.pi * np.minimum(1.0, t / 6.0)) ** 2
    sign = 1.0 if "left" in words or words == "racing" else -1.0 if "right" in words else 0.0
    aside = sign * side_m * ramp
    # The way inside a bend is shorter than its middle.
    return line(curvature_1pm, np.cumsum(USUAL_MPS * scale * 0.1 / (1.0 - curvature_1pm * aside)), aside)


def motion_of(words: str, curvature_1pm: float) -> Motion:
    return measure_motion(driven(words, curvature_1pm), road=road(curvature_1pm))


WORDS = [
    "left",
    "right",
    "middle",
    "racing",
    "slow",
    "brisk",
    "left slow",
    "right brisk",
    "stop",
    "out left",
    "out right",
]
CLAIMED = {"racing": "left", "left slow": "left", "right brisk": "right"}


@LANGUAGES
@settings(max_examples=150, deadline=None)
@given(words=st.sampled_from(WORDS), curvature=CURVATURES, seed=st.integers(0, 2**31))
def test_every_written_manner_reads_back_to_its_path(
    language: Language, words: str, curvature: float, seed: int
) -> None:
    motion = motion_of(words, curvature)
    text = write_manner(motion, read_manner(words), seed, DEFAULT_THRESHOLDS, language)
    assert text is not None and language_of(text) == language
    claim = parse_claim(text)
    wanted = CLAIMED.get(words, words)
    assert claim.position == (wanted if wanted not in ("slow", "brisk", "stop") else "none"), text
    assert claim.pace == ("slow" if "slow" in words else "brisk" if "brisk" in words else "none"), text
    verdict = check_claim(claim, motion)
    assert verdict.keep and verdict.lateral == verdict.longitudinal == "agree", (text, verdict.reason)
    # What was asked stands first, and the rest is what anybody would say; in a mirror too.
    asked, plain = asked_part(text), write_reasoning(motion, seed, DEFAULT_THRESHOLDS, language)
    assert text == asked + plain and asked_part(plain) == ""
    assert unasked(plain) is None
    rest, place = unasked(text), claim.position if claim.position not in ("none", "middle") else "none"
    if place == "none":
        assert rest == plain
    elif claim.pace == "none":
        assert rest is None, "a path to the edge would be without a reason"
    else:
        assert rest is not None and rest.endswith(plain) and asked_part(rest) + plain == rest
        assert (parse_claim(rest).position, parse_claim(rest).pace) == (place, "none"), rest
    assert (parse_claim(asked).position, parse_claim(asked).pace) == (claim.position, claim.pace), asked
    assert asked_part(swap_sides(text)) == swap_sides(asked) != ""
    mirrored = measure_motion(mirror_poses(driven(words, curvature)), road=road(curvature).mirrored())
    assert check_claim(parse_claim(swap_sides(text)), mirrored).keep


@LANGUAGES
@settings(max_examples=100, deadline=None)
@given(
    said=st.sampled_from(WORDS), done=st.sampled_from(["usual", *WORDS]), curvature=CURVATURES, seed=st.integers(0, 999)
)
def test_a_manner_over_another_path_is_quarantined(
    language: Language, said: str, done: str, curvature: float, seed: int
) -> None:
    says, does = ({*CLAIMED.get(words, words).split(), *words.split()} - {"racing"} for words in (said, done))
    if says <= does or said in ("middle", "stop"):
        return  # it may be true of the other
    text = write_manner(motion_of(said, curvature), read_manner(said), seed, DEFAULT_THRESHOLDS, language)
    assert text is not None
    claim, motion = parse_claim(text), motion_of(done, curvature)
    verdict = check_claim(claim, motion)
    assert not verdict.keep, (text, done)
    assert "contradict" in (verdict.position, verdict.pace, verdict.lateral, verdict.longitudinal)


def test_left_over_right_is_told_in_metres() -> None:
    verdict = check_claim(Claim("left", "keep", "left"), motion_of("right", 0.05))
    assert verdict.position == "contradict" and "claims left of the road" in verdict.reason
    assert "-0.90 m" in verdict.reason
    slow = check_claim(Claim("left", "none", "none", "slow"), motion_of("brisk", 0.05))
    assert slow.pace == "contradict" and "125%" in slow.reason


def test_what_nothing_is_known_of_does_not_train() -> None:
    motion = measure_motion(driven("left", 0.05))
    assert motion.place is None
    verdict = check_claim(parse_claim("Keep to the left edge. The lane bends left, so steer left."), motion)
    assert verdict.position == "unjudged" and not verdict.keep and "nothing tells" in verdict.reason
    # A pace was never held against anything, and is let pass.
    assert check_claim(parse_claim("Take the left bend slowly and steer left."), motion).keep
    assert write_manner(motion, Manner("left"), 0, DEFAULT_THRESHOLDS, "en") is None


def test_a_road_that_ends_within_the_window_is_not_known() -> None:
    short = road(0.0)
    cut = LocalRoad(short.xy[:12], short.left_m[:12], short.right_m[:12], short.usual_mps[:12])
    assert measure_motion(driven("left", 0.0), road=cut).place is None


def test_a_manner_on_the_way_is_not_said() -> None:
    future = line(0.0, np.cumsum(np.full(64, 0.4)), np.linspace(0.0, 0.9, 64) ** 3)
    motion = measure_motion(future, road=road(0.0))
    assert write_manner(motion, Manner("left"), 0, DEFAULT_THRESHOLDS, "en") is None
    assert write_manner(motion, Manner(), 0, DEFAULT_THRESHOLDS, "en") == write_reasoning(motion, 0)


@LANGUAGES
@settings(max_examples=60, deadline=None)
@given(curvature=CURVATURES, seed=st.integers(0, 999))
def test_what_the_road_does_not_allow_is_taken_back(language: Language, curvature: float, seed: int) -> None:
    motion = measure_motion(driven("usual", curvature), road=road(curvature, half_m=0.8))
    ways = refusals(motion)
    assert {"left", "right"} < {*ways}
    for way in ways:
        text = write_refusal(motion, way, seed, DEFAULT_THRESHOLDS, language)
        claim = parse_claim(text)
        assert claim.lateral == motion.lateral and check_claim(claim, motion).keep, text
        assert claim.position == ("middle" if way in ("left", "right") else "none")
        asked = asked_part(text)
        assert text.startswith(asked) and claim != parse_claim(asked), "the answer to it is not among what was asked"


@pytest.mark.parametrize(
    ("text", "position", "pace"),
    [
        ("Keep to the left edge.", "left", "none"),
        ("Stay close to the right kerb.", "right", "none"),
        ("Hug the left edge of the track.", "left", "none"),
        ("Drive on the left side of the road and slow down.", "left", "none"),
        ("Keep the kart on the left half of the lane.", "left", "none"),
        ("Stay to the right of the centre line.", "right", "none"),
        ("Move over to the right edge.", "right", "none"),
        ("Keep in the middle of the lane.", "middle", "none"),
        ("Return to the centre of the lane.", "middle", "none"),
        ("Pull out to the right, pass and come back.", "out right", "none"),
        ("Keep to the left edge, but the road ends there, so stay in the middle.", "middle", "none"),
        ("Take the bend slowly.", "none", "slow"),
        ("Drive briskly through the right bend.", "none", "brisk"),
        ("Go through the corner at a low speed.", "none", "slow"),
        ("Do not keep to the left edge.", "none", "none"),
        ("The car ahead keeps to the left edge.", "none", "none"),
        ("Keep left.", "none", "none"),
        ("Turn slowly left.", "none", "none"),
        ("Take the bend more slowly.", "none", "none"),
        ("Pull out to the left.", "none", "none"),
        ("Pass on the left side of the car.", "none", "none"),
        ("左端を走る。", "left", "none"),
        ("右側を走行する。", "right", "none"),
        ("左端に寄る。", "left", "none"),
        ("中央を走る。", "middle", "none"),
        ("右側へ出てから戻る。", "out right", "none"),
        ("ゆっくり曲がる。", "none", "slow"),
        ("きびきび走る。", "none", "brisk"),
        ("左端を走らない。", "none", "none"),
        ("前の車が左端を走る。", "none", "none"),
        ("左端を走るところだが、道がそこで終わるので、中央を走る。", "middle", "none"),
        ("もっとゆっくり走る。", "none", "none"),
    ],
)
def test_places_and_paces_in_free_words(text: str, position: str, pace: str) -> None:
    claim = parse_claim(text)
    assert (claim.position, claim.pace) == (position, pace)


def test_a_but_takes_back_a_direction() -> None:
    assert parse_claim("Turn left, but the lane bends right, so follow it.").lateral == "right"
    assert parse_claim("Accelerate, but the bend is tight, so slow down.").longitudinal == "decelerate"
    assert parse_claim("Steer left, but gently.").lateral == "left"


@pytest.mark.parametrize(
    ("text", "manner"),
    [
        ("left", Manner("left")),
        ("Centre slowly", Manner("middle", "slow")),
        ("slow, right", Manner("right", "slow")),
        ("out left", Manner(act="out left")),
        ("usual", Manner()),
        (
            "left lateral_m=0.91 speed_scale=1 because cones stand on the right.",
            Manner("left", cause="cones stand on the right"),
        ),
    ],
)
def test_messages_are_read(text: str, manner: Manner) -> None:
    assert read_manner(text) == manner
    assert read_manner(manner.words).words == manner.words


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "lefft",
        "left right",
        "slow brisk",
        "stop out left",
        "left out left",
        "x" * 300,
        "left because <|cot_end|>",
        "left because \ufffd",
        "left\n",
    ],
)
def test_messages_that_say_none_are_refused(text: str) -> None:
    with pytest.raises(MonoError):
        read_manner(text)


def test_a_cause_of_ones_own_is_said() -> None:
    text = write_manner(
        motion_of("left", 0.05), Manner("left", cause="cones stand on the right"), 1, DEFAULT_THRESHOLDS, "en"
    )
    assert text is not None and ", since cones stand on the right. " in text
    assert asked_part(text) == "", "cones can be seen"
    assert check_claim(parse_claim(text), motion_of("left", 0.05)).keep


@LANGUAGES
def test_the_texts_of_the_training_begin_so(language: Language) -> None:
    """What a model is made to begin with is the beginning of a text that it has learnt."""
    for line, pace in itertools.product(get_args(AskedLine), get_args(Pace)):
        asked = Instruction(line, pace, None, language)  # type: ignore[arg-type]
        if asked.is_usual:
            continue
        words = Manner(line, pace).words  # type: ignore[arg-type]
        motion = motion_of(words, 0.0)
        written = {
            write_manner(motion, Manner(line, pace), seed, DEFAULT_THRESHOLDS, language)  # type: ignore[arg-type]
            for seed in range(60)
        }
        # In a bend the pace is that of taking it.
        texts = [text.replace("take the bend", "drive").replace("曲がる", "走る") for text in written if text]
        texts += [text.replace("Take the bend", "Drive") for text in texts]
        assert any(text.startswith(asked.beginning) for text in texts), asked.beginning
    straight = motion_of("middle", 0.0)
    for way in refusals(straight):
        if way in get_args(Way):
            beginning = Instruction("usual", "usual", way, language).beginning  # type: ignore[arg-type]
            text = write_refusal(straight, way, 0, DEFAULT_THRESHOLDS, language)
            assert text.startswith(beginning)


@LANGUAGES
def test_what_is_said_of_the_lane_is_true_of_the_lane(language: Language) -> None:
    along = 0.4 * np.arange(1, 65)
    to_the_edge = line(0.0, along, 0.8 * (1.0 - np.cos(np.pi * np.minimum(1.0, along / 8.0))))
    assert measure_motion(to_the_edge).lateral == "left", "the path turns"
    motion = measure_motion(to_the_edge, road=road(0.0, half_m=3.5))
    text = write_manner(motion, Manner("left"), 1, DEFAULT_THRESHOLDS, language)
    assert text is not None
    claim = parse_claim(text)
    assert (claim.lateral, claim.position) == ("straight", "left") and check_claim(claim, motion).keep
    assert set(refusals(motion)) == {"turn left", "turn right"}, "neither way is there"
    said = {side: check_claim(Claim(lateral=side), motion).lateral for side in ("left", "right")}
    assert said == {"left": "agree", "right": "contradict"}, "a text of one's own may speak of the path"
    planned = {side: check_claim(Claim(lateral=side), motion.of_path).lateral for side in ("left", "straight")}
    assert planned == {"left": "agree", "straight": "contradict"}, "a plan is judged by where it goes"


def test_a_road_that_ends_before_the_path_does_says_nothing_of_the_lane() -> None:
    short = LocalRoad(np.array([[0.0, 0.0], [3.0, 0.0]]), np.full(2, 2.5), np.full(2, 2.5), np.full(2, USUAL_MPS))
    bend = driven("usual", 0.15)
    assert short.walked(bend[:, :2]) is None
    assert measure_motion(bend, road=short).lateral == "left"
