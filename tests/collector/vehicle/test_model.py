"""The vehicle's YAML: what is written is read again, and nothing else is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from collector.common.arguments import arguments_of
from collector.common.errors import MonoError
from collector.vehicle.model import KART, VehicleModel, read_vehicle, vehicle_named, write_vehicle

ODD = VehicleModel(steering_gain=0.8, dead_time_s=0.2, report_scale=1.1, speed_scale=0.93)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "vehicle.yaml"
    write_vehicle(file, ODD, ["of a bag\nwith two lines", "steering_gain 0.8 +- 0.01"])
    assert read_vehicle(file) == ODD == vehicle_named(str(file))
    assert "# of a bag with two lines\n" in file.read_text()


def test_what_is_left_out_is_the_kart(tmp_path: Path) -> None:
    file = tmp_path / "vehicle.yaml"
    file.write_text("definition: 1\nsteering_gain: 1\n")
    assert read_vehicle(file) == dataclasses.replace(KART, steering_gain=1.0)
    assert vehicle_named("") == KART
    assert vehicle_named(str(file), 0.7).steering_gain == 0.7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steering_gain: 0.7\n", "definition"),
        ("definition: 2\n", "definition"),
        ("definition: true\n", "definition"),
        ("definition: 1\nsteering_gian: 0.7\n", "perhaps 'steering_gain'"),
        ("definition: 1\n7: 0.7\n", "unknown key"),
        ("definition: 1\nsteering_gain: .nan\n", "steering_gain"),
        ("definition: 1\nsteering_gain: 1.0e+300\n", "steering_gain"),
        ("definition: 1\nsteering_gain: '0.7'\n", "steering_gain"),
        ("definition: 1\nsteering_gain: true\n", "steering_gain"),
        ("definition: 1\nsteering_gain: [0.7]\n", "steering_gain"),
        ("definition: 1\nsteering_gain:\n", "steering_gain"),
        ("definition: 1\nwheelbase_m: -1\n", "wheelbase_m"),
        ("definition: 1\nlag_s: 1\nlag_s: 0.1\n", "second time"),
        ("- 1\n", "mapping"),
        ("", "definition"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "vehicle.yaml"
    file.write_text(text)
    with pytest.raises(MonoError, match=said) as refused:
        read_vehicle(file)
    assert str(file) in str(refused.value) and refused.value.do


def test_a_file_that_is_not_there_and_a_gain_of_no_vehicle() -> None:
    with pytest.raises(MonoError, match=r"nowhere\.yaml"):
        vehicle_named("nowhere.yaml")
    with pytest.raises(MonoError, match="steering_gain"):
        vehicle_named("", 0.01)


def test_every_number_of_a_vehicle_has_limits() -> None:
    assert len(arguments_of(VehicleModel)) == len(dataclasses.fields(VehicleModel))
