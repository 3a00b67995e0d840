"""One kart on one or more courses: laps, edges, episodes."""

import weakref
from itertools import pairwise

import numpy as np
import pytest

from closed_loop.control.off_track import beyond_edges
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertPool
from closed_loop.simulator.world import COURSE_SPACING_M, EPISODE_ERROR_S, World, WorldConfig
from collector.common.errors import MonoError
from collector.vehicle.kart import Command


def drive_on(world: World, seconds: float, pool: ExpertPool | None = None) -> list[tuple]:
    """Let the expert drive; returns time, episode, lateral offset, disturbed, pose every 50 ms."""
    pool, rows, command = pool or ExpertPool(), [], Command(0.0, 0.0)
    for step in range(round(seconds * world.config.physics_hz)):
        if step % 5 == 0:
            rows.append((world.time_s, world.episode, world.lateral_m, world.disturbance is not None, *world.pose))
        if step % 2 == 0:
            command = pool.for_course(world.course).command(world.state, world.time_s, world.disturbance)
        world.step(command)
    return rows


def beyond_edge_m(world: World) -> float:
    """How far the kart's outline reaches over the road's edge, by the rule of all who ask."""
    left_m, right_m = beyond_edges(world.course, world.pose, world.station_m, world.config.vehicle)
    return float(max(left_m, right_m))


def test_laps_and_progress_count_through_the_start_line() -> None:
    course = course_named("city")
    world = World(course, 0)
    world.reset(course.length_m - 4.0, speed_mps=3.0)
    assert world.lap == 0 and world.progress_m == 0.0
    drive_on(world, 3.0)
    assert world.station_m < 20.0 and 8.0 < world.progress_m < 20.0  # over the line, no jump
    world.reset(5.0, speed_mps=3.0)
    drive_on(world, 100.0)
    assert world.lap == 1 and 1.0 < world.progress < 1.5
    assert world.time_s == pytest.approx(103.0)


def test_worlds_of_one_course_and_day_look_at_one_scene_while_they_are_in_use() -> None:
    course = course_named("city")
    one, beside, other_day = (World(course, seed) for seed in (4, 4, 5))
    beside.reset(30.0)
    assert one.scene is beside.scene and one.scene is not other_day.scene
    kept = one.render(FRONT)
    gone = weakref.ref(one.scene)
    del one, beside
    assert gone() is None, "a painted course is 64 MB"
    again = World(course, 4)
    assert np.array_equal(again.render(FRONT), kept)


def test_a_kart_is_off_the_road_as_soon_as_one_corner_is() -> None:
    line = np.stack([np.arange(0.0, 60.0, 0.5), np.zeros(120)], axis=1)
    world = World(Course("line", line, False, 3.0, 2.0), 0)
    for lateral, heading, off in (
        (2.3, 0.0, False),
        (2.4, 0.0, True),
        (-1.3, 0.0, False),
        (-1.4, 0.0, True),
        (2.0, 0.0, False),
        (2.0, 0.3, True),
    ):
        world.reset(20.0, lateral, heading)
        assert (beyond_edge_m(world) > 0.0) is off, (lateral, heading)
    world.reset(20.0, 2.5)
    assert beyond_edge_m(world) == pytest.approx(0.15)
    world.recover(1.0)
    assert world.lateral_m == 0.0 and world.speed_mps == 1.0 and beyond_edge_m(world) < 0.0


def test_starts_are_placed_as_asked() -> None:
    course = course_named("city")
    world = World(course, 0)
    world.reset(100.0, 0.8, 0.1, 2.5)
    foot = course.project(world.pose[:2])
    assert foot.lateral_m == pytest.approx(0.8, abs=0.02) and world.speed_mps == 2.5
    assert world.pose[2] == pytest.approx(course.pose_at(100.0)[2] + 0.1)


def test_episodes_walk_over_the_courses_and_places_never_coincide() -> None:
    courses = [course_named(f"random:{seed}") for seed in (31, 32, 33)]
    world = World(courses, 7, WorldConfig(episode_s=4.0))
    rows = drive_on(world, 14.5)
    assert [row[1] for row in rows if abs(row[0] % 4.0 - 2.0) < 0.01] == [0, 1, 2, 3]
    for _, episode, *_, x, _, _ in rows:
        assert abs(x - COURSE_SPACING_M * (episode % 3)) < COURSE_SPACING_M / 2.0
    starts = [row for before, row in pairwise(rows) if row[1] != before[1]]
    assert len({round(row[2], 3) for row in starts}) == 3  # other offsets each time
    assert world.time_s == pytest.approx(14.5)  # the clock never turns back
    assert np.array_equal(world.courses[1].xy, courses[1].shifted((COURSE_SPACING_M, 0.0)).xy)


def test_disturbed_phases_begin_an_episode_and_recover_on_the_road() -> None:
    courses = [course_named(f"random:{seed}") for seed in (41, 42)]
    world = World(courses, 1, WorldConfig(episode_s=7.0, disturbed_share=1.0))
    rows = np.array(drive_on(world, 42.0))
    since = rows[:, 0] % 7.0
    disturbed = rows[:, 3] > 0.5
    shortest, longest = EPISODE_ERROR_S
    assert disturbed[since < shortest - 0.1].all() and not disturbed[since > longest + 0.1].any()
    assert np.abs(rows[disturbed, 2]).max() > 0.7
    assert np.abs(rows[since > 6.0, 2]).max() < 0.25  # back on the line
    clean = World(courses, 1, WorldConfig(episode_s=7.0, disturbed_share=0.0))
    assert not any(row[3] for row in drive_on(clean, 14.0))


def test_continuous_laps_can_be_disturbed_now_and_then() -> None:
    world = World(course_named("city"), 3, WorldConfig(disturb_every_s=5.0))
    rows = drive_on(world, 40.0)
    disturbed = np.array([row[3] for row in rows])
    assert 0.05 < disturbed.mean() < 0.6
    assert (np.diff(disturbed.astype(int)) == 1).sum() >= 3


def test_the_seed_decides_everything() -> None:
    courses = [course_named(f"random:{seed}") for seed in (51, 52)]
    config = WorldConfig(episode_s=3.0)
    one, two, other = (drive_on(World(courses, seed, config), 8.0) for seed in (4, 4, 5))
    assert one == two
    assert one != other


def test_the_world_shows_the_course_the_kart_is_on() -> None:
    courses = [course_named(f"random:{seed}") for seed in (61, 62)]
    world = World(courses, 2, WorldConfig(episode_s=1.0, disturbed_share=0.0))
    first = world.render(FRONT)
    assert world.scene.course is world.courses[0]
    drive_on(world, 1.1)
    assert world.episode == 1 and world.scene.course is world.courses[1]
    picture = world.render(FRONT).astype(int)
    assert (picture != first).mean() > 0.5
    # Asphalt before the kart: the placed kart really is on the second course's texture.
    patch = picture[330:350, 280:360]
    assert np.abs(patch[..., 0] - patch[..., 1]).mean() < 25


def test_a_world_needs_a_course() -> None:
    with pytest.raises(MonoError, match="without courses"):
        World([], 0)
