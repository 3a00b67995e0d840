"""The before/after part of the report page: headline, table, reasoning texts, and a chapter per course.

Reads the run folder of :mod:`closed_loop.comparison.compare` and returns plain data for the template.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from closed_loop.comparison.deviation import reference_curves
from closed_loop.comparison.runs import VARIANTS, load_drive
from closed_loop.comparison.table import HEADINGS, read_comparison, table_texts
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.report import plots
from collector.common.errors import MonoError

AIM_M = 1.0


def image(figure: Figure, alt: str) -> dict[str, str]:
    """A figure for the page: its bytes as a data URI, and words for those who cannot see it."""
    return _png(plots.png(figure, dpi=110), alt)


def image_file(path: Path, alt: str) -> dict[str, str]:
    """The same from a PNG that another run drew."""
    return _png(path.read_bytes(), alt)


def _png(data: bytes, alt: str) -> dict[str, str]:
    return {"src": "data:image/png;base64," + base64.b64encode(data).decode(), "alt": alt}


def metres(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} m"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100.0 * value:.0f} %"


def number(value: Any, digits: int = 2, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if isinstance(value, (int, float)) else "-"


def comparison(folder: Path) -> dict[str, Any]:
    """Headline, table, reasoning texts and courses of a comparison's run folder."""
    metrics = read_comparison(folder)
    if metrics.get("kind") != "comparison" or not metrics.get("table"):
        raise MonoError(f"{folder / 'metrics.json'} is not of a comparison", "the run folder of compare")
    rows = metrics["table"]
    return {
        "headings": HEADINGS,
        "rows": [
            {"texts": texts, "colour": plots.colour_of(row["variant"]), "role": row["role"]}
            for row, texts in zip(rows, table_texts(metrics))
        ],
        "tiles": _tiles(rows),
        "notes": headline_notes(metrics),
        "disclaimer": metrics["disclaimer"],
        "definitions": metrics["definitions"],
        "courses": ", ".join(metrics["courses"]),
        "starts": metrics["starts"],
        "laps": metrics["laps"],
        "reasonings": _reasoning_rows(rows),
        "details": [_course(folder, metrics, course) for course in metrics["courses"]],
        "latency": _latency(metrics),
    }


def before_after(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The rows set against each other: one camera, without and with the adapter."""

    def pick(role: str, preferred: str) -> Mapping[str, Any] | None:
        own = [row for row in rows if row["role"] == role]
        return next((row for row in own if row["variant"] == preferred), own[0] if own else None)

    after = pick("after", "adapter-mono")
    cameras = VARIANTS[after["variant"]].cameras if after else "mono"
    same = next((c.name for c in VARIANTS.values() if c.role == "before" and c.cameras == cameras), "base-mono")
    return pick("before", same), after


def headline_notes(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Sentences that say what the table shows, the unwelcome ones included; each ``{"kind", "text"}``."""
    rows = metrics["table"]
    before, after = before_after(rows)
    control = next((row for row in rows if row["role"] == "control"), None)
    notes = []

    def fails(row: Mapping[str, Any]) -> bool:
        return bool(row["off_track_events"]) or row["laps_finished"] < row["laps_asked"]

    if before and after:
        notes.append(
            {
                "kind": "result",
                "text": f"Without adapter the kart with one camera {before['result']} (at most "
                f"{metres(before['max_on_curves_m'])} from the line on curves, {before['laps_finished']} of "
                f"{before['laps_asked']} laps). With the adapter it {after['result']} (at most "
                f"{metres(after['max_on_curves_m'])}, {after['laps_finished']} of {after['laps_asked']} laps).",
            }
        )
    if control and fails(control):
        notes.append(
            {
                "kind": "caution",
                "text": f"The control does not hold: with four cameras the base model {control['result']}. Part of "
                "what fails before is then the base itself, not its missing cameras.",
            }
        )
    if before and not fails(before):
        notes.append(
            {
                "kind": "caution",
                "text": "Before already drives every lap on the road: on these courses one camera alone does not break "
                "this base model, so there was little to cure.",
            }
        )
    said = before["reasonings"] if before else None
    if said and (said["coverage"] or 0.0) < 0.5:
        notes.append(
            {
                "kind": "caution",
                "text": f"Before, only {percent(said['coverage'])} of the plans say a direction at all: with "
                "one camera the reasoning itself breaks, so its consistency and its "
                '"thinks curve, drives straight" say little.',
            }
        )
    if after is None:
        notes.append({"kind": "caution", "text": "No adapter was driven: this table has a before and no after."})
    elif fails(after) or (after["max_on_curves_m"] or 0.0) > AIM_M:
        place = _worst_place(metrics, after["variant"])
        what = "After is no cure yet" if fails(after) else f"The aim of {AIM_M:.1f} m on curves is missed"
        notes.append(
            {
                "kind": "caution",
                "text": f"{what}: {place} Levers known to help: more and more varied curves in the recording, recovery "
                "drives, more steps, LoRA on the vision tower.",
            }
        )
    return notes


def _worst_place(metrics: Mapping[str, Any], variant: str) -> str:
    """Where a variant strays most, as a sentence."""
    places = [
        (curve["max_m"], run["course"], curve)
        for run in metrics["runs"]
        if run["variant"] == variant
        for curve in run["deviation"]["curves"]
        if curve["max_m"] is not None
    ]
    if not places:
        return "it reached no curve."
    worst, course, curve = max(places, key=lambda place: place[0])
    return (
        f"the largest deviation is {worst:.2f} m on curve {curve['number']} of {course} "
        f"({curve['direction']}, radius {curve['min_radius_m']:.1f} m)."
    )


def _tiles(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The few figures a reader should take away, before beside after."""
    before, after = before_after(rows)

    def pair(name: str, text: Any) -> dict[str, str]:
        return {"name": name, "before": text(before) if before else "-", "after": text(after) if after else "-"}

    def symptom(row: Mapping[str, Any]) -> str:
        return percent(row["reasonings"]["thinks_curve_drives_straight"]) if row["reasonings"] else "-"

    return [
        pair("max deviation on curves", lambda row: metres(row["max_on_curves_m"])),
        pair("RMS on curves", lambda row: metres(row["rms_on_curves_m"])),
        pair("leaves the road", lambda row: f"{row['off_track_events']}x"),
        pair("laps finished", lambda row: f"{row['laps_finished']} of {row['laps_asked']}"),
        pair("thinks curve, drives straight", symptom),
    ]


REASONING_COLUMNS = (
    ("plans", "plans"),
    ("coverage", "coverage"),
    ("consistent", "reasoning and path"),
    ("path_matches_lap", "path and lap"),
    ("reasoning_path_lap", "reasoning, path and lap"),
    ("reasoning_right", "reasoning fits the road"),
    ("thinks_curve_drives_straight", "thinks curve, drives straight"),
    ("longitudinal_consistent", "speed: reasoning and path (coverage)"),
)


def reasoning_texts(said: Mapping[str, Any]) -> list[str]:
    """The runs of :data:`REASONING_COLUMNS`."""
    texts = []
    for key, _heading in REASONING_COLUMNS:
        if key == "plans":
            texts.append(str(said["plans"]))
        elif key == "thinks_curve_drives_straight":
            texts.append(f"{percent(said[key])} of {said['curve_plans']}")
        elif key == "longitudinal_consistent":
            texts.append(f"{percent(said[key])} ({percent(said['longitudinal_coverage'])})")
        else:
            texts.append(percent(said[key]))
    return texts


def _reasoning_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "headings": [heading for _key, heading in REASONING_COLUMNS],
        "rows": [
            {
                "label": row["label"],
                "colour": plots.colour_of(row["variant"]),
                "texts": reasoning_texts(row["reasonings"]),
            }
            for row in rows
            if row["reasonings"]
        ],
    }


def _course(folder: Path, metrics: Mapping[str, Any], course: str) -> dict[str, Any]:
    """Pictures and the per-curve table of one course."""
    runs = {run["variant"]: run for run in metrics["runs"] if run["course"] == course}
    names = plots.ordered(runs)
    road = course_named(course)
    named = runs[names[0]]["deviation"]["reference"]
    reference = None if named == f"{road.name} centreline" else _reference_of(folder)
    line = reference or road
    curves = reference_curves(line)
    drives = {name: [load_drive(folder / path) for path in runs[name]["drives"]] for name in names}
    titles = {
        name: f"{plots.label_of(name)}\n{metres(part['on_curves']['max_m'])} at most"
        + (f", leaves the road {part['off_track_events']}x" if part["off_track_events"] else "")
        for name in names
        for part in [runs[name]["deviation"]]
    }
    compared = [name for name in names if VARIANTS[name].role != "expert"]
    return {
        "name": course,
        "reference": named,
        "length_m": line.length_m,
        "map": image(
            plots.map_figure(road, curves, drives, titles, reference), f"Map of {course}, a panel per variant"
        ),
        "along": image(plots.along_figure(road, curves, drives, reference), f"Deviation along {course}"),
        "bars": image(
            plots.curves_figure({name: runs[name]["deviation"]["curves"] for name in compared or names}, course),
            f"Largest deviation on each curve of {course}",
        ),
        "variants": [{"label": plots.label_of(name), "colour": plots.colour_of(name)} for name in names],
        "curves": curve_rows([runs[name]["deviation"]["curves"] for name in names]),
    }


def _reference_of(folder: Path) -> Course | None:
    """The reference file a comparison measured from, out of its configuration."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        name = values.get("reference") or ""
    except (OSError, yaml.YAMLError, AttributeError):
        name = ""
    return course_named(name) if name else None


def curve_rows(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The per-curve table: what the curve is, then max, RMS, signed mean and off-track of each variant."""
    rows = []
    for same in zip(*parts):
        first = same[0]
        rows.append(
            {
                "name": f"{first['number']} {first['direction']}",
                "place": f"{first['start_m']:.0f}-{first['end_m']:.0f} m",
                "radius": f"{first['min_radius_m']:.1f} m",
                "turn": f"{first['turn_deg']:+.0f}°",
                "figures": [
                    {
                        "max": number(row["max_m"]),
                        "rms": number(row["rms_m"]),
                        "mean": "-" if row["mean_signed_m"] is None else f"{row['mean_signed_m']:+.2f}",
                        "off": row["off_track_events"],
                    }
                    for row in same
                ],
            }
        )
    return rows


def _latency(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    timings = {run["variant"]: run["timings_ms"] for run in reversed(metrics["runs"]) if run["timings_ms"]}
    if not timings:
        return None
    return image(plots.latency_figure({name: timings[name] for name in plots.ordered(timings)}), "Stage times")
