"""The part of the report on instructions: what karts were told, whether they did it, and where it took them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from closed_loop.comparison import instructed
from closed_loop.comparison.runs import load_drive
from closed_loop.comparison.table import read_comparison
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.report import plots
from closed_loop.report.comparison import image
from collector.common.errors import MonoError
from collector.common.plotting import INK
from collector.common.text_files import read_yaml
from collector.vehicle.model import KART

_IN_A_ROW = 6
_OBEYED, _MISSED, _SURVIVED = "#dcefe0", "#f6dcd9", "#e9ecef"


def steering(folder: Path) -> dict[str, object]:
    """Table and figures of a comparison's instructions (MonoError: nobody was told anything there)."""
    runs = read_comparison(folder)["runs"]
    table = instructed.script_table(runs)
    if table is None:
        raise MonoError(f"in {folder} nobody was told anything", "a comparison with --instructions")
    figures, missing = [], []
    for run in runs:
        if not run.get("instructed"):
            continue
        name = f"{plots.label_of(run['variant'])} on {run['course']}"
        try:
            figure = _figure(folder, run)
        except (MonoError, KeyError, ValueError, TypeError, IndexError) as error:
            missing.append(f"{name} cannot be drawn, for what its drives left does not fit ({error!r})")
            continue
        figures += [] if figure is None else [image(figure, f"{name} while it was told")]
    return {
        "headings": table.headings,
        "rows": table.rows,
        "definitions": instructed.DEFINITIONS,
        "figures": figures,
        "missing": missing,
    }


def _figure(folder: Path, run: Mapping[str, Any]) -> Figure | None:
    """Of the first start; None where its drive was over before anything was said."""
    told = [row for row in run["instructed"]["instructions"] if row["start"] == 0]
    if not told:
        return None
    hold_s = float(read_yaml(folder / "config.yaml")["hold_s"])
    if not 0.0 < hold_s < float("inf"):
        raise MonoError(f"hold_s {hold_s}", "seconds")
    drive = load_drive(folder / run["told_drives"][0])
    usual = [load_drive(folder / path) for path in run["drives"]]
    title = f"{plots.label_of(run['variant'])}, {run['course']}"
    return told_figure(course_named(run["course"]), drive, usual, told, hold_s, title)


@mpl.rc_context(plots.STYLED)
def told_figure(
    road: Course,
    drive: plots.Table,
    usual: Sequence[plots.Table],
    told: Sequence[Mapping[str, Any]],
    hold_s: float,
    title: str,
) -> Figure:
    """Place beside the line and speed over time, in what was said meanwhile.

    Args:
        road: where it was driven.
        drive: the told drive; usual: those from the same starts that were told nothing. Both as
            :func:`closed_loop.comparison.runs.drive_table` makes them.
        told: what :func:`closed_loop.comparison.instructed.judge` makes of each instruction.
        hold_s: how long each held.
        title: of the figure.
    """
    figure = Figure(figsize=(plots.WIDTH_IN, 5.0), layout="constrained")
    place, speed = figure.subplots(2, 1, sharex=True)
    time_s, station_m = drive["t_s"], road.wrap_s(drive["station_m"])
    for axes in (place, speed):
        for row in told:
            colour = _SURVIVED if row["obeyed"] is None else _OBEYED if row["obeyed"] else _MISSED
            axes.axvspan(row["at_s"], row["at_s"] + hold_s, color=colour, zorder=0)
        axes.grid(axis="x", visible=False)
    for row in told:
        at = row["at_s"] + 0.5 * hold_s
        # Many of them stand aslant, lest they run into each other.
        aslant = {"rotation": 35, "ha": "left"} if len(told) > _IN_A_ROW else {"ha": "center"}
        place.text(at, 1.02, row["text"], va="bottom", fontsize=8, transform=place.get_xaxis_transform(), **aslant)
    for sign, width_m in ((1.0, road.width_left_m), (-1.0, road.width_right_m)):
        edge_m = sign * (road.at(station_m, width_m) - 0.5 * KART.width_m)
        place.plot(time_s, edge_m, color=INK, linewidth=0.9, linestyle=(0, (5, 4)))
    usual_m, usual_mps = instructed.Usual.of_tables(usual, road).at(station_m)
    for axes, name, as_ever, label in (
        (place, "lateral_m", usual_m, "beside the line [m]\nright  |  left"),
        (speed, "speed_mps", usual_mps, "speed [m/s]"),
    ):
        axes.plot(time_s, as_ever, color=plots.EDGE, linewidth=1.4, label="told nothing")
        axes.plot(time_s, drive[name], color=plots.COLOURS["adapter-mono"], linewidth=1.7, label="told")
        axes.set_ylabel(label)
    exits = np.flatnonzero(np.diff(drive["off_track"].astype(int), prepend=0) == 1)
    place.plot(time_s[exits], drive["lateral_m"][exits], "X", color=plots.OFF_TRACK, markersize=7.0, zorder=6)
    speed.set_ylim(bottom=0.0)
    speed.set_xlabel("simulated seconds   (dashed: the kart's side at the edge, X: leaves the road)")
    figure.suptitle(title, fontsize=10)
    speed.legend(loc="lower right", ncols=2)
    return figure
