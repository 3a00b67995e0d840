"""How far late plans lead astray: a row per variant and latency, and one plot of them.

The expert makes no plans that could be late; its row is the same at every latency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from closed_loop.comparison.runs import VARIANTS
from collector.common.plotting import STYLE
from collector.common.tables import Table, metres, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure
PLOT = "latency.png"
Row = Mapping[str, Any]


def latency_text(row: Row) -> str:
    """The latency of a row, and what is drawn on top of it."""
    if row["latency_s"] is None:
        return "-"
    return f"{row['latency_s']:g}" + (f" to {row['latency_s'] + row['jitter_s']:g}" if row["jitter_s"] else "") + " s"


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "variant": lambda row: str(row["label"]),
    "latency": latency_text,
    "max deviation on curves": lambda row: metres(row["max_on_curves_m"]),
    "RMS": lambda row: metres(row["rms_on_curves_m"]),
    "off-track": lambda row: str(row["off_track_events"]),
    "laps": lambda row: f"{row['laps_finished']} of {row['laps_asked']}",
    "time of a lap": lambda row: number(row["lap_s"], 0, " s"),
}
HEADINGS = tuple(_COLUMNS)


def latency_texts(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of :data:`HEADINGS`."""
    return [tuple(text(row) for text in _COLUMNS.values()) for row in rows]


def latency_table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    return Table("Late plans", HEADINGS, latency_texts(rows))


def write_latency_plot(rows: Sequence[Row], folder: Path) -> None:
    """``latency.png``: largest deviation, times off the road and time of a lap over the latency."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        latency_figure(rows).savefig(folder / PLOT, dpi=130, bbox_inches="tight", pad_inches=0.08)


def latency_figure(rows: Sequence[Row]) -> Figure:
    """Three panels over the latency, a line per variant; a drive that did not finish every lap is a hollow mark."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = {
        "max_on_curves_m": "largest deviation on curves [m]",
        "off_track_per_lap": "times off the road, per lap asked",
        "lap_s": "time of a lap [s]",
    }
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row["variant"], []).append(
            {**row, "off_track_per_lap": row["off_track_events"] / max(1, row["laps_asked"])}
        )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 3.6), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for name, own in lines.items():
                variant = VARIANTS[name]
                known = sorted((row for row in own if row[key] is not None), key=lambda row: row["latency_s"] or 0.0)
                if own[0]["latency_s"] is None:
                    for row in known:
                        axes.axhline(row[key], color=variant.colour, linestyle="--", label=variant.label)
                    continue
                x, y = ([row[each] for row in known] for each in ("latency_s", key))
                axes.plot(x, y, color=variant.colour, label=variant.label)
                for row in known:
                    face = variant.colour if row["laps_finished"] >= row["laps_asked"] else "white"
                    axes.plot(row["latency_s"], row[key], "o", color=variant.colour, markerfacecolor=face)
            axes.set_title(title)
            # Where nothing happened the line lies on the ground, and not in the middle of a scale of thousandths.
            axes.set_ylim(0.0, max(1.0, axes.get_ylim()[1]))
            axes.set_xlabel("latency [s]" + (f", and up to {jitter:g} more" if (jitter := _jitter(rows)) else ""))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _jitter(rows: Sequence[Row]) -> float:
    return max((row["jitter_s"] or 0.0 for row in rows), default=0.0)
