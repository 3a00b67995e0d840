"""What calibrate finds is what was planted; what a bag cannot tell is refused; build takes poses when pictures show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from closed_loop.course.course import Course
from collector.calibration.command import main
from collector.calibration.ego_motion import fit_motion
from collector.calibration.fit import FitLimits, fit_pitch, fit_time_offset, offset_grid
from collector.calibration.model import Calibration, Intrinsics, read_calibration, write_calibration
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, load_manifest, read_samples
from tests.helpers.planted_bag import write_planted_bag
from tests.helpers.synthetic_bag import camera_stamps, compressed_cdr, drive_course, jpeg, write_bag

PNG = b"\x89PNG"


def calibrate(bag: Path, out: Path, *words: str) -> tuple[int, Calibration]:
    code = main([str(bag), "--out", str(out), *words])
    return code, read_calibration(out / "calibration.yaml")


@pytest.mark.parametrize(
    ("course", "lag_ms", "pitch_deg", "hfov_deg"), [("city", 40, -5, 90), ("random:17", 105, 13, None)]
)
def test_planted_lag_and_pitch_are_found(
    tmp_path: Path, course: str, lag_ms: float, pitch_deg: float, hfov_deg: float | None
) -> None:
    """With CameraInfo; and of a narrower camera without one, by --hfov-deg."""
    bag = write_planted_bag(
        tmp_path / "bag",
        course,
        seed=lag_ms,
        seconds=32.0,
        lag_s=lag_ms / 1e3,
        pitch_rad=math.radians(pitch_deg),
        hfov_deg=hfov_deg or 75.0,
        with_info=hfov_deg is not None,
    )
    code, found = calibrate(bag, tmp_path / "out", *([] if hfov_deg else ["--hfov-deg", "75"]))
    assert code == 0
    assert found.lag_s == pytest.approx(lag_ms / 1e3, abs=0.010)
    assert found.pitch_rad == pytest.approx(math.radians(pitch_deg), abs=math.radians(0.5))
    assert found.lag_sd_s is not None and 0.0 < found.lag_sd_s < 0.006
    assert found.pitch_sd_rad is not None and 0.0 < found.pitch_sd_rad < math.radians(0.2)
    assert found.turn_ratio == pytest.approx(1.0, abs=0.05) and (found.correlation or 0.0) > 0.98
    assert found.frames > 250 and found.lag_pairs > 200 and found.pitch_pairs >= 30
    assert found.intrinsics is not None and found.intrinsics.source == (
        "/sensing/camera/camera_info" if hfov_deg else "--hfov-deg 75"
    )
    if hfov_deg:
        with pytest.raises(MonoError, match="/front/info"):
            calibrate(bag, tmp_path / "none", "--camera-info-topic", "/front/info")
    assert found.bag == "bag" and len(found.bag_sha256) == 64
    assert (tmp_path / "out" / "calibration.png").read_bytes().startswith(PNG)


def test_a_drive_without_turns_gives_the_pitch_and_no_lag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xy = np.stack([np.linspace(0.0, 120.0, 241), np.zeros(241)], axis=1)
    half_m = np.full(241, 3.5)
    bag = write_planted_bag(
        tmp_path / "bag",
        Course("straight", xy, False, half_m, half_m),
        seconds=14.0,
        pitch_rad=math.radians(3.0),
        disturb=False,
    )
    code, found = calibrate(bag, tmp_path / "out")
    assert code == 1 and "the kart hardly turns" in capsys.readouterr().err
    assert found.lag_s is None and "lag_s" not in yaml.safe_load((tmp_path / "out" / "calibration.yaml").read_text())
    assert found.pitch_rad == pytest.approx(math.radians(3.0), abs=math.radians(0.5))
    assert (tmp_path / "out" / "calibration.png").read_bytes().startswith(PNG)


def test_a_bag_that_tells_nothing_is_refused_and_nothing_written(tmp_path: Path) -> None:
    # Frames without a single feature.
    bag = write_bag(tmp_path / "bag", drive_course())
    with pytest.raises(MonoError, match=r"pitch cannot be told: 0 .*time offset cannot be told: 0 .*too few features"):
        main([str(bag), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    frames = [(int(ns), compressed_cdr(int(ns), b"no picture")) for ns in camera_stamps(drive_course())]
    broken = write_bag(tmp_path / "broken", drive_course(), frames=frames)
    with pytest.raises(MonoError, match="can be decoded"):
        main([str(broken), "--out", str(tmp_path / "out")])


def turns(
    lag_s: float, noise_rad: float = 0.0, rate: float = 0.5, ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A minute of a kart that sways left and right, as :func:`fit_time_offset` takes it."""
    start_s = 0.1 * np.arange(600)
    rng = np.random.default_rng(3)

    def yaw(t_s: np.ndarray) -> np.ndarray:
        return rate * (np.sin(1.1 * t_s) + 0.4 * np.sin(2.9 * t_s + 1.0))

    image = ratio * (yaw(start_s + 0.1 - lag_s) - yaw(start_s - lag_s)) + noise_rad * rng.standard_normal(600)
    at = start_s[:, None] - offset_grid(FitLimits())
    return np.round(start_s * 1e9).astype(np.int64), np.full(600, 0.1), image, yaw(at + 0.1) - yaw(at)


@pytest.mark.parametrize("lag_s", [-0.0613, 0.0, 0.0427, 0.105])
def test_lag_is_finer_than_the_grid_and_keeps_its_sign(lag_s: float) -> None:
    fit = fit_time_offset(*turns(lag_s), FitLimits())
    assert fit.offset_s == pytest.approx(lag_s, abs=5e-4) and fit.correlation > 0.999
    noisy = turns(lag_s, noise_rad=0.005)
    noisy[2][::17] += 0.3  # flow gone astray
    fit = fit_time_offset(*noisy, FitLimits())
    assert fit.offset_s == pytest.approx(lag_s, abs=0.006) and abs(fit.offset_s - lag_s) < 5.0 * fit.sd_s
    assert not fit.used[::17].any() and fit.pairs > 550


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (turns(0.0, rate=0.01), "hardly turns"),
        (turns(0.0, noise_rad=0.5), "correlate"),
        (turns(0.39), "correlate"),
        (turns(0.05, ratio=-1.0), "correlate"),
        (turns(0.05, ratio=1.6), "focal length"),
        (tuple(part[:50] for part in turns(0.05)), "50 pairs"),
    ],
)
def test_a_lag_that_cannot_be_told_is_refused(data: Any, why: str) -> None:
    with pytest.raises(MonoError, match=why):
        fit_time_offset(*data, FitLimits())


def test_a_pitch_that_cannot_be_told_is_refused() -> None:
    start_ns = (0.1e9 * np.arange(200)).astype(np.int64)
    rng = np.random.default_rng(4)
    fit = fit_pitch(start_ns, 0.1 + 0.01 * rng.standard_normal(200), FitLimits())
    assert fit.pitch_rad == pytest.approx(0.1, abs=0.003) and 0.0003 < fit.sd_rad < 0.003
    with pytest.raises(MonoError, match="20 pairs"):
        fit_pitch(start_ns[:20], np.full(20, 0.1), FitLimits())
    with pytest.raises(MonoError, match="cannot be told"):
        fit_pitch(start_ns, 0.3 * rng.standard_normal(200), FitLimits())


def test_the_pitch_spread_covers_straights_that_differ() -> None:
    """Frames of one straight err alike: with six straights the median is as uncertain as six looks, not sixty."""
    rng = np.random.default_rng(7)
    limits, errors = FitLimits(max_pitch_sd_rad=1.0), []
    straights = np.arange(6) * 20.0
    start_ns = (1e9 * (straights[:, None] + 0.1 * np.arange(45))).astype(np.int64).ravel()
    for _ in range(60):
        seen = 0.1 + 0.01 * rng.standard_normal((6, 1)) + 0.003 * rng.standard_normal((6, 45))
        fit = fit_pitch(start_ns, seen.ravel(), limits)
        errors.append((fit.pitch_rad - 0.1) / fit.sd_rad)
    assert np.mean(np.abs(errors) < 2.0) > 0.85 and 0.6 < np.sqrt(np.mean(np.square(errors))) < 1.4


@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize(("yaw_rad", "pitch_rad"), [(0.08, 0.2), (-0.05, -0.1), (0.0, 0.0)])
def test_motion_from_points_in_space(yaw_rad: float, pitch_rad: float, lies: bool) -> None:
    """A camera that looks down by pitch turns left by yaw while it moves ahead; or every seventh track is a lie."""
    rng = np.random.default_rng(5)
    points = np.stack([rng.uniform(2, 40, 210), rng.uniform(-10, 10, 210), rng.choice([-0.7, 1.5], 210)], axis=1)
    cos, sin = math.cos(pitch_rad), math.sin(pitch_rad)
    # Rows: the camera's right, down and forward in the kart's axes.
    optical = np.array([[0.0, -1.0, 0.0], [-sin, 0.0, -cos], [cos, 0.0, -sin]])
    turn = np.array([[math.cos(yaw_rad), math.sin(yaw_rad), 0], [-math.sin(yaw_rad), math.cos(yaw_rad), 0], [0, 0, 1]])
    seen = [points @ optical.T, (points - [0.5, 0.0, 0.0]) @ turn.T @ optical.T]
    ahead = (seen[0][:, 2] > 0.5) & (seen[1][:, 2] > 0.5)
    before, after = (each[ahead] / each[ahead, 2:] for each in seen)
    if lies:
        after[::7, :2] += rng.uniform(-0.1, 0.1, after[::7, :2].shape)
    found = fit_motion(before, after, 320.0)
    assert found is not None
    rotation, travel, tracks = found
    assert rotation[1] * cos + rotation[2] * sin == pytest.approx(yaw_rad, abs=4e-3 if lies else 1e-6)
    expected = optical @ turn @ [1.0, 0.0, 0.0]
    # A few lies that chance to lie on their line move the travel sideways, where it hardly differs from a turn.
    assert np.allclose(travel[1:], expected[1:], atol=0.01 if lies else 1e-6)
    assert travel[0] == pytest.approx(expected[0], abs=0.1 if lies else 1e-6)
    assert 0.8 * len(before) < tracks <= len(before)


def test_the_file_keeps_what_is_known_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "calibration.yaml"
    known = Calibration(
        1,
        lag_s=0.05,
        lag_sd_s=0.001,
        lag_pairs=300,
        frames=400,
        bag="b",
        intrinsics=Intrinsics("camera_info", 1920, 1080, 960.0, 960.0, 959.5, 539.5, (0.1, -0.2, 0.0, 0.0, 0.0)),
    )
    write_calibration(file, known)
    assert "pitch" not in yaml.safe_load(file.read_text()) and read_calibration(file) == known
    assert known.offset_ns == 50_000_000 and known.required_offset_s == 0.05
    pitch_only = Calibration(1, pitch_rad=0.1)
    assert pitch_only.offset_ns == 0
    with pytest.raises(MonoError, match="no lag_s"):
        _ = pitch_only.required_offset_s
    for text, why in (
        ("definition: 2\nlag_s: 0.1\n", "definition 2"),
        ("definition: 1\n", "neither"),
        ("definition: 1\nlag_s: .nan\n", "lag_s = nan"),
        ("definition: 1\nlag_s: 50.0\n", "lag_s = 50"),
        ("definition: 1\nlag_ms: 50.0\n", "lag_ms"),
        ("definition: 1\nlag_s: x\n", "lag_s"),
        ("lag_s: 0.1\n", "definition"),
    ):
        file.write_text(text)
        with pytest.raises(MonoError, match=why):
            read_calibration(file)


def test_intrinsics_follow_the_size_of_the_picture() -> None:
    camera = Intrinsics("camera_info", 1920, 1080, 960.0, 960.0, 959.5, 539.5)
    half = camera.sized(640, 360)
    assert (half.fx_px, half.cx_px, half.cy_px) == pytest.approx((320.0, 319.5, 179.5))
    with pytest.raises(MonoError, match="focal lengths"):
        Intrinsics("camera_info", 1920, 1080, float("nan"), 960.0, 959.5, 539.5)


def test_build_takes_poses_at_the_moment_a_picture_shows(tmp_path: Path) -> None:
    """The same pictures, once stamped when taken and once 70 ms late, give the same samples with the calibration."""
    drive, lag_ns = drive_course(), 70_000_000
    shown_ns = camera_stamps(drive)[:-1]
    calibration = tmp_path / "calibration.yaml"
    write_calibration(calibration, Calibration(1, lag_s=lag_ns / 1e9, pitch_rad=0.2))

    def built(name: str, stamps_ns: np.ndarray, **settings: Any) -> dict[str, Sample]:
        frames = [(int(ns), compressed_cdr(int(ns), jpeg(n))) for n, ns in enumerate(stamps_ns)]
        bag = write_bag(tmp_path / name / "drive", drive, frames=frames)
        config = BuildConfig(bags=(bag,), out=tmp_path / name / "dataset", val_fraction=0.0, **settings)
        build_dataset(config, show_progress=False).check_sum()
        return {
            (tmp_path / name / "dataset" / s.file_name).read_bytes().hex() + str(s.stamp_ns - int(stamps_ns[0])): s
            for s in read_samples(config.out)
        }

    true = built("true", shown_ns)
    late = built("late", shown_ns + lag_ns, calibration=calibration)
    uncorrected = built("uncorrected", shown_ns + lag_ns)
    assert len(true) > 100 and late.keys() == true.keys()
    for key, sample in late.items():
        assert sample.stamp_ns == true[key].stamp_ns + lag_ns
        assert (sample.history, sample.future) == (true[key].history, true[key].future)
        assert (sample.speed_mps, sample.curve) == (true[key].speed_mps, true[key].curve)
    off_m = [
        np.abs(uncorrected[key].future_array() - true[key].future_array()).max() for key in true.keys() & uncorrected
    ]
    assert max(off_m) > 0.05
    manifest = load_manifest(tmp_path / "late" / "dataset")
    assert (manifest["calibration"]["lag_s"], manifest["calibration"]["pitch_rad"]) == (0.07, 0.2)
    assert "calibration" not in manifest["config"]
    assert load_manifest(tmp_path / "true" / "dataset")["calibration"] is None


def test_nothing_is_written_into_the_bag(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(MonoError, match="is read"):
        main([str(tmp_path), "--out", str(tmp_path / "calibration")])
