"""The before/after table: runs summed to one row per variant, for JSON, CSV, a terminal and the report page."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from closed_loop.comparison import deviation
from closed_loop.comparison import reasoning as reasonings
from closed_loop.comparison.runs import VARIANTS, Variant
from collector.common.files import write_atomically

HONESTY = (
    "The tiny model shows that the loop works and what the recipe does at small scale; "
    "it says nothing about the 10B weights."
)


def assemble(
    variants: Sequence[Variant], courses: Sequence[str], starts: int, laps: float, runs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """``metrics.json`` from finished runs.

    Returns:
        ``kind`` ("comparison"), ``definitions``, ``honesty``, ``variants`` (name, label, role, cameras, adapted),
        ``courses``, ``starts``, ``laps``, ``runs`` (one per variant and course: ``variant, course, starts_m,
        deviation, reasoning texts, timings_ms, bad_plans, ends, drives, simulated_s, wall_s``; ``deviation`` as
        :func:`closed_loop.comparison.deviation.summarise`, ``reasoning texts`` as
        :func:`closed_loop.comparison.reasoning.summarise_checks`) and
        ``table`` (one row per variant over all courses, see :func:`table_rows`).
    """
    return {
        "kind": "comparison",
        "definitions": {"deviation": deviation.DEFINITIONS, "reasonings": reasonings.DEFINITIONS},
        "honesty": HONESTY,
        "variants": [
            {"name": c.name, "label": c.label, "role": c.role, "cameras": c.cameras, "adapted": c.adapted}
            for c in variants
        ],
        "courses": list(courses),
        "starts": starts,
        "laps": laps,
        "table": table_rows(variants, runs),
        "runs": list(runs),
    }


def table_rows(variants: Iterable[Variant], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per variant over all its courses.

    Returns:
        dicts with ``variant, label, role, max_on_curves_m, rms_on_curves_m, off_track_events, recoveries,
        laps_finished, laps_asked, laps_driven, mean_speed_mps, reasoning texts`` (pooled, None for the expert) and
        ``result``.
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
                "reasonings": reasonings.pool(run["reasonings"] for run in own),
                "result": deviation.result_text(counts),
            }
        )
    return rows


HEADINGS = (
    "variant",
    "max deviation\non curves",
    "RMS on\ncurves",
    "off-track",
    "laps",
    "consistency\n(coverage)",
    "thinks curve,\ndrives straight",
    "result",
)
WIDE = 136


def table_texts(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's runs as text, a tuple per variant in the order of :data:`HEADINGS`."""

    def metres(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} m"

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100.0 * value:.0f} %"

    def laps(row: dict[str, Any]) -> str:
        whole = f"{row['laps_finished']} of {row['laps_asked']}"
        return whole if row["laps_finished"] >= row["laps_asked"] else f"{whole}\n({row['laps_driven']:.1f} driven)"

    rows: list[tuple[str, ...]] = []
    for row in metrics["table"]:
        said = row["reasonings"]
        rows.append(
            (
                row["label"],
                metres(row["max_on_curves_m"]),
                metres(row["rms_on_curves_m"]),
                str(row["off_track_events"]),
                laps(row),
                f"{percent(said['consistent'])} ({percent(said['coverage'])})" if said else "-",
                f"{percent(said['thinks_curve_drives_straight'])} of {said['curve_plans']}" if said else "-",
                row["result"],
            )
        )
    return rows


def rich_table(metrics: dict[str, Any], width: int = WIDE) -> Any:
    """The headline table for a terminal; a narrow one gets the columns that matter most."""
    from rich import box
    from rich.table import Table

    starts = f"{metrics['starts']} start{'s' if metrics['starts'] != 1 else ''}"
    laps = f"{metrics['laps']:g} lap{'s' if metrics['laps'] != 1 else ''}"
    title = f"Closed loop on {', '.join(metrics['courses'])}: {starts} x {laps} each"
    wide = width >= WIDE
    shown = range(len(HEADINGS)) if wide else (0, 1, 3, 4, 7)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index in shown:
        justify: Any = "right" if 0 < index < 5 else "left"
        heading = HEADINGS[index]
        if not wide:
            heading = heading.replace("deviation", "dev.").replace("-track", "-\ntrack")
        table.add_column(heading, justify=justify, no_wrap=index < len(HEADINGS) - 1)
    styles = {"before": "red", "after": "green", "expert": "dim", "control": "cyan"}
    for row, texts in zip(metrics["table"], table_texts(metrics)):
        table.add_row(
            *(texts[index] if wide else texts[index].split("\n")[0] for index in shown), style=styles.get(row["role"])
        )
    return table


def write_table(metrics: dict[str, Any], folder: Path) -> None:
    """``table.csv`` (one line per variant and course, and one over all) and ``table.txt`` (as printed)."""
    from rich.console import Console

    lines = []
    for variant in metrics["variants"]:
        for run in metrics["runs"]:
            if run["variant"] == variant["name"]:
                lines.append((run["course"], table_rows([VARIANTS[variant["name"]]], [run])[0]))
    lines += [("all", row) for row in metrics["table"]]
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        shown = [key for key in lines[0][1] if key not in ("reasonings", "label", "role")] if lines else []
        rates = ("consistent", "coverage", "thinks_curve_drives_straight", "reasoning_path_lap")
        writer.writerow(["course", *shown, *rates])
        for course, row in lines:
            said = row["reasonings"] or {}
            writer.writerow([course, *(row[key] for key in shown), *(said.get(rate) for rate in rates)])
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDE, no_color=True).print(rich_table(metrics))
        file.write(metrics["honesty"] + "\n")
    write_atomically(folder / "definitions.txt", "\n\n".join(metrics["definitions"].values()) + "\n")
