"""What a camera's calibration says, and the YAML file that carries it from ``calibrate`` to ``build`` and ``drive``.

Definition 1, the only one so far:

- ``lag_s``, the camera's time offset: a picture with header stamp t shows the world at t - lag_s; positive when it
  shows the past. The pose that belongs to a picture is therefore the pose at t - lag_s, and a sample's t0 is that
  moment.
- ``pitch_rad``: between the direction of travel on a straight and the optical axis; positive looks down (REP-103).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import yaml
from numpy.typing import ArrayLike

from collector.common.command_line import check_keys
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.run_folder import plain
from collector.common.text_files import read_yaml
from collector.geometry.pinhole import field_matrix, scaled_matrix
from collector.geometry.poses import FloatArray

Settings = TypeVar("Settings", "Intrinsics", "Calibration")

DEFINITION = 1
_MOST_LAG_S = 1.0
_MOST_PITCH_RAD = 0.8
_HEADER = """\
# Written by alpamayo-mono calibrate; read by `build --calibration FILE` and `drive calibration:=FILE`.
# A picture with header stamp t shows the world at t - lag_s. A positive pitch_rad looks down (REP-103).
# What the bag could not tell is absent. _sd: standard error, from resampling stretches of the drive and from what the
# method was off by on simulated ones.
"""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with the lens distortion OpenCV knows as plumb_bob or rational_polynomial."""

    source: str  # where the numbers come from: a CameraInfo topic or a field of view
    width_px: int
    height_px: int
    # fx_px, fy_px, cx_px, cy_px: focal lengths and principal point; pixel centres lie at whole numbers
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...] = ()  # coefficients in OpenCV's order, empty for none

    def __post_init__(self) -> None:
        numbers = (self.fx_px, self.fy_px, self.cx_px, self.cy_px, *self.distortion)
        fits = self.width_px > 0 and self.height_px > 0 and self.fx_px > 0.0 and self.fy_px > 0.0
        if not fits or not all(map(math.isfinite, numbers)):
            size, focal = f"{self.width_px}x{self.height_px} px", f"{self.fx_px} and {self.fy_px} px"
            found = f"camera intrinsics from {self.source}: {size}, focal lengths {focal}"
            do = "correct the CameraInfo, or leave it out and give --hfov-deg"
            raise MonoError(found, "a size and focal lengths above zero", do)

    def sized(self, width_px: int, height_px: int) -> Intrinsics:
        """The same camera with its pictures scaled to another size."""
        matrix = scaled_matrix(self.matrix, width_px / self.width_px, height_px / self.height_px)
        return intrinsics_of(matrix, self.source, width_px, height_px, self.distortion)

    @property
    def matrix(self) -> FloatArray:
        """(3, 3) K."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])


def intrinsics_of(
    matrix: ArrayLike, source: str, width_px: int, height_px: int, distortion: Sequence[float] = ()
) -> Intrinsics:
    """Intrinsics from the nine numbers of a K."""
    k = np.asarray(matrix, np.float64).reshape(3, 3)
    return Intrinsics(
        source, width_px, height_px, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), tuple(distortion)
    )


def undistorted(hfov_deg: float, source: str, width_px: int, height_px: int) -> Intrinsics:
    """Intrinsics of an undistorted camera with square pixels from its horizontal field of view.

    Raises:
        MonoError: a field of view no pinhole has.
    """
    if not 5.0 < hfov_deg < 170.0:
        raise MonoError(f"a horizontal field of view of {hfov_deg} degrees", "5 to 170", "correct --hfov-deg")
    return intrinsics_of(field_matrix(math.radians(hfov_deg), width_px, height_px), source, width_px, height_px)


@dataclass(frozen=True)
class Calibration:
    """A camera's time offset (``lag_s``) and pitch, as the module defines them, and where they come from."""

    definition: int
    lag_s: float | None = None  # None where the bag could not tell
    lag_sd_s: float | None = None  # standard error
    pitch_rad: float | None = None  # None where the bag could not tell
    pitch_sd_rad: float | None = None  # standard error
    correlation: float | None = None  # of image and odometry turns at this time offset
    turn_ratio: float | None = None  # how far the image turned against the odometry; off 1 for a wrong focal length
    lag_pairs: int = 0  # pairs of frames it rests on, out of `frames` looked at
    pitch_pairs: int = 0  # the same for the pitch
    frames: int = 0
    intrinsics: Intrinsics | None = None  # what pixels were turned into angles with
    bag: str = ""
    bag_sha256: str = ""

    def __post_init__(self) -> None:
        if self.definition != DEFINITION:
            found = f"a calibration by definition {self.definition}"
            raise MonoError(found, f"definition {DEFINITION}", "calibrate again with this version")
        if self.lag_s is None and self.pitch_rad is None:
            raise MonoError("a calibration with neither lag_s nor pitch_rad", "at least one", "calibrate again")
        for name, value, most in (("lag_s", self.lag_s, _MOST_LAG_S), ("pitch_rad", self.pitch_rad, _MOST_PITCH_RAD)):
            if value is not None and not abs(value) <= most:
                raise MonoError(f"a calibration with {name} = {value}", f"within {most:g} of zero", "calibrate again")

    @property
    def required_offset_s(self) -> float:
        """The time offset, for who asks for nothing else; MonoError where it is not known."""
        if self.lag_s is None:
            do = "calibrate on a bag with turns, or leave it out"
            raise MonoError("the calibration holds no lag_s", "one that does", do)
        return self.lag_s

    @property
    def offset_ns(self) -> int:
        """The time offset in nanoseconds; 0 where it is not known, which leaves every picture at its header stamp."""
        return 0 if self.lag_s is None else round(self.lag_s * 1e9)


def read_calibration(path: Path | str) -> Calibration:
    """A calibration from its YAML file.

    Raises:
        MonoError: absent, unreadable, of another definition, with unknown keys or impossible values.
    """
    values = read_yaml(path)
    check_keys(Calibration, values, path)
    # By hand, not by pydantic: the node that drives runs where it is not installed.
    if isinstance(values.get("intrinsics"), dict):
        values["intrinsics"] = _constructed(Intrinsics, values["intrinsics"], f"{path}: intrinsics.")
    return _constructed(Calibration, values, f"{path}: ")


def _constructed(cls: type[Settings], values: dict[str, Any], source: str) -> Settings:
    """The dataclass with its values in their types; a whole number serves as a float, a list as a tuple."""
    hints = get_type_hints(cls)
    for key, value in values.items():
        allowed = set(get_args(hints[key])) - {Ellipsis} or {hints[key]}
        items = value if isinstance(value, list) and get_origin(hints[key]) is tuple else [value]
        kinds = {float if type(item) is int and float in allowed else type(item) for item in items}
        if not kinds <= allowed or (get_origin(hints[key]) is tuple and items is not value):
            raise MonoError(f"{source}{key} = {value!r}", str(hints[key]), "correct it, or calibrate again")
        if float in allowed and value is not None:
            values[key] = tuple(map(float, items)) if items is value else float(value)
    required = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
    if required:
        raise MonoError(f"{source}no {required[0]}", "all of " + ", ".join(required), "calibrate again")
    return cls(**values)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the YAML file in one step; what is not known is left out."""
    values = {name: value for name, value in plain(calibration).items() if value is not None}
    write_atomically(path, _HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def describe(calibration: Calibration) -> str:
    """Time offset and pitch in a line for a terminal."""
    parts = []
    if calibration.lag_s is not None:
        spread = "" if calibration.lag_sd_s is None else f" +- {1e3 * calibration.lag_sd_s:.1f}"
        parts.append(f"time offset {1e3 * calibration.lag_s:.1f}{spread} ms")
    if calibration.pitch_rad is not None:
        spread = "" if calibration.pitch_sd_rad is None else f" +- {math.degrees(calibration.pitch_sd_rad):.2f}"
        parts.append(f"pitch {math.degrees(calibration.pitch_rad):.2f}{spread} degrees")
    return ", ".join(parts)
