"""What the driver remembers is right at the image stamp, and forgets what lies before a jump."""

from __future__ import annotations

import numpy as np
import pytest

from closed_loop.control.buffers import CameraFrame, FrameBuffer, PoseBuffer, TimeRate, newest_observation

SECOND = 1_000_000_000
EPOCH = 1_790_000_000 * SECOND  # stamps of a real clock: float64 seconds would lose their low bits
RADIUS_M, SPEED_MPS = 8.0, 4.0


def circle_pose(t_s: float) -> tuple[float, float, float]:
    angle = SPEED_MPS * t_s / RADIUS_M
    return RADIUS_M * np.sin(angle) + 89_630.0, RADIUS_M * (1 - np.cos(angle)) + 43_130.0, angle


def filled(seconds: float = 3.0, speed_mps: float = SPEED_MPS) -> PoseBuffer:
    buffer = PoseBuffer()
    for index in range(int(seconds * 50) + 1):
        buffer.add(EPOCH + index * 20_000_000, circle_pose(index / 50), speed_mps)
    return buffer


def frame(stamp_ns: int, value: int = 0) -> CameraFrame:
    return CameraFrame(stamp_ns, {"front": np.full((4, 6, 3), value, np.uint8)})


def test_history_is_the_circle_just_driven() -> None:
    history = filled().history(EPOCH + int(2.507 * SECOND))
    assert history is not None and history.shape == (16, 3)
    np.testing.assert_allclose(history[-1], 0.0, atol=1e-9)
    angle = -SPEED_MPS * 0.1 * np.arange(15, -1, -1) / RADIUS_M
    expected = np.stack([RADIUS_M * np.sin(angle), RADIUS_M * (1 - np.cos(angle)), angle], axis=-1)
    np.testing.assert_allclose(history, expected, atol=2e-3)


def test_history_waits_for_enough_past_unless_the_kart_stood() -> None:
    assert filled(3.0).history(EPOCH + SECOND) is None
    standing = PoseBuffer()
    for index in range(20):
        standing.add(EPOCH + index * 20_000_000, (5.0, 6.0, 1.0), 0.0)
    history = standing.history(EPOCH + 300_000_000)
    assert history is not None
    np.testing.assert_allclose(history, 0.0, atol=1e-12)


def test_a_frame_newer_than_odometry_waits() -> None:
    poses, frames = filled(2.0), FrameBuffer()
    assert newest_observation(frames, poses) is None
    frames.add(frame(EPOCH + 2 * SECOND + 5_000_000))
    assert newest_observation(frames, poses) is None
    poses.add(EPOCH + 2 * SECOND + 20_000_000, circle_pose(2.02), SPEED_MPS)
    observation = newest_observation(frames, poses)
    assert observation is not None and observation.stamp_ns == EPOCH + 2 * SECOND + 5_000_000
    assert observation.speed_mps == pytest.approx(SPEED_MPS)


@pytest.mark.parametrize("how", ["teleport", "clock back", "gap"])
def test_a_jump_clears_the_past(how: str) -> None:
    buffer = filled(3.0)
    stamp = EPOCH + 3 * SECOND + 20_000_000
    pose = circle_pose(3.02)
    if how == "teleport":
        pose = (pose[0] + 10.0, pose[1], pose[2])
    elif how == "clock back":
        stamp = EPOCH - 60 * SECOND
    else:
        stamp += 5 * SECOND
    assert buffer.add(stamp, pose, SPEED_MPS)
    assert len(buffer) == 1


def test_late_and_repeated_odometry_is_no_jump() -> None:
    buffer = filled(2.0)
    before = len(buffer)
    assert not buffer.add(EPOCH + 2 * SECOND, circle_pose(2.0), SPEED_MPS)
    assert not buffer.add(EPOCH + 2 * SECOND - 20_000_000, circle_pose(1.98), SPEED_MPS)
    assert len(buffer) == before


def test_frames_keep_the_last_four_and_count_the_lost() -> None:
    frames = FrameBuffer()
    for index in (0, 1, 2, 4, 5, 6):
        assert frames.add(frame(EPOCH + index * 100_000_000, index))
    assert not frames.add(frame(EPOCH + 600_000_000))
    assert frames.images()["front"][:, 0, 0, 0].tolist() == [2, 4, 5, 6]
    assert frames.images(1)["front"][:, 0, 0, 0].tolist() == [6]
    assert (frames.received, frames.lost) == (6, 1)
    frames.add(frame(EPOCH + 3 * SECOND, 9))
    assert frames.images()["front"][:, 0, 0, 0].tolist() == [9]
    assert frames.lost == 1 + 23


def test_awsim_frame_rhythm_of_105_ms_counts_as_lossless() -> None:
    frames = FrameBuffer()
    for index in range(50):
        frames.add(frame(EPOCH + index * 105_000_000))
    assert frames.lost == 0


def test_a_standing_kart_is_shown_rolling_and_a_moving_one_as_it_is() -> None:
    frames, standing = FrameBuffer(), PoseBuffer()
    for index in range(20):
        standing.add(EPOCH + index * 20_000_000, (5.0, 6.0, 1.0), 0.2)
    frames.add(frame(EPOCH + 200_000_000))
    seen, shown = newest_observation(frames, standing), newest_observation(frames, standing, rolling_mps=1.5)
    assert seen is not None and shown is not None
    assert shown.speed_mps == 1.5 and shown.stamp_ns == seen.stamp_ns
    np.testing.assert_allclose(shown.history[[0, 14, 15], 0], [-2.25, -0.15, 0.0])
    np.testing.assert_allclose(shown.history[:, 1:], 0.0, atol=1e-12)
    for slower_mps in (0.0, 0.2):
        same = newest_observation(frames, standing, rolling_mps=slower_mps)
        assert same is not None and same.speed_mps == seen.speed_mps
        np.testing.assert_array_equal(same.history, seen.history)


def test_a_slow_kart_is_shown_its_own_way_at_a_speed_the_model_knows() -> None:
    """On a circle at 1 m/s, with a stop on the way and noise while it stood: the same circle, at 3 m/s."""
    radius_m, random = 6.0, np.random.default_rng(4)
    frames, poses, at_s = FrameBuffer(), PoseBuffer(), 0.0
    for index in range(400):
        standing = 300 <= index < 350
        at_s += 0.0 if standing else 0.02
        yaw = at_s / radius_m
        noise = random.normal(0.0, 0.01, 2) if standing else (0.0, 0.0)
        x, y = radius_m * np.sin(yaw) + noise[0], radius_m * (1.0 - np.cos(yaw)) + noise[1]
        poses.add(EPOCH + index * 20_000_000, (x, y, yaw), 0.0 if standing else 1.0)
    frames.add(frame(EPOCH + 398 * 20_000_000))
    seen = newest_observation(frames, poses, rolling_mps=3.0)
    assert seen is not None and seen.speed_mps == 3.0
    back = 0.3 * np.arange(15, -1, -1) / radius_m
    expected = np.stack([-radius_m * np.sin(back), radius_m * (1.0 - np.cos(back)), -back], axis=1)
    np.testing.assert_allclose(seen.history, expected, atol=0.04)
    # It drove for 7 s; a faster one is taken to have come straight before that.
    fast = newest_observation(frames, poses, rolling_mps=8.0)
    assert fast is not None and np.ptp(fast.history[:2, 2]) < 1e-9
    np.testing.assert_allclose(np.hypot(*np.diff(fast.history[:, :2], axis=0).T), 0.8, atol=0.02)


def test_the_way_driven_is_counted_by_speed_and_not_by_noise() -> None:
    poses, random = PoseBuffer(), np.random.default_rng(5)
    for index in range(200):
        x, y = random.normal(0.0, 0.05, 2)
        poses.add(EPOCH + index * 20_000_000, (x, y, 0.0), -1.0 if index < 50 else 0.0 if index < 100 else 2.0)
    assert poses.travelled_m == pytest.approx(2.0 * 99 * 0.02 + 0.02, abs=1e-6)
    assert poses.travelled_at(EPOCH + 99 * 20_000_000) == pytest.approx(0.0, abs=1e-9)
    assert poses.travelled_at(EPOCH + 150 * 20_000_000) == pytest.approx(2.0 * 50 * 0.02 + 0.02, abs=1e-6)


def test_time_rate_measures_and_is_bounded() -> None:
    for scale, expected in ((1.0, 1.0), (4.0, 4.0), (0.5, 0.5), (0.01, TimeRate.LOWEST), (50.0, TimeRate.HIGHEST)):
        rate = TimeRate()
        assert rate.value == 1.0
        for index in range(100):
            rate.add(10.0 + 0.02 * index, EPOCH + int(index * 0.02 * scale * SECOND))
        assert rate.value == pytest.approx(expected, rel=1e-3)
