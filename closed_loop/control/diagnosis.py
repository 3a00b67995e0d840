"""What the safety monitor knows of each input, in words and numbers for people and their tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from closed_loop.control.safety_monitor import Decision, Health, SafetyMonitor

Level = Literal["ok", "warn", "error", "stale"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; its fields are those of a ``diagnostic_msgs/DiagnosticStatus``."""

    name: str
    level: Level
    message: str
    values: Mapping[str, str]


def findings(monitor: SafetyMonitor, decision: Decision, steady_s: float) -> list[Finding]:
    """The decision, and each input on its own: a fault may hide another."""
    words = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
    level: Level = "ok" if decision.drive else "warn" if decision.patient else "error"
    brakes = {f"braked, {reason}": str(count) for reason, count in sorted(monitor.brakes.items())}
    found = [Finding("control", level, "driving" if decision.drive else f"braking: {words}", brakes)]
    limits = monitor.limits
    for health, limit_s in (
        (monitor.camera, limits.frame_age_s),
        (monitor.odometry, limits.odometry_age_s),
        (monitor.plans, None),
    ):
        found.append(_input(health, steady_s, limit_s))
    return found


def _input(health: Health, steady_s: float, limit_s: float | None) -> Finding:
    values = {"good": str(health.count)}
    values |= {f"refused, {what}": str(count) for what, count in sorted(health.refused.items())}
    if health.arrived_s is None and not health.count:
        return Finding(health.name, "error" if health.defect else "stale", health.defect or "none yet", values)
    if limit_s is not None and health.arrived_s is not None:
        age_s = steady_s - health.arrived_s
        values["age, s"] = f"{age_s:.3f}"
        if age_s > limit_s and not health.defect:
            return Finding(health.name, "stale", f"silent for {age_s:.2f} s", values)
    return Finding(health.name, "error" if health.defect else "ok", health.defect or "good", values)
