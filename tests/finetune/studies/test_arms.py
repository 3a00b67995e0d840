"""The numbers of the arms: shifts by hand, who obeys, who leaves the road, intervals, and the texts of each arm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collector.dataset.sample import Sample, judged_sample
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from collector.geometry.road import LocalRoad
from collector.reasoning.consistency import measure_motion, parse_claim
from collector.reasoning.manner_writing import write_manner
from collector.reasoning.manners import Manner
from finetune.evaluation.bootstrap import Groups, Measure, mean_interval
from finetune.studies.arms import MORE_ARMS, arm_rows, arm_text, measure_arm, spread_of, summarise_arms


def straight(aside_m: float = 0.0, speed_mps: float = 4.0) -> np.ndarray:
    """80 poses ahead, moving aside over two seconds."""
    t = 0.1 * np.arange(-15, 65)
    aside = aside_m * np.clip(t / 2.0, 0.0, 1.0)
    past = np.minimum(t, 0.0) * 4.0
    return np.stack([past + np.maximum(t, 0.0) * speed_mps, aside, np.zeros(80)], axis=1)


ROAD = LocalRoad(
    np.stack([np.arange(-4.0, 60.0), np.zeros(64)], 1), np.full(64, 2.0), np.full(64, 2.0), np.full(64, 4.0)
)
PATHS = {
    "usual": straight(),
    "left": straight(1.0),
    "right": straight(-1.0),
    "slow": straight(0.0, 2.4),
    "brisk": straight(0.0, 5.0),
}


def sample_of(words: str, number: int = 0) -> Sample:
    manner = Manner(line=words) if words in ("left", "right") else Manner(pace=words) if words != "usual" else Manner()  # type: ignore[arg-type]
    motion = measure_motion(PATHS[words][16:], road=ROAD)
    text = write_manner(motion, manner, 0, DEFAULT_THRESHOLDS, "en")
    assert text is not None
    names = tuple(f"images/b_{number}{back}.jpg" for back in range(4))
    facts: dict[str, Any] = {
        "file_name": names[-1], "frames": names, "id": f"{words}-{number}", "bag": "b", "lap": number,
        "stamp_ns": number * 10**11, "speed_mps": 4.0, "split": "val",
    }  # fmt: skip
    return judged_sample(facts, PATHS[words], motion, text, DEFAULT_THRESHOLDS, manner, ROAD, f"p{number}")[0]


def test_the_texts_of_the_arms() -> None:
    samples = [sample_of(words, number) for number in range(2) for words in PATHS]
    pairs = {pair: [one for one in samples if one.pair == pair] for pair in ("p0", "p1")}
    texts = {arm: [arm_text(arm, number, samples, pairs) for number in range(len(samples))] for arm in MORE_ARMS}
    assert texts["again"] == texts["blank picture"] == [one.reasoning for one in samples]
    places = [parse_claim(text).position if text else None for text in texts["opposite place"]]
    assert places == [None, "right", "left", None, None] * 2
    paces = [parse_claim(text).pace if text else None for text in texts["opposite pace"]]
    assert paces == [None, None, None, "brisk", "slow"] * 2
    claims = [parse_claim(str(text)) for text in texts["opposite speed"]]
    assert [claim.pace for claim in claims] == ["none", "none", "none", "brisk", "slow"] * 2
    assert {claim.longitudinal for claim in claims[:3]} <= {"decelerate", "accelerate"}
    for one, other in zip(samples, texts["another"], strict=True):
        assert other in [there.reasoning for there in samples if there.stamp_ns != one.stamp_ns]
    for one, shuffled in zip(samples, texts["shuffled"], strict=True):
        assert shuffled != one.reasoning and sorted(str(shuffled).split()) == sorted(one.reasoning.split())


def test_shifts_are_measured_left_and_in_speed() -> None:
    left, slow, right = (sample_of(words) for words in ("left", "slow", "right"))
    base = PATHS["usual"][16:]
    row = measure_arm("true", PATHS["left"][16:], base, left.reasoning, left)
    assert [row[f"left_{at}s_m"] for at in (1, 2, 3)] == pytest.approx([0.5, 1.0, 1.0])
    assert row["faster_3s_mps"] == pytest.approx(0.0, abs=1e-9) and not row["off_road"] and row["ade_3s_m"] == 0.0
    row = measure_arm("opposite speed", PATHS["slow"][16:], base, slow.reasoning, slow)
    assert row["faster_3s_mps"] == pytest.approx(-1.6) and row["left_3s_m"] == 0.0 and row["obeys"] is True
    # The same text, and the kart does not obey.
    assert measure_arm("opposite place", PATHS["left"][16:], base, right.reasoning, left)["obeys"] is False
    assert measure_arm("opposite place", PATHS["right"][16:], base, right.reasoning, left)["obeys"] is True
    assert measure_arm("none", base, base, "", left)["obeys"] is None
    assert measure_arm("again", base, base, left.reasoning, left)["moved_m"] == 0.0
    assert measure_arm("true", straight(2.0)[16:], base, left.reasoning, left)["off_road"] is True
    assert measure_arm("true", base, base, "", left.model_copy(update={"road": None}))["off_road"] is None


def test_spread_of_the_sampler() -> None:
    draws = np.stack([straight(aside)[16:] for aside in (-0.6, 0.6)])
    assert spread_of(draws)["left_3s_m"] == pytest.approx(0.6) and spread_of(draws)["faster_3s_mps"] < 0.05


def test_arms_are_means_with_intervals_over_stretches() -> None:
    samples = [sample_of(words, number) for number in range(8) for words in ("left", "right")]
    rows = []
    for number, sample in enumerate(samples):
        path = PATHS["left" if number % 4 else "right"][16:]
        rows.append(
            {"arm": "opposite place", "id": sample.id, "text": ""}
            | measure_arm("opposite place", path, PATHS["usual"][16:], sample.reasoning, sample)
        )
    found = summarise_arms(rows, samples)["opposite place"]
    obeys = found["obeys"]
    assert obeys["of"] == 16 and 0.0 < obeys["low"] < obeys["mean"] < obeys["high"] < 1.0
    assert found["off_road"]["mean"] == 0.0 and found["moved_most_m"] == pytest.approx(1.0)
    [row] = arm_rows({"before": {"opposite place": found}})
    assert row["obeys"].endswith("%") and " to " in row["obeys (95 %)"] and row["left, m"].count(" ") == 2


def test_few_groups_have_no_interval() -> None:
    measure = Measure.of(np.arange(8.0))
    assert mean_interval(measure, Groups(np.arange(8) // 3, 3, "threes")) == (None, None)
    low, high = mean_interval(measure, Groups(np.arange(8), 8, "ones"))
    assert low is not None and high is not None and low < 3.5 < high
