"""Figures of the report: the map, deviation along the course, curves before and after, stage times, losses.

Every function returns a matplotlib Figure and touches no global state; :func:`png` turns one into bytes. A drive is
a table of arrays as :meth:`closed_loop.comparison.deviation.Deviation.arrays` gives it. A variant has one colour
everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from closed_loop.comparison.deviation import reference_curves
from closed_loop.comparison.runs import VARIANTS
from closed_loop.course.course import Course
from collector.common.plotting import INK, SIDES, STYLE, bars, families
from collector.geometry.poses import FloatArray
from collector.vehicle.model import KART

Table = Mapping[str, NDArray[Any]]

COLOURS: Mapping[str, str] = {**{name: variant.colour for name, variant in VARIANTS.items()}, **SIDES}
SIGNED = LinearSegmentedColormap.from_list("signed", ["#1745a3", "#7fb2e5", "#f4f1e8", "#f0a27a", "#b3151b"])
ROAD, EDGE, OFF_TRACK = "#e9ecef", "#9aa3ad", "#c1121f"
LOSSES = (
    ("text", "text loss (cross-entropy per token)", "#3567b0"),
    ("flow", "trajectory loss (flow matching)", "#d97706"),
)
WIDTH_IN = 11.0
# Signed deviation is drawn on one scale everywhere, so that two maps can be compared.
SCALE = Normalize(-2.0, 2.0)
# Courses and runs may have Japanese names.
STYLED = {**STYLE, "font.family": families()}


def colour_of(variant: str) -> str:
    """The colour of a variant; unknown names get a neutral one."""
    return COLOURS.get(variant, "#444b55")


def label_of(variant: str) -> str:
    """What a variant is called in a legend."""
    return VARIANTS[variant].label if variant in VARIANTS else variant


def ordered(names: Iterable[str]) -> list[str]:
    """Variant names in the table's order."""
    known = list(VARIANTS)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLED):
        figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    return stream.getvalue()


def _figure(height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width and its axes, row after row; its parts keep the style they are made in."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _legend(figure: Figure, entries: int) -> None:
    figure.legend(loc="outside upper center", ncols=min(4, entries))


def _line_name(road: Course, reference: Course | None) -> str:
    return f"{road.name} centreline" if reference is None else reference.name


def _crosses(axes: Axes, x: ArrayLike, y: ArrayLike, colour: str = OFF_TRACK, size: float = 7.0) -> None:
    """Where a kart left the road."""
    axes.plot(x, y, "X", color=colour, markersize=size, markeredgecolor="white", markeredgewidth=0.9, zorder=6)


@mpl.rc_context(STYLED)
def map_figure(
    road: Course,
    drives: Mapping[str, Sequence[Table]],
    titles: Mapping[str, str] | None = None,
    reference: Course | None = None,
    columns: int = 3,
) -> Figure:
    """The course once per variant, the driven lines coloured by signed deviation, off-track places marked.

    ``drives`` by variant, and so the panels' ``titles`` (else its label); without ``reference``, deviation is from the
    centreline.
    """
    columns = max(1, min(columns, len(drives)))
    rows = -(-len(drives) // columns)
    span = np.ptp(road.xy, axis=0) + 2.0 * (road.width_left_m.max() + 2.0)
    width = WIDTH_IN / columns
    height = float(np.clip(width * span[1] / span[0], 0.55 * width, 1.25 * width))
    figure, panels = _figure(rows * (height + 0.35) + 0.75, rows, columns)
    spots = _number_spots(road, reference or road)
    circle = {"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "white", "linewidth": 0.8}
    for axes, (variant, tables) in zip(panels, drives.items(), strict=False):
        _draw_road(axes, road)
        for number, (x, y) in enumerate(spots, start=1):
            axes.text(x, y, str(number), ha="center", va="center", size=7.5, color="white", zorder=7, bbox=circle)
        for table in tables:
            _draw_driven(axes, table)
        marks = np.vstack([np.zeros((0, 2)), *(table["event_xy"] for table in tables)])
        _crosses(axes, marks[:, 0], marks[:, 1], size=8.0)
        axes.set_title((titles or {}).get(variant, label_of(variant)), color=colour_of(variant), fontsize=9.5)
    for axes in panels[len(drives) :]:
        axes.set_visible(False)
    scale = ScalarMappable(SCALE, SIGNED)
    bar = figure.colorbar(scale, ax=panels, location="bottom", shrink=0.42, aspect=40, pad=0.02, extend="both")
    bar.set_label(
        f"signed deviation from {_line_name(road, reference)} [m]: negative right, positive left.  "
        "X: leaves the road.  Circles: curve numbers."
    )
    bar.outline.set_visible(False)
    return figure


def _draw_road(axes: Axes, road: Course) -> None:
    left = road.pose_at(road.s_m, road.width_left_m)[:, :2]
    right = road.pose_at(road.s_m, -road.width_right_m)[:, :2]
    if road.closed:
        left, right = np.vstack([left, left[:1]]), np.vstack([right, right[:1]])
    # Quads, not one polygon: an outline of a closed ring would fill its inside too.
    quads = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
    axes.add_collection(PolyCollection(list(quads), facecolor=ROAD, edgecolor=ROAD, linewidth=0.6, zorder=1))
    for edge in (left, right):
        axes.plot(edge[:, 0], edge[:, 1], color=EDGE, linewidth=0.9, zorder=2)
    axes.plot([left[0, 0], right[0, 0]], [left[0, 1], right[0, 1]], color=INK, linewidth=1.6, zorder=3)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _number_spots(road: Course, line: Course) -> list[FloatArray]:
    """Where each curve's number goes: beside it, on the side and at the distance where it hides least."""
    placed: list[FloatArray] = []
    for curve in reference_curves(line):
        middle = float(road.project(line.pose_at(0.5 * (curve.start_m + curve.end_m))[:2]).s_m)
        outside = -1.0 if curve.direction == "left" else 1.0
        best, best_room = np.zeros(2), -np.inf
        for side in (outside, -outside):
            width = float(road.at(middle, road.width_right_m if side < 0 else road.width_left_m))
            for gap in (2.2, 4.2):
                spot = road.pose_at(middle, side * (width + gap))[:2]
                room = float(np.linalg.norm(road.xy - spot, axis=1).min()) - width
                room = min(room, 2.5, *(float(np.linalg.norm(spot - other)) - 2.5 for other in placed))
                # Outside the bend and close to it reads best: elsewhere only for a real gain.
                room -= 0.4 * (side != outside) + 0.4 * (gap > 3.0)
                if room > best_room:
                    best, best_room = spot, room
        placed.append(best)
    return placed


def _draw_driven(axes: Axes, table: Table) -> None:
    xy, lateral = table["poses"][:, :2], table["lateral_m"]
    joined = np.ones(len(xy) - 1, bool)
    for moment in table["recovered_s"]:
        joined[max(0, int(np.searchsorted(table["t_s"], moment - 1e-6)) - 1)] = False
    pieces = list(np.stack([xy[:-1], xy[1:]], axis=1)[joined])
    # A dark line underneath keeps small deviations, which are pale, visible on the pale road.
    axes.add_collection(LineCollection(pieces, colors=INK, linewidths=2.9, capstyle="round", zorder=4))
    line = LineCollection(pieces, cmap=SIGNED, norm=SCALE, linewidths=1.7, capstyle="round", zorder=5)
    line.set_array(0.5 * (lateral[:-1] + lateral[1:])[joined])
    axes.add_collection(line)


def _largest_by_station(tables: Sequence[Table], length_m: float) -> FloatArray:
    """The signed deviation of largest size on each metre over several drives; NaN where none drove."""
    count = max(1, int(np.ceil(length_m)))
    worst = np.full(count, np.nan)
    station, lateral = (
        np.concatenate([np.zeros(0), *(table[key] for table in tables)]) for key in ("station_m", "lateral_m")
    )
    order = np.argsort(np.abs(lateral), kind="stable")  # the largest is written last
    worst[np.minimum(station[order].astype(int), count - 1)] = lateral[order]
    return worst


@mpl.rc_context(STYLED)
def along_figure(road: Course, drives: Mapping[str, Sequence[Table]], reference: Course | None = None) -> Figure:
    """Largest signed deviation over all starts at each place of the reference, all variants in one axis.

    The reference's curves are shaded and numbered. The road's edges are dashed, moved in by half a kart: beyond them
    its side is over the edge. Arguments as of :func:`map_figure`.
    """
    line = reference or road
    figure, (axes,) = _figure(3.9)
    reach, above = 1.0, axes.get_xaxis_transform()
    for number, curve in enumerate(reference_curves(line), start=1):
        for shift in (0.0, -line.length_m) if line.closed else (0.0,):
            start, end = max(curve.start_m + shift, 0.0), min(curve.end_m + shift, line.length_m)
            if end > start:
                axes.axvspan(start, end, color="#eef1f4", zorder=0)
        middle, name = (0.5 * (curve.start_m + curve.end_m)) % line.length_m, f"{number}{curve.direction[0].upper()}"
        axes.text(middle, 1.01, name, ha="center", va="bottom", fontsize=8, color="#4a525c", transform=above)
    for edge_m in (road.width_left_m - 0.5 * KART.width_m, 0.5 * KART.width_m - road.width_right_m):
        foot = line.project(road.pose_at(road.s_m, edge_m)[:, :2])
        order = np.argsort(foot.s_m)
        reach = max(reach, float(np.median(np.abs(foot.lateral_m))) + 0.5)
        axes.plot(foot.s_m[order], foot.lateral_m[order], color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    axes.axhline(0.0, color=EDGE, linewidth=0.8, zorder=1)
    for variant, tables in drives.items():
        worst, colour = _largest_by_station(tables, line.length_m), colour_of(variant)
        reach = max(reach, float(np.nanmax(np.abs(worst), initial=0.0)) + 0.2)
        axes.plot(np.arange(len(worst)) + 0.5, worst, color=colour, linewidth=1.7, label=label_of(variant), zorder=3)
        marks = np.concatenate([np.zeros(0), *(table["event_station_m"] for table in tables)])
        _crosses(axes, marks, worst[np.minimum(marks.astype(int), len(worst) - 1)], colour)
    axes.set_xlim(0.0, line.length_m)
    axes.set_ylim(-min(reach, 5.0), min(reach, 5.0))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(
        f"along {_line_name(road, reference)} [m]   "
        "(bands: curves, L left, R right; dashed: the kart's side at the edge; X: leaves the road)"
    )
    axes.set_ylabel("deviation [m]\nright  |  left")
    _legend(figure, len(drives))
    return figure


@mpl.rc_context(STYLED)
def curves_figure(rows: Mapping[str, Sequence[Mapping[str, Any]]], course: str) -> Figure:
    """Largest deviation on each curve, variants side by side; ``rows`` are the ``curves`` of their summaries."""
    figure, (axes,) = _figure(3.5)
    top = max((row["max_m"] or 0.0 for part in rows.values() for row in part), default=1.0)
    missed: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6.5}
    first = next(iter(rows.values()))
    for variant, at, width in bars(rows, np.arange(len(first), dtype=np.float64), 0.82):
        part, colour = rows[variant], colour_of(variant)
        axes.bar(at, [row["max_m"] or 0.0 for row in part], 0.92 * width, color=colour, label=label_of(variant))
        for x, row in zip(at, part, strict=True):
            if row["max_m"] is None:
                axes.text(x, 0.02 * top, "not reached", color=colour, **missed)
            elif row["off_track_events"]:
                _crosses(axes, x, row["max_m"] + 0.045 * top, size=6.5)
    names = [f"{row['number']} {row['direction'][0].upper()}\nR {row['min_radius_m']:.1f} m" for row in first]
    axes.set_xticks(range(len(first)), names)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0.0, 1.15 * max(top, 0.5))
    axes.set_ylabel("largest deviation [m]")
    axes.set_xlabel(f"curve of {course}, direction and smallest radius   (X: leaves the road there)")
    _legend(figure, len(rows))
    return figure


@mpl.rc_context(STYLED)
def latency_figure(timings_ms: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Stage times of planning: bars to the median, whiskers to the 95th percentile.

    They are given as name (a variant or a drive) -> stage -> ``{"p50": .., "p95": ..}``.
    """
    stages = list(dict.fromkeys(stage for part in timings_ms.values() for stage in part))
    figure, (axes,) = _figure(0.9 + 0.24 * len(stages) * max(1, len(timings_ms)))
    for name, at, height in bars(timings_ms, np.arange(len(stages), dtype=np.float64), 0.8):
        part = timings_ms[name]
        p50, p95 = (np.array([part.get(stage, {}).get(rank, np.nan) for stage in stages]) for rank in ("p50", "p95"))
        axes.barh(at, p50, 0.9 * height, color=colour_of(name), label=label_of(name))
        axes.hlines(at, p50, p95, color=INK, linewidth=1.1)
        axes.plot(p95, at, "|", color=INK, markersize=6)
    axes.set_yticks(np.arange(len(stages)), [stage.replace("_", " ") for stage in stages])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("milliseconds per plan (bar: median, whisker: 95th percentile)")
    _legend(figure, len(timings_ms))
    return figure


@mpl.rc_context(STYLED)
def loss_figure(curves: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Text and trajectory loss side by side, never summed: raw steps pale, their running mean dark, validation dots.

    ``curves`` as :func:`closed_loop.report.sections.read_losses` reads them.
    """
    figure, panels = _figure(3.3, columns=2)
    for axes, (name, title, colour) in zip(panels, LOSSES, strict=True):
        axes.set_title(title)
        axes.set_xlabel("step")
        if f"{name}_loss" in curves:
            step, value = curves[f"{name}_loss"]
            axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.9)
            axes.plot(step, _running_mean(value), color=colour, linewidth=2.0, label="training (running mean)")
        if f"validation_{name}_loss" in curves:
            step, value = curves[f"validation_{name}_loss"]
            axes.plot(step, value, "o-", color=INK, lw=1.0, ms=4.5, markerfacecolor="white", label="validation")
            for index, offset, side in ((0, (8, -3), "left"), (len(value) - 1, (0, 8), "center"))[: len(value)]:
                spot, text = (step[index], value[index]), f"{value[index]:.2f}"
                axes.annotate(text, spot, offset, textcoords="offset points", ha=side, fontsize=8.5, color=INK)
        axes.set_ylim(bottom=0.0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right")
        else:
            axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color="#868e96")
    return figure


def _running_mean(values: FloatArray) -> FloatArray:
    """Mean over a window of a twentieth of the run, cut off at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first))
