"""A vehicle found from a bag: what was planted, and a sentence for what the bag does not show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.ros.topics import CONTROL_CMD, ODOMETRY, STEERING_STATUS, VELOCITY_STATUS
from collector.vehicle.command import main
from collector.vehicle.fit import DriveSignals, fit_vehicle
from collector.vehicle.model import KART, VehicleModel, read_vehicle
from collector.vehicle.signals import IdentifyConfig, _Reading, _Stream, read_signals
from tests.helpers.vehicle_bag import write_vehicle_bag

ODD = replace(
    KART, steering_gain=0.81, dead_time_s=0.173, lag_s=0.062, steer_rate_radps=0.55, report_scale=0.87, speed_scale=1.07
)
NAMES = ("steering_gain", "dead_time_s", "lag_s", "steer_rate_radps", "report_scale", "speed_scale")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vehicle_bag(tmp_path_factory.mktemp("odd") / "bag", ODD, seconds=36.0)


@pytest.fixture(scope="module")
def signals(bag: Path) -> DriveSignals:
    return read_signals(IdentifyConfig(bag, bag / "out"))[0]


def test_the_verb_writes_the_planted_vehicle(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main([str(bag), "--out", str(tmp_path)]) == 0
    found = read_vehicle(tmp_path / "vehicle.yaml")
    for name in NAMES:
        assert getattr(found, name) == pytest.approx(getattr(ODD, name), rel=0.05), name
    assert found == replace(found, **{name: getattr(found, name) for name in NAMES})
    assert "steering_gain" in capsys.readouterr().out and (tmp_path / "vehicle.png").stat().st_size > 10_000
    assert main([str(bag), "--out", str(tmp_path)]) == 0, "its own files are replaced"


def test_files_of_others_are_not_replaced(bag: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "vehicle.yaml").write_text("name: my car\n")
    with pytest.raises(MonoError, match="definition"):
        main([str(bag), "--out", str(tmp_path)])
    assert (tmp_path / "vehicle.yaml").read_text() == "name: my car\n"


def test_spikes_and_reports_that_are_none_cost_nothing(signals: DriveSignals) -> None:
    report = signals.report_rad.copy()
    report[::40] += 0.3
    assert np.std(report - signals.report_rad) > 0.03
    fit = fit_vehicle(replace(signals, report_rad=report), KART)
    for name in NAMES[:4]:
        assert fit.values[name] == pytest.approx(getattr(ODD, name), rel=0.05), name


def test_a_calm_drive_does_not_tell_the_rate_limit(signals: DriveSignals) -> None:
    time_s = np.arange(0.0, 40.0, 1 / 30)
    angle = 0.1 * np.sin(0.5 * time_s) + 0.001 * np.random.default_rng(1).standard_normal(len(time_s))
    late = np.interp(time_s - 0.2, time_s, angle)
    fit = fit_vehicle(DriveSignals(time_s, angle / 0.7, time_s, late, time_s, np.full(len(time_s), 3.0)), KART)
    assert "turned as fast as they can" in fit.refused["steer_rate_radps"]
    assert fit.values["steering_gain"] == pytest.approx(0.7, rel=0.05)
    assert "poses" in fit.refused["speed_scale"] and "poses" in fit.refused["report_scale"]


def test_a_straight_tells_nothing_of_the_steering(signals: DriveSignals) -> None:
    still = replace(signals, command_rad=0.001 * signals.command_rad, report_rad=0.001 * signals.report_rad, poses=())
    fit = fit_vehicle(still, KART)
    assert not fit.values and all("hardly turned" in fit.refused[name] for name in NAMES[:4])


def test_reports_of_other_wheels_are_refused(signals: DriveSignals) -> None:
    other = np.random.default_rng(3).standard_normal(len(signals.report_rad)) * 0.1
    fit = fit_vehicle(replace(signals, report_rad=other, poses=()), KART)
    assert not fit.values.keys() & set(NAMES[:4])


def test_a_short_drive_says_what_is_missing(signals: DriveSignals) -> None:
    short = replace(signals, report_s=signals.report_s[:20], report_rad=signals.report_rad[:20])
    assert "20 steering reports" in fit_vehicle(short, KART).refused["lag_s"]


@pytest.mark.parametrize("lacking", [CONTROL_CMD, STEERING_STATUS, VELOCITY_STATUS, ODOMETRY])
def test_a_bag_without_a_topic(lacking: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    topics = tuple(t for t in (CONTROL_CMD, STEERING_STATUS, VELOCITY_STATUS, ODOMETRY) if t is not lacking)
    bag = write_vehicle_bag(tmp_path / "bag", ODD, seconds=24.0, topics=topics, stamped=False)
    if lacking in (CONTROL_CMD, STEERING_STATUS):
        with pytest.raises(MonoError, match="holds no messages of"):
            main([str(bag), "--out", str(tmp_path / "out")])
        return
    assert main([str(bag), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "left out: speed_scale" in said and "no stamps" in said
    found = read_vehicle(tmp_path / "out" / "vehicle.yaml")
    assert found.speed_scale == KART.speed_scale
    scale = found.report_scale / ODD.report_scale  # reports are taken for true where no pose says otherwise
    assert found.steering_gain == pytest.approx(ODD.steering_gain * scale, rel=0.05)
    assert "not told by the bag: speed_scale" in (tmp_path / "out" / "vehicle.yaml").read_text()


def test_of_a_clock_that_restarts_the_longer_part_counts(bag: Path, tmp_path: Path) -> None:
    from collector.bags.reader import open_bag
    from collector.bags.writer import BagWriter
    from tests.helpers.vehicle_bag import command_cdr, steering_cdr, velocity_cdr

    writer = BagWriter(tmp_path / "bag", [CONTROL_CMD, STEERING_STATUS, VELOCITY_STATUS])
    # Of another kart, half a minute long by stamps that come again.
    for step in range(200):
        stamp_ns = 100_000_000_000 + step * 33_333_333
        received_ns = 10_000_000_000 + step * 33_333_333
        writer.write(CONTROL_CMD.name, received_ns, command_cdr(stamp_ns, 0.4 * (-1) ** (step // 30), 0.0))
        writer.write(STEERING_STATUS.name, received_ns, steering_cdr(stamp_ns, -0.3))
        writer.write(VELOCITY_STATUS.name, received_ns, velocity_cdr(stamp_ns, 40.0, 0.0))
    with open_bag(bag) as other:
        for channel, received_ns, raw in other._raw([CONTROL_CMD.name, STEERING_STATUS.name, VELOCITY_STATUS.name]):
            writer.write(channel.topic, received_ns, raw)
    writer.close()
    found = fit_vehicle(read_signals(IdentifyConfig(tmp_path / "bag", tmp_path / "out"))[0], VehicleModel())
    assert found.values["dead_time_s"] == pytest.approx(ODD.dead_time_s, rel=0.05)


def test_reports_in_other_units_are_left_out_and_the_rest_is_told(signals: DriveSignals) -> None:
    degrees = fit_vehicle(replace(signals, report_rad=np.rad2deg(signals.report_rad), poses=()), KART)
    assert "a vehicle has 0.2 to 1.5" in degrees.refused["steering_gain"] and "dead_time_s" in degrees.values
    other_sign = fit_vehicle(replace(signals, report_rad=-signals.report_rad), KART)
    assert list(other_sign.values) == ["speed_scale"] and "a vehicle has" in other_sign.refused["report_scale"]


def test_a_damaged_stamp_costs_its_message_only(signals: DriveSignals, tmp_path: Path) -> None:
    """It hid all that came after it, and a model of a thousand years asked for terabytes."""
    rows = [_Reading(k, k * NS_PER_S // 30, 0.1) for k in range(1, 200)]
    stream = _Stream("steering_tire_angle", 1.5, [*rows])
    for place, stamp_ns in ((50, 10**18), (100, 0), (150, rows[149].stamp_ns + 60 * NS_PER_S)):
        stream.rows[place] = stream.rows[place]._replace(stamp_ns=stamp_ns)
    stream.leave_out_strays()
    assert stream.rows == [row for place, row in enumerate(rows) if place not in (50, 100, 150)]
    assert stream.unusable == 3
    far = replace(signals, report_s=np.append(signals.report_s[:-1], 1e9))
    assert "reach over" in fit_vehicle(far, KART).refused["steering_gain"]


def test_a_topic_has_one_meaning(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(MonoError, match=f"{VELOCITY_STATUS.name} for two things"):
        IdentifyConfig(bag, tmp_path, steering_topic=VELOCITY_STATUS.name)
    speeds = {"steering_topic": VELOCITY_STATUS.name, "velocity_topic": "/none"}
    with pytest.raises(MonoError, match="tells a kart's tyre angle"):
        read_signals(IdentifyConfig(bag, tmp_path, **speeds))


def test_nothing_is_written_into_the_bag(bag: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(MonoError, match="is read"):
        main([str(bag), "--out", str(bag / "vehicle")])
