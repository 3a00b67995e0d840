"""One run of the before/after experiment: a driver on a course from several starts, measured and kept on disk.

A run is the unit of resuming: what is finished is not driven again, and a run is only reused by an experiment
that asks for exactly the same thing of exactly the same weights and code.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closed_loop.comparison.deviation import Deviation, measure, summarise
from closed_loop.comparison.drives import Drive, RolloutConfig
from closed_loop.comparison.reasoning import PlannedMoment, check_plans, summarise_checks
from closed_loop.comparison.rollout import drive_many
from closed_loop.control.controller import ControllerConfig, TrackingController
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.run_folder import plain
from finetune.policy import FUTURE_STEPS, Policy


@dataclass(frozen=True)
class Variant:
    """Who drives.

    Attributes:
        name: on the command line and in files.
        label: in tables and plots.
        role: control, before, after or expert.
        cameras: camera mode; empty for the expert.
        adapted: with the adapter.
    """

    name: str
    label: str
    role: str
    cameras: str = ""
    adapted: bool = False


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("base-four", "base, four cameras", "control", "four"),
        Variant("base-padded", "base, one camera padded", "before", "mono-padded"),
        Variant("base-mono", "base, one camera", "before", "mono"),
        Variant("base-mono-4frames", "base, one camera x 4 frames", "before", "mono-4frames"),
        Variant("adapter-padded", "adapter, one camera padded", "after", "mono-padded", True),
        Variant("adapter-mono", "adapter, one camera", "after", "mono", True),
        Variant("adapter-mono-4frames", "adapter, one camera x 4 frames", "after", "mono-4frames", True),
        Variant("expert", "expert", "expert"),
    )
}


@dataclass(frozen=True)
class RunSettings:
    """Everything besides the driver and the course that decides what a run measures."""

    starts: int = 3
    laps: float = 1.0
    reference: str = ""
    replan_s: float = 0.2
    latency_s: float = 0.15
    max_speed_mps: float = 5.0
    max_off_track: int = 5
    seed: int = 0
    controller: ControllerConfig = field(default_factory=ControllerConfig)


def run_key(variant: Variant, course: str, settings: RunSettings, driver: Mapping[str, Any]) -> str:
    """Fingerprint of a run; ``driver`` holds hashes of weights and code, and the policy's options."""
    text = json.dumps([asdict(variant), course, plain(settings), plain(driver)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def starts_of(course: Course, count: int) -> list[float]:
    """Stations of the starts, evenly spread over a lap; an open course has one, its beginning."""
    return [course.length_m * index / count for index in range(count)] if course.closed else [0.0]


def drive_run(
    variant: Variant,
    course_spec: str,
    policy: Policy | None,
    settings: RunSettings,
    progress: Callable[[float], Any] | None = None,
) -> tuple[dict[str, Any], list[dict[str, NDArray[Any]]]]:
    """Drive and measure one run.

    Args:
        variant: who drives.
        course_spec: as :func:`course_named` takes it.
        policy: None for the expert.
        settings: how.
        progress: called now and then with the share driven.

    Returns:
        the row for JSON (see :func:`closed_loop.comparison.compare.compare`) and one array table per drive.
    """
    road = course_named(course_spec)
    reference = course_named(settings.reference) if settings.reference else None
    starts_m = starts_of(road, settings.starts)
    configs = [
        RolloutConfig(
            laps=settings.laps,
            start_s_m=start_m,
            replan_s=settings.replan_s,
            latency_s=settings.latency_s,
            max_off_track=settings.max_off_track,
        )
        for start_m in starts_m
    ]
    began = time.perf_counter()
    drives = drive_many(
        [road] * len(starts_m),
        policy if policy is not None else ExpertConfig(max_speed_mps=settings.max_speed_mps),
        None if policy is None else lambda: TrackingController(settings.controller),
        configs,
        settings.seed,
        progress,
    )
    wall_s = time.perf_counter() - began
    asked = max(1, round(settings.laps))
    deviations = [
        measure(drive.t_s, drive.poses, road, reference, recovered_s=drive.recovered_s, laps_asked=asked)
        for drive in drives
    ]
    checks = [
        check
        for drive, deviation in zip(drives, deviations)
        for check in check_plans(
            [PlannedMoment(plan.stamp_s, plan.pose_map, plan.poses, plan.reasoning) for plan in drive.plans],
            drive.t_s,
            drive.poses,
            road,
            recovered_s=drive.recovered_s,
            usable=~deviation.off_track,
        )
    ]
    row = {
        "variant": variant.name,
        "course": course_spec,
        "starts_m": starts_m,
        "deviation": summarise(deviations),
        "reasonings": summarise_checks(checks),
        "timings_ms": _timings(drives),
        "bad_plans": sum(event.what == "bad_plan" for drive in drives for event in drive.events),
        "ends": [drive.end for drive in drives],
        "simulated_s": float(sum(drive.t_s[-1] for drive in drives)),
        "wall_s": wall_s,
    }
    return row, [drive_table(drive, deviation) for drive, deviation in zip(drives, deviations)]


def _timings(drives: Sequence[Drive]) -> dict[str, dict[str, float]]:
    """p50 and p95 of each stage over all plans; of a batch of karts, the time of the whole pass."""
    stages: dict[str, list[float]] = {}
    for drive in drives:
        for plan in drive.plans:
            for stage, value in plan.timings_ms.items():
                stages.setdefault(stage, []).append(float(value))
    return {
        stage: {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95))}
        for stage, values in stages.items()
    }


def drive_table(drive: Drive, deviation: Deviation) -> dict[str, NDArray[Any]]:
    """A drive as arrays for ``.npz``: what plots, videos and later questions need, no pickles."""
    plans = drive.plans
    return {
        **deviation.arrays(),
        "speed_mps": drive.speed_mps,
        "steer_rad": drive.steer_rad,
        "accel_mps2": drive.accel_mps2,
        "plan_stamp_s": np.array([plan.stamp_s for plan in plans], np.float64),
        "plan_pose_map": np.array([plan.pose_map for plan in plans], np.float64).reshape(-1, 3),
        "plan_poses": np.array([plan.poses for plan in plans], np.float32).reshape(-1, FUTURE_STEPS, 3),
        "plan_reasoning": np.array([plan.reasoning for plan in plans], dtype=np.str_),
    }


class RunStore:
    """Finished runs of a run folder: ``runs/<variant>__<course>.json`` and ``drives/...__<n>.npz``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("runs", "drives"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def _stem(self, variant: str, course: str) -> str:
        base = Path(course).stem if Path(course).suffix else course
        slug = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in base)
        # Two files of one name in different folders must not share a run.
        tail = "" if slug == course.replace(":", "-") else "-" + hashlib.sha256(course.encode()).hexdigest()[:6]
        return f"{variant}__{slug}{tail}"

    def load(self, variant: str, course: str, key: str) -> dict[str, Any] | None:
        """A finished run with this key, or None."""
        path = self.folder / "runs" / f"{self._stem(variant, course)}.json"
        try:
            row = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(row, dict) or row.get("key") != key:
            return None
        return row if all((self.folder / name).is_file() for name in row["drives"]) else None

    def save(self, row: dict[str, Any], tables: Sequence[Mapping[str, NDArray[Any]]], key: str) -> dict[str, Any]:
        """Write a run, its row last; returns the row with ``drives`` (paths inside the folder) and ``key``."""
        stem = self._stem(row["variant"], row["course"])
        names = [f"drives/{stem}__{index}.npz" for index in range(len(tables))]
        for name, table in zip(names, tables):
            np.savez_compressed(self.folder / name, **dict(table))  # type: ignore[arg-type]
        row = {**plain(row), "drives": names, "key": key}
        write_atomically(self.folder / "runs" / f"{stem}.json", json.dumps(row, indent=2, allow_nan=False) + "\n")
        return row


def load_drive(path: Path) -> dict[str, NDArray[Any]]:
    """A drive as :func:`drive_table` made it.

    Raises:
        MonoError: no such file, or not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as table:
            return {name: table[name] for name in table.files}
    except (OSError, ValueError, EOFError) as error:
        raise MonoError(f"{path} cannot be read as a drive: {error}", "an .npz of `alpamayo-mono compare`") from error
