"""The before/after table: runs summed to one row per variant, for JSON, CSV, a terminal and the report page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from closed_loop.comparison import deviation, instructed, reasoning
from closed_loop.comparison.latency import latency_table
from closed_loop.comparison.runs import VARIANTS, Variant
from collector.common.files import write_atomically
from collector.common.tables import Console, Table, metres, percent, write_csv
from collector.common.text_files import read_json

DISCLAIMER = (
    "The tiny model shows that the loop works and what the recipe does at small scale; "
    "it says nothing about the 10B weights."
)

_SOME_LAPS = 0.01  # less than this says nothing of how long a lap takes


# What version 0.1 wrote, and what it is called now: keys, and names of variants and roles.
_OLD_KEYS = {
    "honesty": "disclaimer",
    "conditions": "variants",
    "condition": "variant",
    "cells": "runs",
    "thoughts": "reasonings",
    "thought_right": "reasoning_right",
    "speed_thought_right": "speed_reasoning_right",
    "thought_matches_lap": "reasoning_matches_lap",
    "thought_path_lap": "reasoning_path_lap",
}
_OLD_NAMES = {"teacher": "expert"}


def current_words(values: Any) -> Any:  # noqa: ANN401 -- raw JSON in, raw JSON out
    """A comparison's JSON as this version writes it; what version 0.1 wrote is translated."""
    if isinstance(values, dict):
        return {_OLD_KEYS.get(key, key): current_words(value) for key, value in values.items()}
    if isinstance(values, list):
        return [current_words(value) for value in values]
    return _OLD_NAMES.get(values, values) if isinstance(values, str) else values


def read_comparison(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a run folder, also of version 0.1's (MonoError: absent, unreadable, or not an object)."""
    metrics: dict[str, Any] = current_words(read_json(folder / "metrics.json"))
    return metrics


def assemble(
    variants: Sequence[Variant], courses: Sequence[str], starts: int, laps: float, runs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """``metrics.json`` from finished runs.

    ``kind`` ("comparison"), ``definitions``, ``disclaimer``, ``variants`` (name, label, role, cameras, adapted),
    ``courses``, ``starts``, ``laps``, ``runs`` (one per variant, course and latency: ``variant, course, latency_s,
    jitter_s, starts_m, deviation, reasonings, timings_ms, bad_plans, brakes, ends, drives, simulated_s, wall_s``;
    ``deviation`` as :func:`closed_loop.comparison.deviation.summarise`, ``reasonings`` as
    :func:`closed_loop.comparison.reasoning.summarise_checks`; with instructions ``instructed`` as
    :func:`closed_loop.comparison.instructed.measure_script`), ``table`` (a row per variant, :func:`table_rows`, at the
    first latency) and ``by_latency`` (a row per variant and latency, :func:`latency_rows`).
    """
    definitions = {"deviation": deviation.DEFINITIONS, "reasonings": reasoning.DEFINITIONS}
    if any(run.get("instructed") for run in runs):
        definitions["instructed"] = instructed.DEFINITIONS
    return {
        "kind": "comparison",
        "definitions": definitions,
        "disclaimer": DISCLAIMER,
        "variants": [asdict(variant) for variant in variants],
        "courses": list(courses),
        "starts": starts,
        "laps": laps,
        "table": table_rows(variants, headline_runs(runs)),
        "by_latency": latency_rows(variants, runs),
        "runs": list(runs),
    }


def latencies(runs: Iterable[Mapping[str, Any]]) -> list[float | None]:
    """The latencies driven, in their order; None is that of the expert, and of runs before latencies were noted."""
    return list(dict.fromkeys(run.get("latency_s") for run in runs))


def has_latencies(metrics: Mapping[str, Any]) -> bool:
    """Whether a comparison drove at more than one latency."""
    return sum(each is not None for each in latencies(metrics["runs"])) > 1


def headline_runs(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs at the first latency, and the expert's."""
    first = next((each for each in latencies(runs) if each is not None), None)
    return [run for run in runs if run.get("latency_s") in {None, first}]


def latency_rows(variants: Iterable[Variant], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per variant and latency over all its courses: :func:`table_rows` with ``latency_s`` and ``jitter_s``."""
    return [
        {**row, "latency_s": latency_s, "jitter_s": own[0].get("jitter_s")}
        for variant in variants
        for latency_s in latencies(runs)
        if (own := [run for run in runs if run["variant"] == variant.name and run.get("latency_s") == latency_s])
        for row in table_rows([variant], own)
    ]


def table_rows(variants: Iterable[Variant], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per variant over all its courses.

    It has ``variant, label, role, max_on_curves_m, rms_on_curves_m, off_track_events, recoveries, laps_finished,
    laps_asked, laps_driven, mean_speed_mps, lap_s`` (time per lap driven), ``reasonings`` (pooled, None for the expert)
    and ``result``.
    """
    rows = []
    for variant in variants:
        own = [run for run in runs if run["variant"] == variant.name]
        if not own:
            continue
        parts = [run["deviation"] for run in own]
        curves = [part["on_curves"] for part in parts if part["on_curves"]["max_m"] is not None]
        driven_m = sum(part["distance_m"] for part in curves)
        counts = {
            key: sum(part[key] for part in parts)
            for key in ("off_track_events", "recoveries", "laps_finished", "laps_asked", "laps_driven")
        }
        duration_s = sum(part["duration_s"] for part in parts)
        square = sum(part["distance_m"] * part["rms_m"] ** 2 for part in curves)
        rows.append(
            {
                "variant": variant.name,
                "label": variant.label,
                "role": variant.role,
                "max_on_curves_m": max((part["max_m"] for part in curves), default=None),
                "rms_on_curves_m": (square / driven_m) ** 0.5 if driven_m else None,
                **counts,
                "mean_speed_mps": sum(part["all"]["distance_m"] for part in parts) / duration_s if duration_s else 0.0,
                "lap_s": duration_s / counts["laps_driven"] if counts["laps_driven"] > _SOME_LAPS else None,
                "reasonings": reasoning.pool(run["reasonings"] for run in own),
                "result": deviation.result_text(counts),
            }
        )
    return rows


WIDE = 136


def consistency(said: Mapping[str, Any] | None) -> str:
    """How many plans do what their reasoning says, and how many of them say anything."""
    return f"{percent(said.get('consistent'))} ({percent(said.get('coverage'))})" if said else "-"


def symptom(said: Mapping[str, Any] | None) -> str:
    """How many of the plans that think of a curve drive straight on."""
    return f"{percent(said['thinks_curve_drives_straight'])} of {said['curve_plans']}" if said else "-"


def _laps(row: Mapping[str, Any]) -> str:
    whole = f"{row['laps_finished']} of {row['laps_asked']}"
    return whole if row["laps_finished"] >= row["laps_asked"] else f"{whole}\n({row['laps_driven']:.1f} driven)"


# What the table shows of a row, by the heading.
_COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "variant": lambda row: str(row["label"]),
    "max deviation\non curves": lambda row: metres(row["max_on_curves_m"]),
    "RMS on\ncurves": lambda row: metres(row["rms_on_curves_m"]),
    "off-track": lambda row: str(row["off_track_events"]),
    "laps": _laps,
    "consistency\n(coverage)": lambda row: consistency(row["reasonings"]),
    "thinks curve,\ndrives straight": lambda row: symptom(row["reasonings"]),
    "result": lambda row: str(row["result"]),
}
HEADINGS = tuple(_COLUMNS)


def table_texts(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows as text, a tuple per variant in the order of :data:`HEADINGS`."""
    return [tuple(text(row) for text in _COLUMNS.values()) for row in metrics["table"]]


_STYLES = {"before": "red", "after": "green", "expert": "dim", "control": "cyan"}


def headline_table(metrics: Mapping[str, Any], width: int = WIDE) -> Table:
    """The headline table for a terminal; a narrow one gets the columns that matter most."""
    starts = f"{metrics['starts']} start{'s' if metrics['starts'] != 1 else ''}"
    laps = f"{metrics['laps']:g} lap{'s' if metrics['laps'] != 1 else ''}"
    title = f"Closed loop on {', '.join(metrics['courses'])}: {starts} x {laps} each"
    rows: list[tuple[str, ...]] = table_texts(metrics)
    headings: Sequence[str] = HEADINGS
    if width < WIDE:
        shown = (0, 1, 3, 4, 7)
        headings = [HEADINGS[i].replace("deviation", "dev.").replace("-track", "-\ntrack") for i in shown]
        rows = [tuple(row[i].split("\n")[0] for i in shown) for row in rows]
    left = {0, *range(len(headings) - 3 if width >= WIDE else 4, len(headings))}
    styles = [_STYLES.get(row["role"]) for row in metrics["table"]]
    return Table(title, headings, rows, left=left, styles=styles, whole=range(len(headings) - 1))


def printed_tables(metrics: Mapping[str, Any], width: int) -> list[Table]:
    """The headline table, and where there were several latencies, or instructions, those of them."""
    tables = [
        headline_table(metrics, width),
        *([latency_table(metrics["by_latency"])] if has_latencies(metrics) else []),
    ]
    told = instructed.script_table(metrics["runs"])
    return [*tables, *([told] if told else [])]


def write_table(metrics: Mapping[str, Any], folder: Path) -> None:
    """``table.csv`` (a line per variant, course and latency, and over all courses) and ``table.txt`` (as printed)."""
    rows = [
        {"course": run["course"], **latency_rows([VARIANTS[run["variant"]]], [run])[0]}
        for variant in metrics["variants"]
        for run in metrics["runs"]
        if run["variant"] == variant["name"]
    ]
    rows += [{"course": "all", **row} for row in metrics["by_latency"]]
    rates = ("consistent", "coverage", "thinks_curve_drives_straight", "reasoning_path_lap")
    for row in rows:
        said = row.pop("reasonings") or {}
        row |= {rate: said.get(rate) for rate in rates}
    columns = [key for key in (rows[0] if rows else ()) if key not in {"label", "role"}]
    write_csv(folder / "table.csv", rows, columns)
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        for table in printed_tables(metrics, WIDE):
            Console(file=file, width=WIDE).print(table)
        file.write(metrics["disclaimer"] + "\n")
    write_atomically(folder / "definitions.txt", "\n\n".join(metrics["definitions"].values()) + "\n")
