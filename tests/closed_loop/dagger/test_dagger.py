"""A driver that errs is corrected where it came to: in the simulator, and from a bag by a reference line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.course.design import course_named
from closed_loop.dagger.bags import ELSEWHERE
from closed_loop.dagger.command import dagger
from closed_loop.dagger.config import DaggerConfig
from closed_loop.dagger.states import SLOW
from closed_loop.dagger.watched import WatchedWorld
from closed_loop.pairs.branching import OFF_ROAD, drive_on
from closed_loop.simulator.expert import Expert, ExpertConfig
from closed_loop.simulator.pacing import is_due
from collector.common.errors import MonoError
from collector.dataset.schema import Sample, load_manifest, read_samples
from collector.geometry.poses import interpolate_poses, to_map
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim
from collector.reasoning.instructions import read_instruction
from collector.reasoning.manners import Manner
from collector.ros.topics import CONTROL_HZ
from finetune.policy import Observation, Plan
from tests.helpers.building import build
from tests.helpers.constant_curvature import ConstantCurvature
from tests.helpers.synthetic_bag import START_NS, SyntheticDrive, write_bag

ADAPTER = Path("adapter")  # not read where the driver is given
BESIDE_M = 0.7


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From a driver that goes straight on wherever the road bends."""
    out = tmp_path_factory.mktemp("dagger") / "dataset"
    config = DaggerConfig(out=out, adapter=ADAPTER, courses="city,random:3", laps=0.06, val_fraction=0.5)
    dagger(config, lambda _: ConstantCurvature(speed_mps=3.0), show_progress=False)
    return out


def test_samples_are_what_the_expert_does_and_says(driven: Path) -> None:
    samples = list(read_samples(driven))
    assert len(samples) > 15 and {sample.split for sample in samples} == {"train", "val"}
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        motion = measure_motion(sample.future_array(), sample.dt_s)
        assert check_claim(parse_claim(sample.reasoning), motion).keep
        step_m = float(np.hypot(*sample.future[0][:2]))
        assert step_m == pytest.approx(0.1 * sample.speed_mps, abs=0.03), "it goes on from the kart's own state"
        assert sample.history[-1] == (0.0, 0.0, 0.0) and sample.history[0][0] < -1.0
        assert cv2.imread(str(driven / sample.file_name)).shape == (360, 640, 3)
    # A kart that goes straight on is to be turned back more than it has turned.
    assert max(abs(sample.future[19][2]) for sample in samples) > 0.5


class Told(ConstantCurvature):
    """Hears what it is told, and goes straight on."""

    takes_instructions = True

    def __init__(self) -> None:
        super().__init__(speed_mps=3.0)
        self.told: list[str] = []

    def plan(self, observation: Observation) -> Plan:
        self.told.append(observation.instruction)
        return super().plan(observation)


def test_a_told_drive_becomes_pairs_of_what_was_asked_and_what_is_usual(tmp_path: Path) -> None:
    driver = Told()
    told = {"instructions": ("keep left", "slower"), "hold_s": 5.0, "pause_s": 1.0, "straight_every_s": 0.5}
    config = DaggerConfig(out=tmp_path / "told", adapter=ADAPTER, courses="city", val_fraction=0.0, **told)  # type: ignore[arg-type]
    dagger(config, lambda _: driver, show_progress=False)
    assert set(driver.told) == {"", *(read_instruction(each).beginning for each in config.instructions)}
    samples, counts = list(read_samples(config.out)), load_manifest(config.out)["counts"]
    assert {sample.manner for sample in samples} == {"usual", "left", "slow"}
    pairs: dict[str, list[Sample]] = {}
    for sample in samples:
        assert sample.local_road is not None
        motion = measure_motion(sample.future_array(), sample.dt_s, road=sample.local_road)
        assert check_claim(parse_claim(sample.reasoning), motion).keep, sample.reasoning
        pairs.setdefault(sample.pair or "", []).append(sample)
    asked = [each for each in pairs.values() if len({one.manner for one in each}) > 1]
    assert len(asked) > 5 and "" not in pairs
    for each in asked:
        assert len({one.frames for one in each}) == len({one.history for one in each}) == 1
        assert len({one.reasoning for one in each}) == len(each)
    # A driver is told nothing at first, and nothing is asked for in between.
    first = min(samples, key=lambda sample: sample.stamp_ns)
    assert {one.manner for one in pairs[first.pair or ""]} == {"usual"}
    states, rejected = load_manifest(config.out)["correction"]["states"], counts["rejected"]
    looked = sum(states["reached"].values()) - sum(states["taken"].values())
    assert looked == sum(count for why, count in rejected.items() if why.startswith("thinned"))
    futures = counts["kept"] + counts["quarantined"] + sum(rejected.values()) - looked - rejected.get(SLOW, 0)
    assert futures >= sum(states["taken"].values())


def test_every_state_is_accounted_for(driven: Path) -> None:
    manifest = load_manifest(driven)
    counts, states = manifest["counts"], manifest["correction"]["states"]
    assert counts["seen"] == counts["kept"] + counts["quarantined"] + sum(counts["rejected"].values())
    taken = sum(states["taken"].values())
    assert taken == counts["kept"] + counts["quarantined"] + counts["rejected"].get(OFF_ROAD, 0)
    thinned = sum(count for why, count in counts["rejected"].items() if why.startswith("thinned"))
    assert sum(states["reached"].values()) - taken == thinned > 0
    assert states["taken"]["strayed"] > 5 and manifest["validation"] == ["random:3"]


def test_the_expert_beside_the_driver_knows_what_is_under_way() -> None:
    """At every state it would give the very command of an expert who has driven all along."""
    course = course_named("city")
    expert, before, forgetful = Expert(course), Expert(course), Expert(course)
    same, other = [], []

    def look(world: WatchedWorld) -> None:
        one, two, three = (
            each.twin().command(world.state, world.time_s).steer_rad for each in (world.expert, before, forgetful)
        )
        same.append(abs(one - two))
        other.append(abs(one - three))

    world = WatchedWorld("a drive", course, 0, ExpertConfig(), look)
    world.reset(20.0, 0.8, 0.1, 3.0)
    for step in range(500):
        if is_due(step, CONTROL_HZ, world.config.physics_hz):
            before = expert.twin()
            command = expert.command(world.state, world.time_s)
        world.step(command)
    assert len(same) == 35 and max(same) < 1e-9 and max(other) > 0.01


def test_a_kart_put_elsewhere_has_no_history() -> None:
    stamps = []
    world = WatchedWorld("a drive", course_named("city"), 0, ExpertConfig(), lambda it: stamps.append(it.stamp_ns))
    world.reset(10.0, speed_mps=3.0)
    for step in range(320):
        if step == 200:
            world.recover()
        world.step(world.expert.twin().command(world.state, world.time_s))
    assert stamps == [1_500_000_000 + 100_000_000 * index for index in range(5)]


def beside(course_name: str) -> SyntheticDrive:
    """A drive that keeps well to the left of the line."""
    course = course_named(course_name)
    t_s = np.arange(0.0, 20.0, 0.04)
    poses = np.array(course.pose_at(4.0 * t_s, BESIDE_M))
    speeds = np.hypot(*np.gradient(poses[:, :2], t_s, axis=0).T)
    return SyntheticDrive(START_NS + np.round(t_s * 1e9).astype(np.int64), poses, speeds)


def test_a_recorded_drive_is_led_back_to_the_line(tmp_path: Path) -> None:
    drive = beside("city")
    bag = write_bag(tmp_path / "bag", drive)
    report, choice = dagger(
        DaggerConfig(out=tmp_path / "corrected", bags=(bag,), courses="city", val_fraction=0.0), show_progress=False
    )
    report.check_sum()
    samples = list(read_samples(tmp_path / "corrected"))
    assert len(samples) == report.kept > 20
    assert load_manifest(tmp_path / "corrected")["correction"] == {"expert_on": "city", "states": choice.facts()}
    _, usual, _ = build(tmp_path, bag)
    recorded = {sample.stamp_ns: sample for sample in usual}
    for sample in samples:
        as_driven = recorded[sample.stamp_ns]
        assert (sample.history, sample.frames) == (as_driven.history, as_driven.frames)
        assert abs(beside_m(drive, as_driven) - BESIDE_M) < 0.1
        assert abs(beside_m(drive, sample)) < 0.25, "led back"


def test_a_drive_on_another_map_gives_no_sample(tmp_path: Path) -> None:
    far = write_bag(tmp_path / "far", beside("city").moved(500.0, 0.0, 0.0))
    config = DaggerConfig(out=tmp_path / "out", bags=(far,), courses="city", val_fraction=0.0)
    report, _ = dagger(config, show_progress=False)
    assert report.kept == 0 < report.rejected[ELSEWHERE]


def beside_m(drive: SyntheticDrive, sample: Sample) -> float:
    """Where a sample's future ends, beside the line of city."""
    pose = interpolate_poses(drive.stamps_ns, drive.poses, np.array([sample.stamp_ns]))[0]
    end = to_map(sample.future_array()[-1], pose)
    return float(course_named("city").project(end[:2]).lateral_m)


def test_what_cannot_be_corrected_is_refused(tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    for wrong, said in (
        ({}, "no driver"),
        ({"adapter": ADAPTER, "courses": " , "}, "no course"),
        ({"bags": (tmp_path,)}, "8 courses"),
        ({"bags": (tmp_path,), "adapter": ADAPTER, "courses": "city"}, "adapter and bags"),
        ({"bags": (tmp_path,), "courses": "city", "instructions": ("slower",)}, "recorded drives"),
        ({"adapter": ADAPTER, "instructions": ("fly",)}, "not understood"),
    ):
        with pytest.raises(MonoError, match=said):
            DaggerConfig(out=out, **wrong)  # type: ignore[arg-type]
    with pytest.raises(MonoError, match="no adapter"):
        dagger(DaggerConfig(out=out, adapter=empty), show_progress=False)
    assert not out.exists()


def test_a_future_that_leaves_the_road_is_none() -> None:
    world = WatchedWorld("a drive", course_named("city"), 0, ExpertConfig(), lambda _: None)
    world.reset(10.0, 0.0, 1.4, 5.0)
    assert drive_on(world, world.expert, Manner())[1] > 0.0
