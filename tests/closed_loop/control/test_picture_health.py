"""Pictures that show the way ahead are told from those that do not, at every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from closed_loop.control.picture_health import PictureHealth
from closed_loop.simulator.camera import FRONT
from tests.helpers.driver_faults import FAULTS, Fault, Frame, Injected
from tests.helpers.fault_trials import world_of
from tests.helpers.pictures import road_picture

# Not by what they show: by when they come, and as what.
_OTHERWISE = ("stamp", "silent", "encoding", "late", "Hz", "bursts")
PICTURES = [
    fault
    for fault in FAULTS
    if set(fault.changes) == {"frame"} and fault.expected == "brake" and not any(w in fault.name for w in _OTHERWISE)
]
SIZES = [(1920, 1080), (320, 180), (64, 36)]


def pictures(size: tuple[int, int], count: int, step_m: float = 0.5, course: str = "city") -> list[np.ndarray]:
    world, camera = world_of(course), replace(FRONT, width_px=size[0], height_px=size[1])
    return [world.scene.render(camera, world.course.pose_at(30.0 + step_m * index)) for index in range(count)]


@pytest.mark.parametrize("size", SIZES)
def test_a_drive_and_a_stop_are_well(size: tuple[int, int]) -> None:
    health = PictureHealth()
    shown = pictures(size, 60)
    assert [health.judge({"front": each}, 0.5 * index, 0.1 * index) for index, each in enumerate(shown)] == [""] * 60
    assert health.still_s(6.0) == 0.0
    for index in range(20):
        assert not health.judge({"front": shown[-1]}, 29.5, 6.0 + 0.1 * index)
    assert health.still_s(8.0) == pytest.approx(2.0, abs=0.11)


def test_plain_asphalt_is_a_picture() -> None:
    """On city, 167 m along, much of the lower third is of one colour."""
    world, health = world_of("city"), PictureHealth()
    stations = np.concatenate([np.arange(0.0, 2.0, 0.5), np.arange(160.0, 172.0, 0.25)])
    shown = [world.scene.render(FRONT, world.course.pose_at(s, 0.3 * np.sin(s / 5.0))) for s in stations]
    verdicts = [
        health.judge({"front": each}, float(s), 0.1 * n)
        for n, (each, s) in enumerate(zip(shown, stations, strict=True))
    ]
    # The one jump from the start to there may be noticed, and is.
    assert not any(verdicts[:4]) and not any(verdicts[5:])


@pytest.mark.parametrize("fault", PICTURES, ids=lambda fault: fault.name)
def test_each_kind_is_refused_and_forgiven(fault: Fault) -> None:
    if fault.name == "camera, upper half black":
        pytest.skip("the road is in the lower half: such pictures are driven by, see docs/safety.md")
    health, injected = PictureHealth(), Injected(fault)
    verdicts = []
    for index, image in enumerate(pictures((320, 180), 24)):
        since_s = 0.1 * (index - 8) if 8 <= index < 16 else None
        for frame in injected.passed("frame", since_s, Frame(index * 100_000_000, image)):
            verdicts += [health.judge({"front": frame.image}, 0.5 * index, 0.1 * index)]
    assert verdicts[:8] == [""] * 8
    # A picture that only trembles is one that stands still after a metre.
    assert all(verdicts[12:16]), verdicts
    assert verdicts[17:] == [""] * 7, verdicts


def test_a_camera_that_is_dark_from_the_start_is_refused_and_tiny_pictures_are() -> None:
    health = PictureHealth()
    assert "black" in health.judge({"front": np.zeros((36, 64, 3), np.uint8)}, 0.0, 0.0)
    assert "4 x 4" in health.judge({"front": np.zeros((4, 4, 3), np.uint8)}, 0.0, 0.0)
    assert health.judge({"front": road_picture(0.0)}, 0.0, 0.1) == ""
