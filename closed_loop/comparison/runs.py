"""One run of the before/after experiment: a driver on a course from several starts, measured and kept on disk.

A run is the unit of resuming: what is finished is not driven again, and a run is only reused by an experiment
that asks for exactly the same thing of exactly the same weights and code.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from closed_loop.comparison.deviation import Deviation, measure, summarise
from closed_loop.comparison.instructed import Script, measure_script
from closed_loop.comparison.reasoning import check_plans, summarise_checks
from closed_loop.comparison.rollout import Rollout, RolloutConfig, check_told, drive_many
from closed_loop.course.design import course_file, course_named
from closed_loop.simulator.expert import ExpertConfig
from closed_loop.simulator.modes import ModeName
from closed_loop.simulator.world import World, config_of
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.run_folder import hash_path, plain
from collector.common.text_files import read_json
from collector.ros.parameters import SimulatorParameters
from collector.vehicle.model import VehicleModel
from finetune.policy import FUTURE_STEPS, Policy

# A finished run: its row for JSON, and a table of arrays per drive.
Driven = tuple[dict[str, Any], list[dict[str, NDArray[Any]]]]


@dataclass(frozen=True)
class Variant:
    """Who drives."""

    name: str  # on the command line and in files
    colour: str  # in plots
    label: str  # in tables and plots
    role: str  # control, before, after or expert
    cameras: str = ""  # camera mode; empty for the expert
    adapted: bool = False  # with the adapter


# Rows of one camera, without and with the adapter: what the comparison is about.
BEFORE_AFTER = ("before", "after")
VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("base-four", "#3567b0", "base, four cameras", "control", "four"),
        Variant("base-padded", "#8a5bb5", "base, one camera padded", "before", "mono-padded"),
        Variant("base-mono", "#d1432f", "base, one camera", "before", "mono"),
        Variant("base-mono-4frames", "#e08a2e", "base, one camera x 4 frames", "before", "mono-4frames"),
        Variant("adapter-padded", "#5d8f2a", "adapter, one camera padded", "after", "mono-padded", True),
        Variant("adapter-mono", "#1d8a4e", "adapter, one camera", "after", "mono", True),
        Variant("adapter-mono-4frames", "#12877f", "adapter, one camera x 4 frames", "after", "mono-4frames", True),
        Variant("expert", "#6b7280", "expert", "expert"),
    )
}


@dataclass(frozen=True)
class RunSettings:
    """Everything besides the policy and the course that decides what a run measures."""

    starts: int = 3  # drives per course, evenly spread over the lap
    reference: str = ""  # the line the deviation is measured from; empty for the course's own
    seed: int = 0  # of scenery and noise
    rollout: RolloutConfig = field(default_factory=RolloutConfig)  # how a drive runs; its start is that of each drive
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    mode: ModeName = SimulatorParameters.mode  # of the simulated world
    simulated_vehicle: VehicleModel | None = None  # the kart in it; None for the mode's own
    script: Script | None = None  # the same starts are driven once more, and told this


def run_key(variant: Variant, course: str, settings: RunSettings, driver: Mapping[str, Any]) -> str:
    """Fingerprint of a run; ``driver`` holds hashes of weights and code, and the policy's options.

    A course that is a file counts with what it says: another file in its place is another course.
    """
    who = [variant.name, variant.role, variant.cameras, variant.adapted]
    files = [file and hash_path(file) for file in map(course_file, filter(None, (course, settings.reference)))]
    text = json.dumps([who, course, files, plain(settings), plain(driver)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def drive_run(
    variant: Variant,
    course_spec: str,
    policy: Policy | None,
    settings: RunSettings,
    progress: Callable[[float], object] = lambda _share: None,
) -> Driven:
    """Drive and measure one run: its row (:func:`closed_loop.comparison.table.assemble`) and one array table per drive.

    With a script the told drives' tables follow those of the usual ones.

    Without a policy the expert drives. ``progress`` hears now and then the share driven.
    """
    road = course_named(course_spec)
    reference = course_named(settings.reference) if settings.reference else None
    # Evenly spread over a lap; an open course has one start, its beginning.
    starts_m = [road.length_m * index / settings.starts for index in range(settings.starts)] if road.closed else [0.0]
    configs = [replace(settings.rollout, start_s_m=start_m) for start_m in starts_m]
    if settings.script is not None and policy is not None:
        check_told(policy, settings.script.instructions)  # before the usual drives, which take their time
    began = time.perf_counter()
    # A run is the same whichever was driven before it in this process.
    getattr(policy, "forget", lambda: None)()
    world = config_of(settings.mode, settings.simulated_vehicle)
    worlds = [World(road, settings.seed, world) for _ in starts_m]
    expert = replace(settings.expert, vehicle=world.vehicle)
    rollouts = drive_many(worlds, policy or expert, configs, progress)
    told = _drive_told(settings, policy, worlds, configs)
    wall_s = time.perf_counter() - began
    asked = max(1, round(settings.rollout.laps))
    deviations, told_deviations = (
        [
            measure(rollout.t_s, rollout.poses, road, reference, resets_s=rollout.resets_s, laps_asked=asked)
            for rollout in each
        ]
        for each in (rollouts, told)
    )
    checks = [
        check
        for rollout, deviation in zip(rollouts, deviations, strict=True)
        for check in check_plans(rollout.plans, deviation, road)
    ]
    row = {
        "variant": variant.name,
        "course": course_spec,
        "starts_m": starts_m,
        # Nobody's plans are late where the expert drives.
        "latency_s": None if policy is None else settings.rollout.faults.latency_s,
        "jitter_s": None if policy is None else settings.rollout.faults.jitter_s,
        "deviation": summarise(deviations),
        "reasonings": summarise_checks(checks),
        "timings_ms": _timings(rollouts),
        "passes_per_plan": _passes(rollouts),
        "bad_plans": sum(event.what == "bad_plan" for rollout in rollouts for event in rollout.events),
        "brakes": dict(sum((Counter(rollout.brakes) for rollout in rollouts), Counter())),
        "ends": [rollout.end for rollout in rollouts],
        "simulated_s": float(sum(rollout.t_s[-1] for rollout in rollouts)),
        "wall_s": wall_s,
    }
    tables = list(map(drive_table, rollouts, deviations))
    if settings.script is not None and told:
        usual, own = (list(zip(*each, strict=True)) for each in ((rollouts, deviations), (told, told_deviations)))
        row["instructed"] = measure_script(settings.script, own, usual, road)
        tables += list(map(drive_table, told, told_deviations))
    return row, tables


def _drive_told(
    settings: RunSettings, policy: Policy | None, worlds: Sequence[World], configs: Sequence[RolloutConfig]
) -> list[Rollout]:
    """The same starts once more with a script, for as long as it takes; none where there is none, or no policy."""
    script = settings.script
    if script is None or policy is None:
        return []
    told = [script.drive(config, start, len(configs)) for start, config in enumerate(configs)]
    getattr(policy, "forget", lambda: None)()
    return drive_many([World(world.course, world.seed, world.config) for world in worlds], policy, told)


def _timings(rollouts: Sequence[Rollout]) -> dict[str, dict[str, float]]:
    """p50 and p95 of each stage over all plans; of a batch of karts, the time of the whole pass."""
    stages: dict[str, list[float]] = {}
    for placed in (placed for rollout in rollouts for placed in rollout.plans):
        for stage, value in placed.plan.timings_ms.items():
            stages.setdefault(stage, []).append(float(value))
    return {stage: dict(zip(("p50", "p95"), np.percentile(ms, (50, 95)), strict=True)) for stage, ms in stages.items()}


def _passes(rollouts: Sequence[Rollout]) -> float | None:
    """Mean number of passes that a plan's reasoning took; those of a batch of karts, whose slowest row decides."""
    passes = [placed.plan.passes for rollout in rollouts for placed in rollout.plans]
    return float(np.mean(passes)) if passes else None


def drive_table(rollout: Rollout, deviation: Deviation) -> dict[str, NDArray[Any]]:
    """A drive as arrays for ``.npz``: what plots, videos and later questions need, no pickles."""
    plans = rollout.plans
    return {
        **deviation.arrays(),
        "speed_mps": rollout.speed_mps,
        "steer_rad": rollout.steer_rad,
        "accel_mps2": rollout.accel_mps2,
        "plan_stamp_s": np.array([placed.plan.stamp_ns * 1e-9 for placed in plans], np.float64),
        "plan_pose_map": np.array([placed.pose_map for placed in plans], np.float64).reshape(-1, 3),
        "plan_poses": np.array([placed.plan.poses for placed in plans], np.float32).reshape(-1, FUTURE_STEPS, 3),
        "plan_reasoning": np.array([placed.plan.reasoning for placed in plans], dtype=np.str_),
    }


class RunStore:
    """Finished runs of a run folder: ``runs/<variant>__<course>.json`` and ``drives/...__<n>.npz``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("runs", "drives"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def _stem(self, variant: str, course: str, settings: RunSettings) -> str:
        base = Path(course).stem if Path(course).suffix else course
        slug = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in base)
        # Two files of one name in different folders must not share a run.
        tail = "" if slug == course.replace(":", "-") else "-" + hashlib.sha256(course.encode()).hexdigest()[:6]
        faults = settings.rollout.faults
        late = "" if faults == RunSettings().rollout.faults else f"__late-{faults.latency_s:g}-{faults.jitter_s:g}"
        return f"{variant}__{slug}{tail}{late}"

    def load(self, variant: str, course: str, settings: RunSettings, key: str) -> dict[str, Any] | None:
        """A finished run with this key, or None."""
        try:
            row = read_json(self.folder / "runs" / f"{self._stem(variant, course, settings)}.json")
            if row.get("key") != key or not row.get("drives"):
                return None
            for name in (*row["drives"], *row.get("told_drives", ())):
                load_drive(self.folder / name)  # a power cut may have taken half of it
        except MonoError:
            return None
        return row

    def save(
        self, row: dict[str, Any], tables: Sequence[Mapping[str, NDArray[Any]]], settings: RunSettings, key: str
    ) -> dict[str, Any]:
        """Write a run, its row last; returns it with ``drives``, ``told_drives`` (paths inside) and ``key``."""
        stem = self._stem(row["variant"], row["course"], settings)
        names = [f"drives/{stem}__{index}.npz" for index in range(len(tables))]
        for name, table in zip(names, tables, strict=True):
            np.savez_compressed(self.folder / name, **dict(table))  # type: ignore[arg-type]
        usual = len(row["starts_m"])
        told = {"told_drives": names[usual:]} if names[usual:] else {}
        row = {**plain(row), "drives": names[:usual], **told, "key": key}
        write_atomically(self.folder / "runs" / f"{stem}.json", json.dumps(row, indent=2, allow_nan=False) + "\n")
        return row


def films_of_told(runs: Sequence[tuple[Mapping[str, Any], RunSettings]], folder: Path) -> None:
    """``films/....webm`` of the first start of each run that was told something, where there is none of it yet."""
    for row, settings in runs:
        names = row.get("told_drives")
        if settings.script is None or not names:
            continue
        from closed_loop.comparison.film import write_film

        film = folder / "films" / f"{Path(names[0]).stem}.webm"
        if film.is_file() and film.stat().st_mtime >= (folder / names[0]).stat().st_mtime:
            continue
        film.parent.mkdir(exist_ok=True)
        world = World(course_named(row["course"]), settings.seed, config_of(settings.mode, settings.simulated_vehicle))
        if write_film(film, load_drive(folder / names[0]), settings.script.part(0, len(names)), world):
            print(f"film: {film}")
        else:
            print(f"no film: this OpenCV writes no WebM; the drive is in {folder / names[0]}", file=sys.stderr)


def load_drive(path: Path) -> dict[str, NDArray[Any]]:
    """A drive as :func:`drive_table` made it (MonoError: no such file, or not one of ours)."""
    try:
        with np.load(path, allow_pickle=False) as table:
            return {name: table[name] for name in table.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise MonoError(
            f"{path} cannot be read as a drive: {error}", "an .npz of `alpamayo-mono compare`", "drive it again"
        ) from error
