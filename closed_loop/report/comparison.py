"""The before/after part of the report page: headline, table, reasoning texts, and a chapter per course.

Reads the run folder of :mod:`closed_loop.comparison.compare` and returns plain data for the template.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from closed_loop.comparison.latency import HEADINGS as LATE_HEADINGS
from closed_loop.comparison.latency import PLOT as LATE_PLOT
from closed_loop.comparison.latency import latency_texts
from closed_loop.comparison.runs import VARIANTS, load_drive
from closed_loop.comparison.table import HEADINGS, has_latencies, headline_runs, read_comparison, symptom, table_texts
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.report import plots
from collector.common.errors import MonoError
from collector.common.tables import metres, number, percent
from collector.common.text_files import read_yaml
from finetune.policy import PolicySettings

AIM_M = 1.0
Row = Mapping[str, Any]


def image(source: Figure | Path, alt: str) -> dict[str, str]:
    """A figure, or a PNG that another run drew, for the page: a data URI, and words for those who cannot see it."""
    data = source.read_bytes() if isinstance(source, Path) else plots.png(source, dpi=110)
    return {"src": "data:image/png;base64," + base64.b64encode(data).decode(), "alt": alt}


def named(variant: str, **values: object) -> dict[str, object]:
    """A row or a column of a variant: its name in tables, its colour, and what else it holds."""
    return {"label": plots.label_of(variant), "colour": plots.colour_of(variant), **values}


def comparison(folder: Path) -> dict[str, object]:
    """Headline, table, reasoning texts and courses of a comparison's run folder."""
    metrics = read_comparison(folder)
    if metrics.get("kind") != "comparison" or not metrics.get("table"):
        raise MonoError(f"{folder / 'metrics.json'} is not of a comparison", "the run folder of compare")
    rows = metrics["table"]
    late = [named(row["variant"], texts=texts) for row, texts in _late(metrics)]
    metrics = {**metrics, "runs": headline_runs(metrics["runs"])}
    timings = {run["variant"]: run["timings_ms"] for run in reversed(metrics["runs"]) if run["timings_ms"]}
    latency = plots.latency_figure({name: timings[name] for name in plots.ordered(timings)}) if timings else None
    return {
        "headings": HEADINGS,
        "rows": [
            named(row["variant"], texts=texts, role=row["role"])
            for row, texts in zip(rows, table_texts(metrics), strict=True)
        ],
        "tiles": _tiles(rows),
        "notes": headline_notes(metrics),
        "disclaimer": metrics["disclaimer"],
        "definitions": metrics["definitions"],
        "courses": ", ".join(metrics["courses"]),
        "starts": metrics["starts"],
        "laps": metrics["laps"],
        "reasonings": {
            "headings": ["variant", *REASONING_COLUMNS],
            "rows": [
                named(row["variant"], texts=[row["label"], *(text(said) for text in REASONING_COLUMNS.values())])
                for row in rows
                if (said := row["reasonings"])
            ],
        },
        "details": [_course(folder, metrics, course) for course in metrics["courses"]],
        "latency": image(latency, "Stage times") if latency else None,
        "late": {
            "headings": LATE_HEADINGS,
            "rows": late,
            "plot": image(folder / LATE_PLOT, "Deviation, times off the road and time of a lap over the latency"),
        }
        if late
        else None,
    }


def _late(metrics: Row) -> list[tuple[Row, tuple[str, ...]]]:
    """The rows of all latencies and their texts; none where one latency was driven."""
    rows = metrics["by_latency"] if has_latencies(metrics) else []
    return list(zip(rows, latency_texts(rows), strict=True))


def before_after(rows: Sequence[Row]) -> tuple[Row | None, Row | None]:
    """The rows set against each other: one camera, without and with the adapter."""

    def pick(role: str, preferred: str) -> Row | None:
        own = [row for row in rows if row["role"] == role]
        return next((row for row in own if row["variant"] == preferred), own[0] if own else None)

    after = pick("after", "adapter-mono")
    cameras = VARIANTS[after["variant"]].cameras if after else PolicySettings.cameras
    same = next(each.name for each in VARIANTS.values() if each.role == "before" and each.cameras == cameras)
    # A base with other cameras says nothing about the adapter; where the right one was not driven there is no before.
    return next((row for row in rows if row["variant"] == same), None if after else pick("before", "base-mono")), after


def headline_notes(metrics: Row) -> list[dict[str, str]]:
    """Sentences that say what the table shows, the unwelcome ones included; each ``{"kind", "text"}``."""
    rows = metrics["table"]
    before, after = before_after(rows)
    control = next((row for row in rows if row["role"] == "control"), None)
    notes: list[dict[str, str]] = []

    def say(text: str, kind: str = "caution") -> None:
        notes.append({"kind": kind, "text": text})

    def fails(row: Row) -> bool:
        return bool(row["off_track_events"]) or row["laps_finished"] < row["laps_asked"]

    def driven(row: Row, from_where: str = "") -> str:
        laps = f"{row['laps_finished']} of {row['laps_asked']}"
        return f"{row['result']} (at most {metres(row['max_on_curves_m'])}{from_where}, {laps} laps)"

    if before and after:
        was, now = driven(before, " from the line on curves"), driven(after)
        say(f"Without adapter the kart with one camera {was}. With the adapter it {now}.", "result")
    if control and fails(control):
        say(
            f"The control does not hold: with four cameras the base model {control['result']}. Part of what fails "
            "before is then the base itself, not its missing cameras."
        )
    if before and not fails(before):
        say(
            "Before already drives every lap on the road: on these courses one camera alone does not break this base "
            "model, so there was little to cure."
        )
    said = before["reasonings"] if before else None
    if said and (said["coverage"] or 0.0) < 0.5:
        say(
            f"Before, only {percent(said['coverage'])} of the plans say a direction at all: with one camera the "
            'reasoning itself breaks, so its consistency and its "thinks curve, drives straight" say little.'
        )
    if after is None:
        say("No adapter was driven: this table has a before and no after.")
    elif fails(after) or (after["max_on_curves_m"] or 0.0) > AIM_M:
        what = "After is no cure yet" if fails(after) else f"The aim of {AIM_M:.1f} m on curves is missed"
        say(
            f"{what}: {_worst_place(metrics, after['variant'])} Levers known to help: more and more varied curves in "
            "the recording, recovery drives, more steps."
        )
    return notes


def _worst_place(metrics: Row, variant: str) -> str:
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


def _tiles(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The few figures a reader should take away, before beside after."""
    texts: dict[str, Callable[[Row], str]] = {
        "max deviation on curves": lambda row: metres(row["max_on_curves_m"]),
        "RMS on curves": lambda row: metres(row["rms_on_curves_m"]),
        "leaves the road": lambda row: f"{row['off_track_events']}x",
        "laps finished": lambda row: f"{row['laps_finished']} of {row['laps_asked']}",
        "thinks curve, drives straight": lambda row: percent(
            (row["reasonings"] or {}).get("thinks_curve_drives_straight")
        ),
    }
    before, after = (row or {} for row in before_after(rows))
    return [
        {"name": name, "before": text(before) if before else "-", "after": text(after) if after else "-"}
        for name, text in texts.items()
    ]


REASONING_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "plans": lambda said: str(said["plans"]),
    "coverage": lambda said: percent(said["coverage"]),
    "reasoning and path": lambda said: percent(said["consistent"]),
    "path and lap": lambda said: percent(said["path_matches_lap"]),
    "reasoning, path and lap": lambda said: percent(said["reasoning_path_lap"]),
    "reasoning fits the road": lambda said: percent(said["reasoning_right"]),
    "thinks curve, drives straight": symptom,
    "speed: reasoning and path (coverage)": lambda said: (
        f"{percent(said['longitudinal_consistent'])} ({percent(said['longitudinal_coverage'])})"
    ),
}


def _course(folder: Path, metrics: Row, course: str) -> dict[str, object]:
    """Pictures and the per-curve table of one course."""
    parts = {run["variant"]: run for run in metrics["runs"] if run["course"] == course}
    names = plots.ordered(parts)
    deviations = {name: parts[name]["deviation"] for name in names}
    road = course_named(course)
    measured_from = deviations[names[0]]["reference"]
    reference = None if measured_from == f"{road.name} centreline" else _reference_of(folder)
    drives = {name: [load_drive(folder / path) for path in parts[name]["drives"]] for name in names}
    titles = {
        name: f"{plots.label_of(name)}\n{metres(part['on_curves']['max_m'])} at most"
        + (f", leaves the road {part['off_track_events']}x" if part["off_track_events"] else "")
        for name, part in deviations.items()
    }
    by_curve = {name: part["curves"] for name, part in deviations.items()}
    compared = {name: rows for name, rows in by_curve.items() if VARIANTS[name].role != "expert"} or by_curve
    map_figure = plots.map_figure(road, drives, titles, reference)
    return {
        "name": course,
        "reference": measured_from,
        "length_m": (reference or road).length_m,
        "map": image(map_figure, f"Map of {course}, a panel per variant"),
        "along": image(plots.along_figure(road, drives, reference), f"Deviation along {course}"),
        "bars": image(plots.curves_figure(compared, course), f"Largest deviation on each curve of {course}"),
        "variants": [named(name) for name in names],
        "curves": curve_rows(list(by_curve.values())),
    }


def _reference_of(folder: Path) -> Course | None:
    """The reference file a comparison measured from, out of its configuration."""
    try:
        name = read_yaml(folder / "config.yaml").get("reference")
    except MonoError:
        name = None
    return course_named(name) if name else None


def curve_rows(parts: Sequence[Sequence[Row]]) -> list[dict[str, object]]:
    """The per-curve table: what the curve is, then max, RMS, signed mean and off-track of each variant."""
    return [
        {
            "texts": [
                f"{same[0]['number']} {same[0]['direction']}",
                f"{same[0]['start_m']:.0f}-{same[0]['end_m']:.0f} m",
                number(same[0]["min_radius_m"], 1, " m"),
                f"{same[0]['turn_deg']:+.0f}°",
            ],
            "figures": [
                {
                    "texts": [
                        number(row["max_m"]),
                        number(row["rms_m"]),
                        "-" if row["mean_signed_m"] is None else f"{row['mean_signed_m']:+.2f}",
                    ],
                    "off": row["off_track_events"],
                }
                for row in same
            ],
        }
        for same in zip(*parts, strict=True)
    ]
