"""What a bag told of its camera."""

from __future__ import annotations

from dataclasses import dataclass

from collector.calibration.fit import LagFit, PitchFit
from collector.calibration.model import Calibration
from collector.calibration.pairs import Pairs


@dataclass(frozen=True, eq=False)
class Findings:
    """What a bag told: the calibration, what it rests on, and why the rest could not be told.

    Attributes:
        lag, pitch: None where refused.
        refused: a sentence per estimate that could not be made.
    """

    calibration: Calibration
    pairs: Pairs
    lag: LagFit | None
    pitch: PitchFit | None
    refused: tuple[str, ...]
