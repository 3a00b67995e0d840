"""What a sample is: one line of a dataset, and how a path and a text become one with its label, claim and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticSerializationError

from collector.geometry.constants import FRAME_STEPS, FUTURE_STEPS, HISTORY_STEPS, STEP_S
from collector.geometry.curvature import CurveThresholds, PathLabel
from collector.geometry.road import LocalRoad
from collector.reasoning.claims import LateralClaim, LongitudinalClaim, PaceClaim, PositionClaim
from collector.reasoning.consistency import ClaimCheck, Motion, check_claim, parse_claim
from collector.reasoning.manners import Manner

UNKNOWN_ROAD = ((0.0, 0.0, 0.0, 0.0, 0.0),)


def _inside(name: str) -> str:
    """A file's name below the dataset folder, as :func:`image_name` makes them."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(ord(letter) < 32 for letter in name):
        raise ValueError("a file below the dataset folder is expected")
    return name


FrameName = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_inside)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PoseRow = tuple[Finite, Finite, Finite]
RoadRow = tuple[Finite, Finite, Finite, Finite, Finite]
Split = Literal["train", "val"]


class _Strict(BaseModel):
    """Knows its fields only; one that is optional and not given is not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {name for name, each in type(self).model_fields.items() if each.default is None}
        return {name: value for name, value in write(self).items() if value is not None or name not in absent}


class Curve(_Strict):
    """The curve label of the reasoning's window (:class:`collector.geometry.curvature.CurveLabel`).

    A straight path has in ``entry_m`` the length driven in the window, before which no curve begins: Hugging Face
    learns the type of a column from the first lines, and many straights in a row would teach it "always null". (A
    null, from older datasets, is read.)
    """

    label: PathLabel
    max_abs_curvature_1pm: Finite
    entry_m: Finite | None
    turn_rad: Finite


class TextClaim(_Strict):
    """What the reasoning claims (:class:`collector.reasoning.claims.Claim`)."""

    lateral: LateralClaim
    longitudinal: LongitudinalClaim
    # Only in datasets of manners.
    position: PositionClaim | None = None
    pace: PaceClaim | None = None


class Sample(_Strict):
    """One line of ``metadata.jsonl``; poses are in the ego frame at t0, metres and radians."""

    file_name: FrameName  # the front frame at t0, relative to the dataset folder
    # the last four front frames at 10 Hz, oldest first; the last one is `file_name`
    frames: Annotated[tuple[FrameName, ...], Field(min_length=FRAME_STEPS, max_length=FRAME_STEPS)]
    id: str = Field(min_length=1)  # unique within the dataset
    bag: str  # name of the recording
    lap: Whole  # lap count at t0, 0 where not recorded
    stamp_ns: Whole  # header stamp of the frame at t0; t0 is earlier by the lag of the manifest's calibration
    reasoning: str  # the reasoning
    # 16 poses [x, y, yaw] at t0-1.5 s ... t0, the last one the origin.
    history: Annotated[tuple[PoseRow, ...], Field(min_length=HISTORY_STEPS, max_length=HISTORY_STEPS)]
    # 64 poses at t0+0.1 ... t0+6.4 s.
    future: Annotated[tuple[PoseRow, ...], Field(min_length=FUTURE_STEPS, max_length=FUTURE_STEPS)]
    dt_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = STEP_S  # time between poses
    speed_mps: Finite  # wheel speed at t0 where recorded, else from the poses
    curve: Curve  # label of the path within the reasoning's window
    claim: TextClaim  # what the reasoning claims
    split: Split = "train"  # train or val
    # Only in datasets of manners, there in every sample:
    manner: str | None = None  # how it was driven, e.g. "left slow" (collector.reasoning.manners); "usual" for as ever
    # Samples of one pair have one frame and one history, and each another text and the future that belongs to it;
    # empty for a sample alone.
    pair: str | None = None
    # The road ahead in the ego frame (collector.geometry.road): rows of x_m, y_m, the distances left_m and right_m to
    # its edges (0: not known), and usual_mps, the speed it is usually driven at. One row of zeros: not known.
    road: tuple[RoadRow, ...] | None = None

    @property
    def local_road(self) -> LocalRoad | None:
        """The road ahead, None where it is not known."""
        return LocalRoad.of_rows(self.road or ())

    def history_array(self) -> NDArray[np.float64]:
        """The history as (16, 3)."""
        return np.array(self.history, np.float64)

    def future_array(self) -> NDArray[np.float64]:
        """The future as (64, 3)."""
        return np.array(self.future, np.float64)


class QuarantinedSample(Sample):
    """One line of ``quarantine.jsonl``: a sample, and under ``verdict`` why it must not train."""

    verdict: dict[str, Any]


AnySample = TypeVar("AnySample", bound=Sample)


def judged_sample(
    facts: Mapping[str, Any],
    poses: NDArray[np.float64],
    motion: Motion,
    text: str,
    thresholds: CurveThresholds,
    manner: Manner | None = None,
    road: LocalRoad | None = None,
    pair: str = "",
) -> tuple[Sample, dict[str, Any] | None]:
    """A sample and why it must not train, None when it may.

    ``facts`` are its fields from ``file_name`` to ``stamp_ns``, its speed and its split; ``poses`` (80, 3) its history
    and its future in the ego frame; ``motion`` is what the future does. With a manner the sample says its manner, its
    pair and its road.
    """
    claim = parse_claim(text)
    check = check_claim(claim, motion)
    places: dict[str, Any] = {}
    claimed: dict[str, Any] = {"lateral": claim.lateral, "longitudinal": claim.longitudinal}
    if manner is not None:
        places = {"manner": manner.words, "pair": pair, "road": UNKNOWN_ROAD if road is None else road.rows()}
        claimed |= {"position": claim.position, "pace": claim.pace}
    steps = max(1, min(FUTURE_STEPS, round(thresholds.window_s / STEP_S)))
    sample = Sample(
        **facts,
        reasoning=text,
        history=pose_rows(poses[:HISTORY_STEPS]),
        future=pose_rows(poses[HISTORY_STEPS:]),
        dt_s=STEP_S,
        curve=Curve(
            label=motion.curve.label,
            max_abs_curvature_1pm=motion.curve.max_abs_curvature_1pm,
            entry_m=seen_m(poses, steps) if motion.curve.entry_m is None else motion.curve.entry_m,
            turn_rad=motion.curve.turn_rad,
        ),
        claim=TextClaim(**claimed),
        **places,
    )
    return sample, None if check.keep else _verdict(check, motion, thresholds)


def _verdict(check: ClaimCheck, motion: Motion, thresholds: CurveThresholds) -> dict[str, Any]:
    measured = ("lateral", "longitudinal", "speed_start_mps", "speed_end_mps")
    return {
        **{name: getattr(check, name) for name in ("reason", "lateral", "longitudinal")},
        **{name: said for name in ("position", "pace") if (said := getattr(check, name)) != "no_claim"},
        "measured": {name: getattr(motion, name) for name in measured},
        **({} if motion.place is None else {"place": asdict(motion.place)}),
        "thresholds": asdict(thresholds),
    }


def seen_m(poses: NDArray[np.float64], steps: int) -> float:
    """How far (80, 3) poses go within so many steps of the future."""
    run = np.diff(poses[HISTORY_STEPS - 1 : HISTORY_STEPS + steps, :2], axis=0)
    return float(np.sum(np.hypot(run[:, 0], run[:, 1])))


def pose_rows(poses: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    """(N, 3) as plain numbers."""
    return tuple((x, y, yaw) for x, y, yaw in poses.tolist())


def written(sample: Sample) -> str:
    """A sample as JSON. Ctrl-C in the middle of it stays one, of which pydantic makes an error of its own."""
    try:
        return sample.model_dump_json()
    except PydanticSerializationError as error:
        if KeyboardInterrupt.__name__ in str(error):
            raise KeyboardInterrupt from error
        raise
