"""Instructions to karts under way: who obeys is told from who does not, and nothing but the plans is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.comparison.deviation import measure
from closed_loop.comparison.film import film_pictures, write_film
from closed_loop.comparison.instructed import SCRIPT, Script, Usual, measure_script, script_table, script_words
from closed_loop.comparison.rollout import Rollout, RolloutConfig, drive_many
from closed_loop.comparison.runs import drive_table
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig, speed_profile
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego
from collector.reasoning.instructions import read_instruction
from finetune.policy import Observation, Plan

SMALL = (96, 54)
SIDE_M = 0.8
ORDERS = ("keep left", "slower", "right brisk", "turn left", "middle")


class Listening:
    """Knows one kart's world and plans along the line that it was asked for, at that pace; or says so and does not."""

    cameras, takes_instructions = "mono", True

    def __init__(self, world: World, obeys: bool = True) -> None:
        self.world, self.obeys = world, obeys
        self.speed = speed_profile(world.course, ExpertConfig(max_speed_mps=3.0))
        self.told: list[str] = []

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        [seen] = observations
        asked = read_instruction(seen.instruction)
        self.told.append(seen.instruction)
        line_m = {"left": SIDE_M, "right": -SIDE_M}.get(asked.line, 0.0) * self.obeys
        scale = {"slow": 0.6, "brisk": 1.25}.get(asked.pace, 1.0) if self.obeys else 1.0
        course, station = self.world.course, self.world.station_m
        side, speed, places = self.world.lateral_m, self.world.speed_mps, []
        for _ in range(64):
            wanted = scale * float(course.at(station, self.speed))
            speed += float(np.clip(wanted - speed, -0.2, 0.1))
            station, side = station + 0.1 * speed, side + 0.1 * (line_m - side)
            places.append(course.pose_at(station, side))
        text = f"{asked.beginning or 'On we go'}, as asked."
        return [Plan(seen.stamp_ns, to_ego(np.array(places), self.world.pose), text)]

    def plan(self, observation: Observation) -> Plan:
        return self.plan_many([observation])[0]


def driven(config: RolloutConfig, course: Course, *, obeys: bool = True) -> tuple[Rollout, Listening]:
    world = World(course, 0)
    policy = Listening(world, obeys)
    [rollout] = drive_many([world], policy, [config])
    return rollout, policy


@pytest.fixture(scope="module")
def course() -> Course:
    return course_named("city")


@pytest.fixture(scope="module")
def usual(course: Course) -> Rollout:
    return driven(RolloutConfig(image_px=SMALL), course)[0]


@pytest.mark.parametrize("obeys", [True, False])
def test_who_obeys_is_told_from_who_only_says_so(course: Course, usual: Rollout, obeys: bool) -> None:
    script = Script(ORDERS, 8.0, 4.0)
    config = RolloutConfig(image_px=SMALL, instructions=script.part(0, 1), laps=9.0, max_time_s=script.duration_s(1))
    rollout, policy = driven(config, course, obeys=obeys)
    pairs = [(each, measure(each.t_s, each.poses, course)) for each in (rollout, usual)]
    found = measure_script(script, pairs[:1], pairs[1:], course)
    assert found["not_given"] == 0 and found["deviation"]["off_track_events"] == 0
    rows = {row["text"]: row for row in found["instructions"]}
    assert tuple(rows) == ORDERS
    assert {text: row["obeyed"] for text, row in rows.items()} == {
        "keep left": obeys, "slower": obeys, "right brisk": obeys, "turn left": None, "middle": True
    }  # fmt: skip
    # The text says it either way, the plans only where they obey.
    assert all(row["text_share"] > 0.95 for row in rows.values())
    for text in ("keep left", "slower", "right brisk"):
        assert (rows[text]["plan_share"] > 0.7) == obeys
    assert rows["keep left"]["offset_m"] == pytest.approx(SIDE_M if obeys else 0.0, abs=0.1)
    assert rows["right brisk"]["offset_m"] == pytest.approx(-SIDE_M if obeys else 0.0, abs=0.15)
    assert rows["slower"]["speed_share"] == pytest.approx(0.6 if obeys else 1.0, abs=0.06)
    if obeys:
        assert 0.3 < rows["keep left"]["after_s"] < 5.0
    told = [text for number, text in enumerate(policy.told) if number == 0 or policy.told[number - 1] != text]
    assert told == ["", *(part for order in ORDERS for part in (read_instruction(order).beginning, ""))]
    row = {"variant": "adapter-mono", "instructed": found}
    table = script_table([row, {"variant": "expert"}])
    assert table is not None and [each[1] for each in table.rows] == [
        "left",
        "slow",
        "right brisk",
        "turn left",
        "middle",
        "all",
    ]
    assert table.rows[-1][3] == ("4 of 4" if obeys else "1 of 4")


def test_a_drive_that_ends_early_leaves_instructions_out(course: Course, usual: Rollout) -> None:
    script = Script(ORDERS, 8.0, 4.0)
    config = RolloutConfig(image_px=SMALL, instructions=script.part(0, 1), laps=9.0, max_time_s=21.0)
    rollout, _ = driven(config, course)
    pair = (rollout, measure(rollout.t_s, rollout.poses, course))
    found = measure_script(script, [pair], [(usual, measure(usual.t_s, usual.poses, course))], course)
    assert (len(found["instructions"]), found["not_given"]) == (1, 4)


def test_an_instruction_lifts_no_limit(course: Course) -> None:
    limit_mps = 2.0
    driver = DriverConfig(controller=replace(ControllerConfig(), max_speed_mps=limit_mps))
    told = RolloutConfig(image_px=SMALL, driver=driver, instructions=((3.0, "faster"),), laps=9.0, max_time_s=15.0)
    rollout, policy = driven(told, course)
    assert "Drive briskly, as asked." in policy.told
    assert rollout.speed_mps.max() <= limit_mps + 0.1


def test_the_script_is_dealt_out(course: Course) -> None:
    script = Script(SCRIPT, 8.0, 4.0)
    parts = [script.part(start, 3) for start in range(3)]
    assert sorted(text for part in parts for _, text in part if text) == sorted(SCRIPT)
    assert len(SCRIPT) >= 20
    for part in parts:
        times = [at_s for at_s, _ in part]
        assert times == sorted(times) and times[-1] <= script.duration_s(3)
    assert all(not read_instruction(text).is_usual for text in SCRIPT)


def test_usual_is_the_median_of_the_drives(course: Course, usual: Rollout) -> None:
    pair = (usual, measure(usual.t_s, usual.poses, course))
    line = Usual.of([pair], course)
    late = usual.t_s > 8.0
    place, speed = line.at(pair[1].station_m[late])
    assert np.abs(place - usual.lateral_m[late]).max() < 0.1
    assert np.abs(speed - usual.speed_mps[late]).max() < 0.3


class Deaf(Listening):
    takes_instructions = False


def test_who_takes_no_instructions_is_not_given_any(course: Course) -> None:
    world = World(course, 0)
    with pytest.raises(MonoError, match="takes none"):
        drive_many([world], Deaf(world), [RolloutConfig(image_px=SMALL, instructions=((1.0, "keep left"),))])
    with pytest.raises(MonoError, match="takes none"):
        drive_many([world], ExpertConfig(), [RolloutConfig(image_px=SMALL, instructions=((1.0, "keep left"),))])


def test_a_film_shows_a_picture_per_plan(course: Course, usual: Rollout, tmp_path: Path) -> None:
    table = drive_table(usual, measure(usual.t_s, usual.poses, course))
    table = {name: values[:12] if name.startswith("plan_") else values for name, values in table.items()}
    table["plan_reasoning"][3] = "指示どおり左端を走る。" * 20
    told = ((1.0, "keep left"), (2.0, ""))
    path, world = tmp_path / "drive.webm", World(course, 0)
    pictures = list(film_pictures(table, told, course, world.scene))
    assert len(pictures) == 12 and {picture.shape for picture in pictures} == {(456, 1000, 3)}
    # The line of what is asked is another while something is; the map moves with the kart.
    asked = [(picture[360:390, 120:] != pictures[0][360:390, 120:]).any() for picture in pictures]
    assert asked == [1.0 <= stamp_s < 2.0 for stamp_s in table["plan_stamp_s"]]
    assert (pictures[11][:360, 640:] != pictures[9][:360, 640:]).any()
    if write_film(path, table, told, world):
        film = cv2.VideoCapture(str(path))
        frames = 0
        while film.read()[0]:
            frames += 1
        assert frames == 12
    assert not list(tmp_path.glob("*.part*"))


def test_all_stands_for_the_list_wherever_it_is_said() -> None:
    assert script_words(("slower", "all")) == ("slower", *SCRIPT)
    assert script_words(("keep left",)) == ("keep left",)
