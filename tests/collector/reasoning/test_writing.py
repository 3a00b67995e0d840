"""Reasoning texts written, read back, and judged."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.common.errors import MonoError
from collector.geometry.curvature import DEFAULT_THRESHOLDS, CurveLabel
from collector.geometry.poses import mirror_poses
from collector.reasoning.claims import Claim, Language
from collector.reasoning.consistency import Motion, check_claim, language_of, measure_motion, parse_claim
from collector.reasoning.writing import swap_sides, write_reasoning

CURVATURES = st.sampled_from([0.0, 0.03, 0.05, 0.1, 0.2, 0.25])


def drive(start_mps: float, accel_mps2: float, curvatures: list[float]) -> np.ndarray:
    """A future of 64 poses at 10 Hz with a curvature per stretch of eight steps."""
    speed = np.clip(start_mps + accel_mps2 * np.arange(64) * 0.1, 0.0, 12.0)
    kappa = np.repeat(curvatures, 8)
    yaw = np.cumsum(kappa * speed * 0.1)
    x, y = np.cumsum(speed * 0.1 * np.cos(yaw)), np.cumsum(speed * 0.1 * np.sin(yaw))
    return np.stack([x, y, yaw], axis=1)


@st.composite
def futures(draw: st.DrawFn) -> np.ndarray:
    signed = st.builds(lambda k, s: k * s, CURVATURES, st.sampled_from([-1, 1]))
    return drive(draw(st.floats(0.0, 9.0)), draw(st.floats(-3.0, 2.0)), draw(st.lists(signed, min_size=8, max_size=8)))


LANGUAGES = pytest.mark.parametrize("language", ["en", "ja"])


@LANGUAGES
@settings(max_examples=150, deadline=None)
@given(future=futures(), seed=st.integers(0, 2**31))
def test_every_written_reasoning_reads_back_to_its_motion(language: Language, future: np.ndarray, seed: int) -> None:
    motion = measure_motion(future)
    text = write_reasoning(motion, seed, language=language)
    assert language_of(text) == language
    claim = parse_claim(text)
    assert (claim.lateral, claim.longitudinal) == (motion.lateral, motion.longitudinal), text
    verdict = check_claim(claim, motion)
    assert (verdict.lateral, verdict.longitudinal, verdict.keep) == ("agree", "agree", True)
    assert len(text.split()) <= 22 and len(text) <= 110


def swap(text: str) -> str:
    """Independent of what is tested: no text of ours names a side in any other sense."""
    other = {"left": "right", "right": "left", "左": "右", "右": "左"}
    return re.sub("left|right|左|右", lambda side: other[side.group()], text)


@LANGUAGES
@settings(max_examples=50, deadline=None)
@given(future=futures(), seed=st.integers(0, 2**31))
def test_a_mirrored_drive_gets_the_mirrored_text(language: Language, future: np.ndarray, seed: int) -> None:
    text = write_reasoning(measure_motion(future), seed, language=language)
    mirrored = write_reasoning(measure_motion(mirror_poses(future)), seed, language=language)
    assert mirrored == swap(text) == swap_sides(text)


@LANGUAGES
@settings(max_examples=50, deadline=None)
@given(future=futures(), seed=st.integers(0, 2**31))
def test_an_exchanged_direction_is_quarantined(language: Language, future: np.ndarray, seed: int) -> None:
    motion = measure_motion(future)
    if motion.lateral == "straight":
        return
    verdict = check_claim(parse_claim(swap(write_reasoning(motion, seed, language=language))), motion)
    assert verdict.lateral == "contradict" and not verdict.keep


# Eight drives and what they have always been told, seeds 0 to 2: the tiny base has learnt these very sentences.
DRIVES: list[tuple[float, float, list[float]]] = [
    (5, 0, [0.0] * 8),
    (4, 1, [0.0] * 8),
    (5, -1, [0.06] * 8),
    (5, 0, [-0.12] * 8),
    (5, 0.5, [0.25] * 8),
    (5, 0, [0, 0, -0.12, -0.12, -0.12, 0, 0, 0]),
    (5, 0, [-0.15, -0.15, 0.15, 0.15, 0, 0, 0, 0]),
    (2, -1, [0.2] * 8),
]
ENGLISH = """
The road ahead is straight, so hold the speed and keep straight.
The lane runs straight, so keep the speed and keep straight.
The lane is straight, so keep the speed and keep straight.
The road ahead is straight, so accelerate and keep straight.
The lane runs straight, so speed up and keep straight.
The lane is straight, so speed up and keep straight.
The lane bends gently left now, so brake and steer left to follow the lane.
The lane bends gently left now, so slow down and turn left with the road.
The lane bends gently left now, so slow down and steer left to keep the lane.
The lane bends right now, so hold the speed and steer right to follow the lane.
The lane bends right now, so keep the speed and turn right with the road.
The lane bends right now, so keep the speed and steer right to keep the lane.
The lane bends sharply left now, so accelerate and steer left to follow the lane.
The lane bends sharply left now, so speed up and turn left with the road.
The lane bends sharply left now, so speed up and steer left to keep the lane.
The lane bends right ahead, so hold the speed and steer right to follow the lane.
The lane bends right ahead, so keep the speed and turn right with the road.
The lane bends right ahead, so keep the speed and steer right to keep the lane.
The lane bends right and then left now, so hold the speed and steer right and then left.
The lane bends right and then left now, so keep the speed and steer right and then left.
The lane bends right and then left now, so keep the speed and steer right and then left.
The lane bends sharply left now, so come to a stop and steer left to follow the lane.
The lane bends sharply left now, so stop and turn left with the road.
The lane bends sharply left now, so stop and steer left to keep the lane.
""".strip().splitlines()
# Of the sentences of seeds 0 to 499, each with a line feed, taken before Japanese came.
ENGLISH_SHA256 = "e0ab51ed031ffbac4efeeef4d35a4ec4f12d471021772ba76cc075cda7ce9ed1"


def test_the_english_that_a_model_has_learnt_never_changes() -> None:
    motions = [measure_motion(drive(*spec)) for spec in DRIVES]
    assert [write_reasoning(motion, seed) for motion in motions for seed in range(3)] == ENGLISH
    texts = "".join(write_reasoning(motion, seed) + "\n" for motion in motions for seed in range(500))
    assert hashlib.sha256(texts.encode()).hexdigest() == ENGLISH_SHA256


def test_japanese_names_cause_and_action_on_both_axes_in_many_ways() -> None:
    motions = [measure_motion(drive(*spec)) for spec in DRIVES]
    texts = {write_reasoning(motion, seed, language="ja") for motion in motions for seed in range(60)}
    assert len(texts) > 80
    assert {
        "前方の道路が直線なので、直進しながら速度を保つ。",
        "車線がここで緩やかに左に曲がるので、道なりに左に曲がりながら減速する。",
        "この先右カーブがあるので、右に操舵して車線を維持しながら速度を維持する。",
        "ここで急な左カーブが始まるので、車線に沿って左に操舵しながら加速する。",
        "車線がここで右、続いて左に曲がるので、右、続いて左に操舵しながら速度を保つ。",
    } <= texts
    assert all("ので、" in text and text.endswith("。") for text in texts)


def test_words_change_sides() -> None:
    for text, mirrored in [
        ("It bends left and then right, so brake.", "It bends right and then left, so brake."),
        ("Turn Left. It is brightly lit.", "Turn Right. It is brightly lit."),
        ("A left-hander, then rightwards.", "A right-hander, then leftwards."),
        ("All right, they have the right of way on the left.", "All right, they have the right of way on the right."),
        ("左に曲がり、みぎへ寄る。", "右に曲がり、ひだりへ寄る。"),
        ("左右を確認して右折する。", "左右を確認して左折する。"),
    ]:
        assert swap_sides(text) == mirrored and swap_sides(mirrored) == text


def test_vocabulary_is_small_and_phrasings_vary() -> None:
    rng = np.random.default_rng(7)
    texts = set()
    for seed in range(3000):
        curvatures = rng.choice([0.0, 0.05, 0.1, 0.2], 8) * rng.choice([-1, 1], 8)
        motion = measure_motion(drive(rng.uniform(0, 8), rng.uniform(-3, 2), list(curvatures)))
        texts.add(write_reasoning(motion, seed))
    words = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    assert len(words) <= 60, sorted(words)
    assert {"gentle", "gently", "sharp", "sharply", "now", "ahead", "then", "straight"} <= words
    assert len(texts) > 100


def test_grades_and_places_follow_the_path() -> None:
    def text_of(future: np.ndarray) -> str:
        return " ".join(write_reasoning(measure_motion(future), seed) for seed in range(12))

    assert "gent" in text_of(drive(5, 0, [0.06] * 8)) and "sharp" not in text_of(drive(5, 0, [0.06] * 8))
    assert "sharp" in text_of(drive(5, 0, [-0.25] * 8)) and "gent" not in text_of(drive(5, 0, [-0.25] * 8))
    assert "ahead" in text_of(drive(5, 0, [0, 0, 0.12, 0.12, 0.12, 0, 0, 0]))
    assert "ahead" not in text_of(drive(5, 0, [0.12] * 8))
    s_bend = text_of(drive(5, 0, [-0.15, -0.15, 0.15, 0.15, 0, 0, 0, 0]))
    assert s_bend.count("right and then left") >= 12 and "left and then right" not in s_bend


def test_motion_measures_speed_over_the_window() -> None:
    assert measure_motion(drive(4, 0, [0.0] * 8)).longitudinal == "keep"
    assert measure_motion(drive(4, 1.0, [0.0] * 8)).longitudinal == "accelerate"
    assert measure_motion(drive(4, -1.0, [0.0] * 8)).longitudinal == "decelerate"
    assert measure_motion(drive(2, -1.0, [0.0] * 8)).longitudinal == "stop"
    # Braking after the window is not yet this reasoning's business.
    late = np.concatenate([np.full(30, 4.0), np.linspace(4.0, 0.0, 34)])
    assert measure_motion(np.stack([np.cumsum(late) * 0.1, late * 0, late * 0], 1)).longitudinal == "keep"
    # A known wheel speed outranks the path's own beginning.
    assert measure_motion(drive(4, 0, [0.0] * 8), speed_mps=6.0).longitudinal == "decelerate"
    assert measure_motion(drive(4, 0, [0.1] * 8)[:, :2]).lateral == "left"
    for bad in (np.zeros((64, 4)), np.zeros((1, 3)), np.full((64, 3), np.nan)):
        with pytest.raises(MonoError):
            measure_motion(bad)


def motion_of(lateral: str, longitudinal: str) -> Motion:
    label = CurveLabel(lateral, 0.1, 0.0, 0.5, lateral)  # type: ignore[arg-type]
    return Motion(lateral, longitudinal, label, 4.0, 4.0)  # type: ignore[arg-type]


def test_silence_is_never_agreement_and_never_passes_a_curve() -> None:
    silent = Claim()
    on_curve, on_straight = (
        check_claim(silent, motion_of("left", "keep")),
        check_claim(silent, motion_of("straight", "keep")),
    )
    assert on_curve.lateral == on_curve.longitudinal == "no_claim" and not on_curve.keep
    assert on_straight.lateral == "no_claim" and on_straight.keep
    assert "names no direction" in on_curve.reason


def test_judge_names_what_disagrees() -> None:
    verdict = check_claim(Claim("straight", "accelerate"), motion_of("right", "decelerate"))
    assert (verdict.lateral, verdict.longitudinal, verdict.keep) == ("contradict", "contradict", False)
    assert "claims straight" in verdict.reason and "claims accelerate" in verdict.reason
    assert check_claim(Claim("left", "decelerate"), motion_of("left", "stop")).longitudinal == "agree"
    assert check_claim(Claim("left", "stop"), motion_of("left", "decelerate")).longitudinal == "contradict"
    assert DEFAULT_THRESHOLDS.window_s == 3.0


# Sentences a driving model may write: lateral claim, longitudinal claim.
SENTENCES = [
    ("The road curves right, so slow down and steer right.", "right", "decelerate"),
    ("Slow down for the sharp left curve ahead.", "left", "decelerate"),
    ("Slow down to negotiate the right-hand bend.", "right", "decelerate"),
    ("Steer left to follow the curve and keep a steady speed.", "left", "keep"),
    ("Follow the road as it bends to the left.", "left", "none"),
    ("Follow the left curve while maintaining speed.", "left", "keep"),
    ("The track turns sharply to the right ahead.", "right", "none"),
    ("There is a hairpin to the left, brake hard and turn left.", "left", "decelerate"),
    ("Turn right at the intersection since the light is green.", "right", "none"),
    ("Go straight ahead and maintain the current speed.", "straight", "keep"),
    ("Continue straight and accelerate because the road ahead is clear.", "straight", "accelerate"),
    ("The road ahead is straight, so accelerate.", "straight", "accelerate"),
    ("Keep driving straight.", "straight", "none"),
    ("Steer slightly to the left to keep the lane.", "left", "none"),
    ("Nudge to the right to pass the parked car.", "right", "none"),
    ("Nudge left around the stopped vehicle, then return.", "left", "none"),
    ("Change lanes to the left.", "left", "none"),
    ("Move into the right lane to overtake.", "right", "none"),
    ("Keep left.", "left", "none"),
    ("Bear right and slow down.", "right", "decelerate"),
    ("The lane veers left.", "left", "none"),
    ("Right turn ahead, reduce speed.", "right", "decelerate"),
    ("Reduce the speed for the left corner.", "left", "decelerate"),
    ("Left bend now.", "left", "none"),
    ("An S bend: the road bends right and then left, so brake.", "right", "decelerate"),
    ("Steer left and then right through the chicane.", "left", "none"),
    # Negation
    ("Do not turn left.", "none", "none"),
    ("Don't turn left, keep straight.", "straight", "none"),
    ("Do not slow down.", "none", "none"),
    ("There is no need to brake, so maintain speed.", "none", "keep"),
    ("Never turn right here; go straight.", "straight", "none"),
    ("Turn right instead of turning left.", "right", "none"),
    ("Steer left rather than right.", "left", "none"),
    ("Slow down without turning left.", "none", "decelerate"),
    ("The lane does not bend, so hold the speed.", "straight", "keep"),
    ("Do not turn left or right.", "straight", "none"),
    ("The road isn't straight; it bends left, so steer left.", "left", "none"),
    ("We cannot accelerate, so we keep the speed.", "none", "keep"),
    ("Do not accelerate but slow down.", "none", "decelerate"),
    ("Avoid steering right and slow down.", "none", "decelerate"),
    # Other road users
    ("The car ahead turns left.", "none", "none"),
    ("The lead vehicle is slowing down, so slow down to keep distance.", "none", "decelerate"),
    ("The car in front is braking, so brake.", "none", "decelerate"),
    ("A cyclist on the right is turning left, so yield.", "none", "decelerate"),
    ("Keep distance to the lead vehicle because it is decelerating.", "none", "none"),
    ("The truck accelerates away; keep the lane and speed.", "none", "keep"),
    ("The oncoming car will turn right, so stop.", "none", "stop"),
    ("Steer left because the truck ahead moves right.", "left", "none"),
    ("The vehicle in the right lane is slowing down, so keep straight and hold speed.", "straight", "keep"),
    ("A parked car stands on the left side.", "none", "none"),
    ("Pedestrians wait on the right.", "none", "none"),
    # Stops
    ("Stop for the red light.", "none", "stop"),
    ("Slow down and stop at the line.", "none", "stop"),
    ("Brake to a complete stop before the stop line.", "none", "stop"),
    ("Wait for the pedestrian to cross.", "none", "stop"),
    ("Slow down for the stop sign.", "none", "decelerate"),
    ("Accelerate from a stop.", "none", "accelerate"),
    ("Pull away from the standstill and accelerate.", "none", "accelerate"),
    ("Pass the bus stop and hold the speed.", "none", "keep"),
    ("Come to a halt.", "none", "stop"),
    # Words that look like claims
    ("Slow down right away.", "none", "decelerate"),
    ("Yield since they have the right of way.", "none", "decelerate"),
    ("All right, keep the speed.", "none", "keep"),
    ("There is free space left on the track.", "none", "none"),
    ("Slow traffic ahead.", "none", "none"),
    ("The brake lights of the car ahead are on.", "none", "none"),
    ("Resume speed after the corner.", "none", "accelerate"),
    ("Increase the speed on the straight.", "straight", "accelerate"),
    ("Maintain a constant speed.", "none", "keep"),
    ("Keep lane.", "none", "none"),
    ("", "none", "none"),
    ("the the the the", "none", "none"),
    ("左に曲がる", "left", "none"),
    ("\x00\ud800 weird bytes", "none", "none"),
]


@pytest.mark.parametrize(("text", "lateral", "longitudinal"), SENTENCES)
def test_free_text_claims(text: str, lateral: str, longitudinal: str) -> None:
    assert parse_claim(text) == Claim(lateral, longitudinal)  # type: ignore[arg-type]
