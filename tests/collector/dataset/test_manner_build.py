"""Bags whose manners were marked: neighbouring laps tell where the road's middle is, and show other futures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from collector.bags.reader import typestore
from collector.dataset.schema import Sample, load_manifest
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim
from collector.ros.topics import AWSIM_STATUS, CAMERA_JPEG, MANNER, ODOMETRY, VELOCITY_STATUS
from tests.helpers.building import build
from tests.helpers.synthetic_bag import SECOND, START_NS, SyntheticDrive, write_bag

RADIUS_M, SPEED_MPS, STEP_S = 14.0, 4.0, 0.04
TOPICS = (CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS, AWSIM_STATUS, MANNER)
# From when on what was asked: usual laps first, then others, each beginning where the one before was usual again.
MARKS = ((0.0, "usual"), (46.0, "left"), (56.0, "usual"), (70.0, "right because cones stand on the left"),
         (80.0, "usual"), (94.0, "slow"), (106.0, "usual"))  # fmt: skip
SIDE_M = {"left": 0.9, "right": -0.9}


def drive(marks: Sequence[tuple[float, str]] = MARKS, end_s: float = 120.0) -> SyntheticDrive:
    """Round a circle to the left, beside its line and slower as it is asked, within two seconds of the asking."""
    t = np.arange(0.0, end_s, STEP_S)
    asked = np.searchsorted([at for at, _ in marks], t, side="right") - 1
    words = [marks[k][1].split()[0] if k >= 0 else "usual" for k in asked]
    goals = np.array([(SIDE_M.get(word, 0.0), SPEED_MPS * (0.6 if word == "slow" else 1.0)) for word in words])
    aside, speed, rate_mps = np.zeros(len(t)), np.full(len(t), SPEED_MPS), 0.0
    for n in range(1, len(t)):
        wanted = np.clip(1.5 * (goals[n, 0] - aside[n - 1]), -0.6, 0.6)
        rate_mps += float(np.clip(wanted - rate_mps, -1.0 * STEP_S, 1.0 * STEP_S))
        aside[n] = aside[n - 1] + rate_mps * STEP_S
        speed[n] = speed[n - 1] + np.clip(goals[n, 1] - speed[n - 1], -1.5 * STEP_S, 1.5 * STEP_S)
    angle = np.concatenate([[0.0], np.cumsum(speed * STEP_S / (RADIUS_M - aside))[:-1]])
    rest = RADIUS_M - aside
    poses = np.stack([rest * np.sin(angle), RADIUS_M - rest * np.cos(angle), angle], axis=1)
    poses[:, 2] = np.unwrap(np.arctan2(np.gradient(poses[:, 1]), np.gradient(poses[:, 0])))
    return SyntheticDrive(START_NS + np.round(t * 1e9).astype(np.int64), poses, speed)


def mark_cdr(words: str) -> bytes:
    return bytes(typestore().serialize_cdr(typestore().types[MANNER.type](data=words), MANNER.type))


def marked(folder: Path, marks: Sequence[tuple[float, str]] = MARKS, drove: SyntheticDrive | None = None) -> Path:
    extra = [(MANNER.name, START_NS + round(at_s * SECOND) + 1, mark_cdr(words)) for at_s, words in marks]
    return write_bag(folder, drove or drive(), topics=TOPICS, extra=extra)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], Path]:
    folder = tmp_path_factory.mktemp("manners")
    _, samples, out = build(folder, marked(folder / "bag"), stride=2)
    return samples, out


def test_manners_are_said_where_they_are_driven(built: tuple[list[Sample], Path]) -> None:
    samples, out = built
    counts = load_manifest(out)["counts"]
    assert {"usual", "left", "right", "slow"} <= {*counts["manners"]}
    for manner, position, pace in (("left", "left", "none"), ("right", "right", "none"), ("slow", "none", "slow")):
        mine = [one for one in samples if one.manner == manner]
        assert len(mine) >= 20 and {(one.claim.position, one.claim.pace) for one in mine} == {(position, pace)}
    assert all(", since cones stand on the left. " in one.reasoning for one in samples if one.manner == "right")
    assert all(one.claim.position == "none" for one in samples if one.manner == "usual")
    assert counts["kept"] == len(samples) == sum(counts["manners"].values())
    assert (
        counts["kept"] + counts["quarantined"] + sum(counts["rejected"].values()) == counts["seen"] + counts["paired"]
    )
    assert "manner_thresholds" in load_manifest(out)


def test_the_middle_is_where_the_usual_laps_went(built: tuple[list[Sample], Path]) -> None:
    samples, _ = built
    for one in samples:
        road = one.local_road
        if road is None or one.manner == "usual":  # on its way back from elsewhere, perhaps
            continue
        place = measure_motion(one.future_array(), road=road).place
        assert place is not None
        settled = {"left": 0.9, "right": -0.9}.get(str(one.manner), 0.0)
        assert place.offset_m == pytest.approx(settled, abs=0.5)
        assert road.usual_mps == pytest.approx(SPEED_MPS, abs=0.15)
        assert not (road.left_m.any() or road.right_m.any()), "no lap tells where the edges are"


def test_laps_in_other_manners_show_other_futures(built: tuple[list[Sample], Path]) -> None:
    samples, _ = built
    pairs: dict[str, list[Sample]] = {}
    for one in samples:
        if one.pair:
            pairs.setdefault(one.pair, []).append(one)
    assert len(pairs) >= 20
    seen = set()
    for pair in pairs.values():
        assert len(pair) >= 2 and len({(one.frames, one.history, one.split) for one in pair}) == 1
        assert len({one.manner for one in pair}) == len(pair)
        seen |= {one.manner for one in pair}
        for one in pair:
            motion = measure_motion(one.future_array(), road=one.local_road)
            assert check_claim(parse_claim(one.reasoning), motion).keep, one.reasoning
            # It begins where the kart is, and as fast; what differs is taken back without a kink.
            steps = np.linalg.norm(np.diff([(0.0, 0.0, 0.0), *one.future[:8]], axis=0)[:, :2], axis=1)
            assert steps[:2] == pytest.approx(0.1 * one.speed_mps, abs=0.08)
            assert abs(one.future[0][1]) < 0.1
    assert {"left", "right", "slow", "usual"} <= seen


def test_text_of_a_users_own_is_held_against_the_road(tmp_path: Path) -> None:
    bag = marked(tmp_path / "bag")
    _, samples, _ = build(tmp_path, bag, stride=2)
    texts = tmp_path / "texts.jsonl"
    said = "Keep to the left edge. The lane bends left now, so keep the speed and steer left."
    rows = [json.dumps({"stamp_ns": one.stamp_ns, "reasoning": said}) for one in samples if "~" not in one.id]
    texts.write_text("\n".join(rows))
    (tmp_path / "b").mkdir()
    _, kept, out = build(tmp_path / "b", bag, stride=2, reasoning=texts)
    assert kept and {one.manner for one in kept} <= {"left", "usual"}
    refused = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    over_right = [line for line in refused if line["manner"] == "right"]
    assert len(over_right) >= 20
    assert all("claims left of the road, the path runs -0." in line["verdict"]["reason"] for line in over_right)


def test_marks_that_say_no_manner_are_told_and_their_frames_left_out(tmp_path: Path) -> None:
    marks = ((0.0, "usual"), (46.0, "lefft"), (56.0, "usual"))
    report, samples, _ = build(tmp_path, marked(tmp_path / "bag", marks, drive(marks, 70.0)), stride=2)
    assert report.rejected["manner that cannot be read"] >= 20
    assert any("lefft" in note and "left, right, middle" in note for note in report.notes)
    assert {one.manner for one in samples} == {"usual"}


def test_a_manner_that_is_not_driven_is_not_said(tmp_path: Path) -> None:
    usual = drive(((0.0, "usual"),), 70.0)
    marks = ((0.0, "usual"), (46.0, "left"), (56.0, "usual"))
    report, samples, _ = build(tmp_path, marked(tmp_path / "bag", marks, usual), stride=2)
    assert "left" not in {one.manner for one in samples}
    assert sum(count for reason, count in report.rejected.items() if reason.startswith("manner not driven")) >= 20


def test_splits_never_part_a_pair(tmp_path: Path) -> None:
    _, samples, _ = build(tmp_path, marked(tmp_path / "bag"), stride=2, val_fraction=0.25)
    by_pair: dict[str, set[str]] = {}
    for one in samples:
        if one.pair:
            by_pair.setdefault(one.pair, set()).add(one.split)
    assert by_pair and all(len(splits) == 1 for splits in by_pair.values())


def test_an_unmarked_bag_is_as_it_always_was(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive(((0.0, "usual"),), 60.0))
    _, samples, out = build(tmp_path, bag, stride=4)
    assert samples and all((one.manner, one.pair, one.road) == (None, None, None) for one in samples)
    line = json.loads((out / "metadata.jsonl").read_text().splitlines()[0])
    assert {*line} & {"manner", "pair", "road"} == set() and {*line["claim"]} == {"lateral", "longitudinal"}
    assert {*load_manifest(out)["counts"]} & {"manners", "claims", "paired"} == set()


def test_a_place_is_judged_by_laps_that_nobody_marked(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive(((0.0, "usual"), (70.0, "left")), 90.0))
    _, samples, _ = build(tmp_path, bag, stride=4)
    texts = tmp_path / "texts.jsonl"
    said = "Keep to the left edge. The lane bends left now, so keep the speed and steer left."
    texts.write_text("\n".join(json.dumps({"stamp_ns": one.stamp_ns, "reasoning": said}) for one in samples))
    (tmp_path / "b").mkdir()
    _, kept, _ = build(tmp_path / "b", bag, stride=4, reasoning=texts)
    late_ns = START_NS + 68 * SECOND
    assert kept and all(one.stamp_ns > late_ns for one in kept)
    # Nothing tells where the middle is.
    lonely = write_bag(tmp_path / "lonely", drive(((0.0, "usual"),), 16.0))
    (tmp_path / "c").mkdir()
    report, none_kept, _ = build(tmp_path / "c", lonely, reasoning=texts)
    assert report.quarantined and not none_kept
