"""What a drive leaves behind: a line per plan, the driven track, and figures about how well the loop ran.

``plans.jsonl`` is written as the drive goes (a crash keeps it), ``metrics.json`` and ``drive.npz`` at its end.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closed_loop.control.driver import Tick
from closed_loop.serving.client import PlanReply
from collector.common.errors import MonoError
from collector.common.files import PART, path_error
from collector.common.output_folder import PROVENANCE_FILE, OutputFolder
from collector.common.run_folder import RunFolder
from collector.geometry.discontinuity import StampedTime, teleports

_PLANS, _TRACK = "plans.jsonl", "drive.npz"
_FILES = {_PLANS, _TRACK, PROVENANCE_FILE, "config.yaml", "metrics.json"}
_ROOM_BYTES = 256 * 1024  # kept for the metrics on a disk that fills up meanwhile


class DriveLog:
    """Collects one drive in a run folder, which is made if absent. Methods may be called from several threads.

    Raises:
        MonoError: the folder cannot be written, or holds another drive already.
    """

    def __init__(self, out: Path, clock: Callable[[], float] = time.monotonic, poses: str = "poses_map") -> None:
        self.out, self._clock = out, clock
        self._poses = poses  # the name of the poses in drive.npz, which says their frame
        self._lock = threading.Lock()
        self._odometry: list[tuple[float, float, float, float, float]] = []
        self._ticks: list[tuple[float, float, float, float, float]] = []
        self._tick_steady_s: list[float] = []
        self._time = StampedTime()
        self._timings_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._passes: list[int] = []
        self._reasoning_ages_s: list[float] = []
        self._arrival_ages_s: list[float] = []
        self._events: list[dict[str, Any]] = []
        self._braked_s: defaultdict[str, float] = defaultdict(float)
        self.error: MonoError | None = None  # why something could not be written
        self._folder = OutputFolder(out)
        require_undriven(self._folder)
        try:
            for left in self._folder.entries():
                left.unlink()
            self._plans_file = (out / _PLANS).open("x", encoding="utf-8")
            self._room = out / f"room{PART}"
            with self._room.open("wb") as room:
                os.posix_fallocate(room.fileno(), 0, _ROOM_BYTES)
        except OSError as error:
            raise MonoError(f"{out}: {error.strerror}", "a folder of yours", "choose another out:=") from error

    def odometry(self, stamp_ns: int, pose: tuple[float, float, float], speed_mps: float) -> None:
        """Note where the kart was."""
        with self._lock:
            self._odometry.append((stamp_ns * 1e-9, *pose, speed_mps))

    def tick(self, tick: Tick) -> None:
        """Note one control tick; those before the first odometry have no time and are left out."""
        if tick.stamp_ns is None:
            return
        now_s = tick.stamp_ns * 1e-9
        age_s = math.nan if tick.plan_age_s is None else tick.plan_age_s
        with self._lock:
            if self._ticks and not tick.decision.drive:
                self._braked_s[tick.decision.reason] += max(0.0, now_s - self._ticks[-1][0])
            command, driving = tick.command, float(tick.decision.drive)
            self._ticks.append((now_s, command.steer_rad, command.accel_mps2, age_s, driving))
            self._tick_steady_s.append(self._clock())
            self._time.add(tick.stamp_ns)

    def plan(self, reply: PlanReply, arrived_ns: int, defect: str) -> None:
        """Note a plan as it arrives, sane or not."""
        plan = reply.plan
        age_s = (arrived_ns - plan.stamp_ns) * 1e-9
        line = {
            "stamp_ns": plan.stamp_ns,
            "arrived_ns": arrived_ns,
            "age_s": round(age_s, 4),
            "compute_ms": round(reply.compute_ms, 2),
            "round_trip_ms": round(reply.round_trip_ms, 2),
            "timings_ms": {name: round(value, 2) for name, value in plan.timings_ms.items()},
            "started_ns": plan.started_ns,
            "ended_ns": plan.ended_ns,
            "passes": plan.passes,
            "reasoning_age_s": round(plan.reasoning_age_s, 4),
            "reasoning": plan.reasoning,
            "defect": defect,
            "poses": np.round(np.nan_to_num(plan.poses, nan=1e9, posinf=1e9, neginf=-1e9), 4).tolist(),
        }
        with self._lock:
            if self._plans_file.closed:
                return
            self._arrival_ages_s.append(age_s)
            self._passes.append(plan.passes)
            self._reasoning_ages_s.append(plan.reasoning_age_s)
            stages = {f"stage_{name}": float(value) for name, value in plan.timings_ms.items()}
            for name, value in {"compute": reply.compute_ms, "round_trip": reply.round_trip_ms, **stages}.items():
                self._timings_ms[name].append(value)
            with self._noting_errors(self.out / _PLANS):
                self._plans_file.write(json.dumps(line) + "\n")
                self._plans_file.flush()

    def event(self, stamp_ns: int | None, what: str, detail: str = "") -> None:
        """Note a change worth reading later: braking, driving again, a lap, an error."""
        with self._lock:
            self._events.append({"t_s": None if stamp_ns is None else stamp_ns * 1e-9, "what": what, "detail": detail})

    @contextmanager
    def _noting_errors(self, path: Path) -> Iterator[None]:
        """A disk that is full must end the drive and not the thread that notices; the first error is kept."""
        try:
            yield
        except OSError as error:
            self.error = self.error or path_error(error, path)

    def finish(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files and return the metrics, ``extra`` entries among them; see ``error`` for what failed."""
        with self._lock:
            with suppress(OSError):  # what is left of a line that found no room
                self._plans_file.close()
            ticks = np.array(self._ticks, np.float64).reshape(-1, 5)
            odometry = np.array(self._odometry, np.float64).reshape(-1, 5)
            metrics = {**self._metrics(ticks, odometry), **extra}
        with suppress(OSError):
            self._room.unlink()
        if not (self.out / _PLANS).is_file():  # the folder was tidied away, and what comes now is worth having
            found = f"{self.out / _PLANS} was removed while the drive went on"
            self.error = self.error or MonoError(found, "a folder that stays", "see who removes it; the rest is there")
            with self._noting_errors(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
        # The metrics first: they are small, and what a person wants.
        with self._noting_errors(self.out):
            RunFolder(self.out).write_metrics(metrics)
        with self._noting_errors(self.out / _TRACK):
            self._write_track(odometry, ticks)
        self._folder.close()
        return metrics

    def _write_track(self, odometry: NDArray[np.float64], ticks: NDArray[np.float64]) -> None:
        track = self.out / _TRACK
        try:
            np.savez_compressed(
                track,
                t_s=odometry[:, 0],
                **{self._poses: odometry[:, 1:4]},  # type: ignore[arg-type]
                speed_mps=odometry[:, 4],
                command_t_s=ticks[:, 0],
                commands=ticks[:, 1:3],
                plan_age_s=ticks[:, 3],
                driving=ticks[:, 4] > 0,
            )
        except OSError:
            track.unlink(missing_ok=True)  # half of it would be taken for a drive
            raise

    def _metrics(self, ticks: NDArray[np.float64], odometry: NDArray[np.float64]) -> dict[str, Any]:
        driving, plans = ticks[:, 4] > 0, len(self._arrival_ages_s)
        gaps_s = np.diff(self._tick_steady_s)
        simulated_s = self._time.passed_s
        steps_m = np.hypot(*np.diff(odometry[:, 1:3], axis=0).T)
        driven = ~teleports(odometry[:, 0], odometry[:, 1:3])[1:]
        return {
            "simulated_s": round(simulated_s, 3),
            "wall_s": round(float(gaps_s.sum()), 3),
            "distance_m": round(float(steps_m[driven].sum()), 2),
            "control_rate_hz": round(len(gaps_s) / simulated_s, 2) if simulated_s > 0 else None,
            "control_gap_ms": _spread(gaps_s * 1e3),
            "plan_age_s": _spread(ticks[driving, 3]),
            "plan_age_on_arrival_s": _spread(self._arrival_ages_s),
            "plans": plans,
            "reasoning_age_s": _spread(self._reasoning_ages_s),
            "passes_per_plan": round(float(np.mean(self._passes)), 2) if plans else None,
            "plans_per_s": round(plans / simulated_s, 2) if simulated_s > 0 else None,
            "timings_ms": {name: _spread(values) for name, values in sorted(self._timings_ms.items())},
            "braked_s": {reason: round(seconds, 2) for reason, seconds in sorted(self._braked_s.items())},
            "events": self._events,
        }


def require_undriven(folder: OutputFolder) -> None:
    """Refuse (MonoError) a folder that holds anything but what a start leaves that never had a plan."""
    names = {entry.name for entry in folder.entries()}
    plans = folder.path / _PLANS
    if not names or (_PLANS in names and names <= _FILES and not plans.stat().st_size):
        return
    if _PLANS in names:
        raise MonoError(f"{folder.path} already holds a drive", "a new folder", "choose another out:=")
    folder.require_empty(do="choose another out:=")


def _spread(values: ArrayLike) -> dict[str, float] | None:
    """p50, p95 and maximum, None without values."""
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    if not array.size:
        return None
    p50, p95 = np.percentile(array, (50, 95))
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "max": round(float(array.max()), 4)}
