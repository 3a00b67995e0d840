"""Noisy poses are cleaned by as much as they need, clean ones are left alone; ``pytest -s`` prints the table."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from closed_loop.course.design import course_named
from closed_loop.simulator.expert import Expert
from closed_loop.simulator.vehicle import Vehicle
from collector.bags.reader import OdometryRow
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.geometry.curvature import curvature_profile
from collector.geometry.discontinuity import TELEPORT
from collector.geometry.poses import interpolate_poses, to_ego, wrap_angle
from collector.pose_tracks.smoothing import PoseNoise, clean_poses, measure_noise
from collector.pose_tracks.tracks import PoseTrack, TrackConfig, build_track

torch = pytest.importorskip("torch")

from finetune.alpamayo.action_space import ActionSpace  # noqa: E402
from finetune.alpamayo.configuration import RELEASED_ACTION_SPACE  # noqa: E402

HAIRPIN_1PM = 0.2
SAMPLE_NS = np.arange(-15, 65) * (NS_PER_S // 10)


@lru_cache
def lap() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A lap of the city course (hairpins of 4 m radius) by the expert: stamps at 100 Hz, poses, speeds."""
    course, vehicle = course_named("city"), Vehicle()
    expert = Expert(course)
    vehicle.place(course.pose_at(0.0, 0.0), 4.0)
    rows = []
    for step in range(7000):
        command = expert.command(vehicle.state, step * 0.01)
        state = vehicle.step(command.steer_rad, command.accel_mps2, 0.01)
        rows.append((*state.pose, state.speed_mps))
    table = np.array(rows)
    return 50 * NS_PER_S + np.arange(len(table)) * 10_000_000, table[:, :3], table[:, 3]


def noisy(rate_hz: int, noise_m: float, noise_rad: float) -> tuple[np.ndarray, np.ndarray]:
    """The lap as a source of this rate and white noise tells it."""
    stamps, poses, _ = lap()
    every = 100 // rate_hz
    rng = np.random.default_rng(7)
    taken = poses[::every] + rng.normal(0.0, 1.0, (len(poses[::every]), 3)) * [noise_m, noise_m, noise_rad]
    return stamps[::every], np.column_stack([taken[:, :2], wrap_angle(taken[:, 2])])


def track_of(
    stamps: np.ndarray, poses: np.ndarray, wheel_scale: float | None = None, smooth: str = "auto"
) -> PoseTrack:
    rows = [OdometryRow(int(ns), int(ns), *pose, float("nan")) for ns, pose in zip(stamps, poses, strict=True)]
    wheel = None
    if wheel_scale is not None:
        true_ns, _, speed = lap()
        reports = speed[::3] * wheel_scale + np.random.default_rng(1).normal(0.0, 0.02, len(speed[::3]))
        wheel = true_ns[::3], reports
    return build_track(rows, TrackConfig(smooth=smooth), wheel)  # type: ignore[arg-type]


def errors_of(track: PoseTrack) -> dict[str, float]:
    """Path and heading against the truth, the model's own speed estimate, and the curvature of hairpins (RMS)."""
    true_ns, true_poses, true_speed = lap()
    piece = track.segments[0]
    position, yaw, curvature, histories, times = [], [], [], [], []
    for ns in range(int(piece.stamps_ns[0]) + 1_503_000_000, int(piece.stamps_ns[-1]) - 6_400_000_000, 403_000_000):
        ours = interpolate_poses(piece.stamps_ns, piece.poses, ns + SAMPLE_NS)
        truth = interpolate_poses(true_ns, true_poses, ns + SAMPLE_NS)
        position.append(np.hypot(*(ours - truth)[:, :2].T))
        yaw.append(wrap_angle(ours[:, 2] - truth[:, 2]))
        histories.append(to_ego(ours, ours[15])[:16])
        times.append(ns)
        sharpest = [np.abs(curvature_profile(poses[15:46, :2])[1]).max() for poses in (ours, truth)]
        if sharpest[1] > HAIRPIN_1PM:
            curvature.append(sharpest[0] - sharpest[1])
    v0 = ActionSpace(RELEASED_ACTION_SPACE, torch.float64).estimate_v0(torch.tensor(np.array(histories))).numpy()
    speed_error = v0 - np.interp(times, true_ns, true_speed)
    assert len(curvature) > 25
    rms = {
        "path_cm": 100.0 * np.array(position), "yaw_deg": np.degrees(yaw), "v0_mps": speed_error,
        "hairpin_1pm": np.array(curvature),
    }  # fmt: skip
    return {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in rms.items()}


CASES = ((0.02, 0.01), (0.05, 0.02), (0.1, 0.05), (0.2, 0.05))


@pytest.mark.parametrize("rate_hz", [50, 20])
def test_noise_is_measured_and_taken_out(rate_hz: int) -> None:
    names = list(errors_of(track_of(*noisy(rate_hz, 0.0, 0.0))))
    print(f"\n{rate_hz} Hz            " + " ".join(f"{name:>12}" for name in names))
    for noise_m, noise_rad in CASES:
        stamps, poses = noisy(rate_hz, noise_m, noise_rad)
        tracks = {
            "recorded": track_of(stamps, poses, smooth="never"),
            "cleaned": track_of(stamps, poses),
            "with wheel": track_of(stamps, poses, wheel_scale=1.03),
        }
        errors = {name: errors_of(track) for name, track in tracks.items()}
        for name, row in errors.items():
            print(f"{noise_m * 100:3.0f} cm {name:<11}" + " ".join(f"{value:12.3f}" for value in row.values()))
        report = tracks["with wheel"].report
        assert report.noise.position_m == pytest.approx(noise_m, rel=0.15)
        assert report.noise.yaw_rad == pytest.approx(noise_rad, rel=0.15)
        assert report.smoothed and report.yaw == "motion" and report.speed_pieces == {"wheel": 1}
        assert tracks["cleaned"].report.speed_pieces == {"positions": 1} and not tracks["recorded"].report.smoothed
        for name, row in errors["recorded"].items():
            assert errors["cleaned"][name] < row * {"path_cm": 0.5, "v0_mps": 0.25}.get(name, 0.75), name
            assert errors["with wheel"][name] < row * {"path_cm": 0.4, "v0_mps": 0.15}.get(name, 0.6), name
        assert errors["with wheel"]["v0_mps"] < 0.06


@pytest.mark.parametrize("rate_hz", [50, 20, 10])
def test_clean_poses_stay_as_recorded(rate_hz: int) -> None:
    stamps, poses = noisy(rate_hz, 0.0, 0.0)
    track = track_of(stamps, poses, wheel_scale=1.0)
    assert not track.report.smoothed and track.report.yaw == "recorded"
    assert np.array_equal(track.segments[0].poses, poses) and np.array_equal(track.segments[0].stamps_ns, stamps)
    assert track.report.noise.position_m < 0.001 and track.report.noise.yaw_rad < 0.001
    # And if they were cleaned all the same, by the noise that was measured, nobody would notice.
    (grid_ns, cleaned), _ = clean_poses((stamps, poses), measure_noise([(stamps, poses)]))
    off = interpolate_poses(grid_ns, cleaned, stamps)[:, :2] - poses[:, :2]
    assert np.hypot(*off.T).max() < (0.001 if rate_hz > 10 else 0.003)


def test_millimetres_of_noise_are_below_the_limit_and_the_limits_can_be_set() -> None:
    stamps, poses = noisy(50, 0.002, 0.002)
    assert not track_of(stamps, poses).report.smoothed
    strict = TrackConfig(clean_position_m=0.001)
    rows = [OdometryRow(int(ns), int(ns), *pose, float("nan")) for ns, pose in zip(stamps, poses, strict=True)]
    assert build_track(rows, strict).report.smoothed
    with pytest.raises(MonoError, match="clean_yaw_rad:=0"):
        TrackConfig(clean_yaw_rad=0.0)


def test_a_source_without_heading_gets_that_of_the_motion() -> None:
    """A GNSS pose often carries no rotation: yaw 0 all the way round."""
    stamps, poses = noisy(20, 0.05, 0.0)
    poses = np.column_stack([poses[:, :2], np.zeros(len(poses))])
    track = track_of(stamps, poses)
    assert track.report.noise.is_heading_wrong and track.report.yaw == "motion"
    errors = errors_of(track)
    assert errors["path_cm"] < 4.0 and errors["yaw_deg"] < 4.0 and errors["v0_mps"] < 0.4
    # Clean positions alone are no excuse for a wrong heading either.
    stamps, poses = noisy(50, 0.0, 0.0)
    still = track_of(stamps, np.column_stack([poses[:, :2], np.zeros(len(poses))]))
    assert still.report.smoothed and errors_of(still)["yaw_deg"] < 0.5


def test_a_kart_that_reverses_or_stands_has_not_turned_round() -> None:
    stamps, poses = noisy(50, 0.05, 0.02)
    truth = lap()[1][::2]
    backwards = track_of(stamps, np.column_stack([poses[:, :2], wrap_angle(poses[:, 2] + np.pi)]))
    piece = backwards.segments[0]
    turned = wrap_angle(piece.poses[:, 2] - truth[:, 2] - np.pi)
    assert backwards.report.smoothed and np.abs(turned).max() < 0.1
    rng = np.random.default_rng(3)
    stands = np.array([5.0, 5.0, 1.0]) + rng.normal(0.0, 1.0, (1000, 3)) * [0.05, 0.05, 0.02]
    (piece,) = track_of(stamps[:1000], stands).segments
    assert np.abs(piece.poses[:, 2] - 1.0).max() < 0.1
    assert np.linalg.norm(np.diff(piece.poses[::50, :2], axis=0), axis=1).mean() < 0.05


def test_a_wheel_speed_that_does_not_fit_is_not_believed() -> None:
    stamps, poses = noisy(50, 0.05, 0.02)
    for scale in (0.0, 0.5, 1.3, -1.0, float("nan")):
        assert track_of(stamps, poses, wheel_scale=scale).report.speed_pieces == {"positions": 1}, scale
    speed = lap()[2][::2]
    rows = [OdometryRow(int(ns), int(ns), *pose, v) for ns, pose, v in zip(stamps, poses, speed.tolist(), strict=True)]
    assert build_track(rows).report.speed_pieces == {"odometry": 1}


def test_noise_is_no_teleport_but_a_teleport_is_one() -> None:
    stamps, poses = noisy(50, 0.2, 0.05)
    config = TrackConfig(teleport_slack_m=0.5)
    poses[500, :2] += 30.0  # a single pose far off
    poses[1500:, 0] += 40.0  # the kart put elsewhere
    rows = [OdometryRow(int(ns), int(ns), *pose, 5.0) for ns, pose in zip(stamps, poses, strict=True)]
    track = build_track(rows, config)
    assert [piece.ends for piece in track.segments][:1] == [TELEPORT] and len(track.segments) == 2
    # (With slack that tight a pose beside a cut may go with it.)
    assert stamps[1495] <= track.segments[0].stamps_ns[-1] <= stamps[1499]
    assert stamps[1500] <= track.segments[1].stamps_ns[0] <= stamps[1504]
    inside = track.segments[0].poses
    assert np.hypot(*np.diff(inside[:, :2], axis=0).T).max() < 0.3


def test_a_mirrored_source_is_cleaned_to_the_mirrored_track() -> None:
    stamps, poses = noisy(20, 0.1, 0.03)
    here, there = (track_of(stamps, values).segments[0].poses for values in (poses, poses * [1.0, -1.0, -1.0]))
    assert np.allclose(there[:, :2], here[:, :2] * [1.0, -1.0], atol=1e-9)
    assert np.abs(wrap_angle(there[:, 2] + here[:, 2])).max() < 1e-9


def test_pieces_too_short_to_judge_pass_unharmed() -> None:
    stamps, poses = noisy(50, 0.2, 0.05)
    for count in (2, 3, 5, 20, 60):
        (piece,) = track_of(stamps[:count], poses[:count]).segments
        assert piece.stamps_ns[0] == stamps[0] and piece.stamps_ns[-1] == stamps[count - 1]
        assert np.isfinite(piece.poses).all()
        (grid_ns, cleaned), _ = clean_poses((stamps[:count], poses[:count]), PoseNoise(0.2, 0.05))
        assert len(grid_ns) == len(cleaned) >= 2 and np.isfinite(cleaned).all()
