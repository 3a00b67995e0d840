"""One plot of a sweep: every figure against the number of training samples."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from collector.common.plot_style import SIDES, STYLE

_LOWEST = "#9fc5ae"


@mpl.rc_context(STYLE)
def sweep_figure(summary: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """A panel per figure of ``titles``, over a logarithmic axis of samples.

    The base is a line across, the size that is enough a mark.
    """
    base, rows = summary["sizes"][0], summary["sizes"][1:]
    figure = Figure(figsize=(12.5, 6.6), layout="constrained")
    panels = figure.subplots(2, 3)
    sizes = [row["samples"] for row in rows]
    for axes, (key, title) in zip(panels.flat, titles.items(), strict=False):
        values = [_number(row.get(key)) for row in rows]
        axes.plot(sizes, values, "o-", color=SIDES["after"], label="last step")
        if rows and f"{key}_lowest" in rows[0]:
            axes.plot(sizes, [row[f"{key}_lowest"] for row in rows], ".--", color=_LOWEST, label="lowest on the way")
        # The base may lie far above: the sizes are what is to be told apart.
        top = 1.3 * max([0.04, *(value for value in values if np.isfinite(value))])
        before = _number(base.get(key))
        if np.isfinite(before):
            where = " (above)" if before > top else ""
            axes.axhline(
                before, color=SIDES["before"], linewidth=1.2, linestyle=":", label=f"base: {before:.2f}{where}"
            )
        enough = summary["enough"].get(key)
        if enough is not None:
            axes.axvline(enough, color="#b8bec6", linewidth=5, alpha=0.5, zorder=0, label=f"enough: {enough}")
        axes.set(title=title, xlabel="training samples", xscale="log", ylim=(0.0, top))
        if sizes:
            axes.xaxis.set_major_locator(FixedLocator(sizes))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if key == "symptom_rate":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(fontsize=8)
    note = panels.flat[len(titles)]
    note.set_axis_off()
    lines = [
        f"{summary['steps']} steps of {summary['batch_size']} at every size,",
        f"the same {summary['judged_samples']} validation samples for all.",
        "",
        *(f"{row['samples']:>6} samples: seen {row['epochs']:.1f} times" for row in rows),
        "",
        *textwrap.wrap(f"enough: {summary['enough_means']}", 45),
    ]
    note.text(0.0, 0.95, "\n".join(lines), va="top", fontsize=9)
    figure.suptitle("How many samples does it take?")
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
