"""Counterfactual pairs of the simulator: one frame, several futures, and each text true of its own."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.cli import main
from closed_loop.pairs.branching import MANNERS, drive_on
from closed_loop.pairs.command import PairsConfig, make_pairs
from closed_loop.simulator.expert import Expert
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.dataset.schema import Sample, load_manifest, read_samples
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim
from collector.reasoning.manners import Manner

SMALL = {"courses": "random:3,city", "frames": 24, "futures": 8, "image_width": 96, "image_height": 54}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "dataset"
    make_pairs(PairsConfig(out=out, val_fraction=0.4, **SMALL), show_progress=False)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def pairs(folder: Path) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in read_samples(folder):
        assert sample.pair
        found.setdefault(sample.pair, []).append(sample)
    return found


def test_every_text_agrees_with_its_path_by_the_one_filter(pairs: dict[str, list[Sample]]) -> None:
    for sample in (one for pair in pairs.values() for one in pair):
        motion = measure_motion(sample.future_array(), sample.dt_s, road=sample.local_road)
        verdict = check_claim(parse_claim(sample.reasoning), motion)
        assert verdict.keep and verdict.lateral == "agree", (sample.reasoning, verdict.reason)
        assert "unjudged" not in (verdict.position, verdict.pace)


def test_another_manners_text_is_refused_over_the_path(pairs: dict[str, list[Sample]]) -> None:
    asked = 0
    for pair in pairs.values():
        by_side = {one.claim.position: one for one in pair if one.manner in ("left", "right")}
        if len(by_side) == 2:
            left, right = by_side["left"], by_side["right"]
            for text, path in ((left, right), (right, left)):
                motion = measure_motion(path.future_array(), road=path.local_road)
                assert check_claim(parse_claim(text.reasoning), motion).position == "contradict"
                asked += 1
    assert asked >= 4


def test_a_pair_has_one_frame_one_past_one_speed_and_one_split(pairs: dict[str, list[Sample]], folder: Path) -> None:
    assert len(pairs) == SMALL["frames"]
    for pair in pairs.values():
        assert len({(one.frames, one.history, one.speed_mps, one.split, one.road) for one in pair}) == 1
        assert len({one.id for one in pair}) == len(pair) >= 3
        # The same pose, the same speed, the same commands under way: a tenth of a second later all are still together.
        first = np.array([one.future[0] for one in pair])
        assert np.ptp(first[:, :2], axis=0).max() < 0.02
        assert cv2.imread(str(folder / pair[0].file_name)).shape == (54, 96, 3)
    assert {one.split for pair in pairs.values() for one in pair} == {"train", "val"}
    lines = [sample.pair for sample in read_samples(folder)]
    assert sum(one != other for one, other in pairwise(lines)) == len(pairs) - 1, "a pair stands together"


def test_paths_stay_on_the_road_and_differ_where_the_texts_do(pairs: dict[str, list[Sample]]) -> None:
    apart: list[float] = []
    for pair in pairs.values():
        for one in pair:
            assert one.local_road is not None
            assert np.nanmax(np.maximum(*one.local_road.beyond_edges(one.future_array()))) < 0.0
        for one, other in combinations(pair, 2):
            gap_m = float(np.linalg.norm(np.subtract(one.future[29][:2], other.future[29][:2])))
            if {one.claim.position, other.claim.position} == {"left", "right"}:
                apart.append(gap_m)
                assert gap_m > 0.5, (one.reasoning, other.reasoning)
            if {one.claim.pace, other.claim.pace} == {"slow", "brisk"}:
                assert gap_m > 1.5, (one.reasoning, other.reasoning)
    assert len(apart) >= 10 and np.median(apart) > 1.5


def test_what_the_road_does_not_allow_is_driven_as_usual(pairs: dict[str, list[Sample]]) -> None:
    answered = 0
    for pair in pairs.values():
        usual = [one for one in pair if one.manner == "usual"]
        for one in usual:
            if ", but " in one.reasoning:
                answered += 1
                assert any(", but " not in other.reasoning and other.future == one.future for other in usual)
    assert answered >= SMALL["frames"] // 2


def test_the_manifest_counts_manners_and_claims(folder: Path, pairs: dict[str, list[Sample]]) -> None:
    counts = load_manifest(folder)["counts"]
    samples = [one for pair in pairs.values() for one in pair]
    assert counts["kept"] == len(samples) and counts["seen"] == SMALL["frames"]
    assert counts["seen"] + counts["paired"] == counts["kept"] + sum(counts["rejected"].values())
    for manner in ("usual", "left", "slow"):
        assert counts["manners"][manner] == sum(one.manner == manner for one in samples) > 0
    assert counts["claims"]["left"] == sum(one.claim.position == "left" for one in samples)
    assert {"left", "right", "slow", "brisk", "out left", "out right"} <= {*counts["claims"]}


def test_the_page_shows_one_frame_with_its_futures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    page = tmp_path / "view.html"
    assert main(["view", str(folder), "-o", str(page), "--samples", "6"]) == 0
    text = page.read_text()
    assert text.count('class="card kept"') <= 6 and text.count("data-manner=") > 12
    assert "futures; a ring" in text and "manner</h3>" in text and "place or pace claimed" in text


def test_the_same_seed_gives_the_same_pairs(tmp_path: Path) -> None:
    texts = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        config = PairsConfig(out=tmp_path / name, seed=seed, **(SMALL | {"frames": 3}))  # type: ignore[arg-type]
        make_pairs(config, show_progress=False)
        texts.append((tmp_path / name / "metadata.jsonl").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_looking_ahead_leaves_the_world_as_it_is() -> None:
    from closed_loop.course.design import course_named

    world, untouched = (World(course_named("city"), 3) for _ in range(2))
    expert, other = Expert(world.course), Expert(world.course)
    for step in range(300):
        for each, driver in ((world, expert), (untouched, other)):
            each.step(driver.command(each.state, each.time_s))
        if step % 100 == 99:
            for manner in MANNERS:
                drive_on(world, expert, manner)
    assert world.state == untouched.state
    poses, beyond_m = drive_on(world, expert, Manner(act="stop"))
    assert beyond_m < 0.0 and np.linalg.norm(poses[-1, :2] - poses[-10, :2]) < 0.01


def test_an_unknown_course_and_a_full_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MonoError):
        make_pairs(PairsConfig(out=tmp_path / "x", courses="nowhere", frames=1), show_progress=False)
    assert not (tmp_path / "x" / "metadata.jsonl").exists()
    with pytest.raises(MonoError, match="not empty"):
        make_pairs(PairsConfig(out=folder, frames=1), show_progress=False)
    with pytest.raises(MonoError, match="no course"):
        PairsConfig(out=tmp_path / "x", courses=" , ")
