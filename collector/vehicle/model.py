"""The kart as numbers: its measures, how its actuators answer, and what its wheels report; kept in a YAML file.

Driver, dead reckoning and simulator read the same file (``vehicle:=FILE``), which ``alpamayo-mono identify`` writes.
The defaults are the racing kart of the Automotive AI Challenge, and stand here only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError

DEFINITION = 1  # of the file, the only one so far
_HEADER = """\
# A vehicle of alpamayo-mono: read by `drive vehicle:=FILE`, `simulate vehicle:=FILE` and `compare --vehicle FILE`.
# A value that is left out is that of the Challenge's kart.
"""


@dataclass(frozen=True)
class VehicleModel(Arguments):
    """A kinematic bicycle behind actuators; the reference point is the middle of the rear axle."""

    wheelbase_m: float = argument(1.087, "from the rear to the front axle, metres", 0.3, 5.0)
    max_steer_rad: float = argument(0.64, "largest tyre angle that can be commanded, radians", 0.05, 1.4)
    steering_gain: float = argument(0.62, "applied over commanded tyre angle (AWSIM: about 0.61 to 0.67)", 0.2, 1.5)
    dead_time_s: float = argument(0.10, "from a steering command to its effect: transport, seconds", 0.0, 0.6)
    lag_s: float = argument(0.10, "first-order lag of the steering after the dead time, seconds", 0.0, 1.0)
    steer_rate_radps: float = argument(0.8, "fastest change of the applied angle, rad/s", 0.05, 100.0)
    report_scale: float = argument(1.0, "applied over reported tyre angle", 0.2, 5.0)
    speed_scale: float = argument(1.0, "speed over ground over reported speed of the wheels", 0.2, 5.0)
    max_accel_mps2: float = argument(1.5, "largest acceleration, m/s^2", 0.1, 20.0)
    max_decel_mps2: float = argument(3.0, "largest deceleration, m/s^2", 0.1, 20.0)
    accel_lag_s: float = argument(0.12, "first-order lag of the acceleration, seconds", 0.0, 2.0)
    sticks_below_mps2: float = argument(
        0.0, "a standing kart does not move off below this acceleration (AWSIM: 0.4), m/s^2", 0.0, 10.0
    )
    front_m: float = argument(1.554, "from the rear axle to the front bumper, metres", 0.1, 10.0)
    rear_m: float = argument(0.510, "from the rear axle to the rear bumper, metres", 0.1, 10.0)
    width_m: float = argument(1.30, "over the bodywork, metres", 0.1, 5.0)

    def curvature_1pm(self, reported_rad: float) -> float:
        """Of the way driven with wheels reported at this tyre angle, left positive."""
        return math.tan(self.report_scale * reported_rad) / self.wheelbase_m


KART = VehicleModel()


def read_vehicle(path: Path | str) -> VehicleModel:
    """A vehicle from its YAML file; what the file leaves out is the Challenge's kart.

    Raises:
        MonoError: absent, unreadable, of another definition, with unknown keys, or impossible values.
    """
    from collector.common.command_line import check_keys
    from collector.common.text_files import read_yaml

    values = read_yaml(path)
    definition = values.pop("definition", None)
    if type(definition) is not int or definition != DEFINITION:
        found = f"{path} has no definition" if definition is None else f"{path} is of definition {definition!r}"
        do = "write the file by alpamayo-mono identify, or add that line if it is one of a vehicle"
        raise MonoError(found, f"a vehicle, with the line `definition: {DEFINITION}`", do)
    check_keys(VehicleModel, values, path)
    try:
        return VehicleModel(**values)
    except MonoError as error:
        raise MonoError(f"{path}: {error.found}", error.expected, error.do) from error


def write_vehicle(path: Path, vehicle: VehicleModel, remarks: Sequence[str] = ()) -> None:
    """Write the YAML file in one step; ``remarks`` become lines of comment."""
    import yaml

    from collector.common.files import write_atomically

    text = _HEADER + "".join(f"# {' '.join(line.split())}\n" for line in remarks)
    values = {"definition": DEFINITION, **dataclasses.asdict(vehicle)}
    write_atomically(path, text + yaml.safe_dump(values, sort_keys=False))


@dataclass(frozen=True)
class GivenGain(Arguments):
    """For commands that drive a vehicle."""

    steering_gain: float = argument(
        0.0, "applied over commanded tyre angle, by which commands are divided; 0 takes that of vehicle", 0.0, 1.5
    )


def vehicle_named(path: str, steering_gain: float = 0.0) -> VehicleModel:
    """The vehicle of a setting: a file, or the Challenge's kart where it is empty; another gain where one is given.

    Raises:
        MonoError: see :func:`read_vehicle`; a gain that no vehicle has.
    """
    vehicle = read_vehicle(path) if path else KART
    return dataclasses.replace(vehicle, steering_gain=steering_gain) if steering_gain else vehicle
