"""The plot of a counterfactual: fans of paths for some samples, and how far the path moves on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from collector.common.plot_style import INK, STYLE

Paths = Mapping[str, Mapping[str, NDArray[np.float64]]]
_SHOWN = 5
# Up to here a path is drawn: what a reasoning speaks of, and what the table measures.
_STEPS = 30
_COLOURS = {"own": "#3567b0", "true": "#1d8a4e", "opposite": "#d1432f", "straight": "#e08a2e", "none": "#8a5bb5"}


@mpl.rc_context(STYLE)
def counterfactual_figure(
    rows: Sequence[Mapping[str, Any]], paths: Paths, truth: NDArray[np.float64], names: Mapping[str, str]
) -> Figure:
    """A row per variant: fans of some samples, and a histogram of the lateral places 3 s ahead.

    Args:
        rows: of ``samples.csv``.
        paths: variant -> reasoning -> (N, 64, 3) planned poses.
        truth: (N, 64, 3) what was driven.
        names: reasoning -> what it is called.
    """
    shown = np.unique(np.linspace(0, len(truth) - 1, min(_SHOWN, len(truth))).astype(int))
    figure = Figure(figsize=(3.0 * len(shown) + 4.2, 3.5 * len(paths) + 0.6), layout="constrained")
    widths = [1.0] * len(shown) + [1.6]
    grid = figure.subplots(len(paths), len(widths), squeeze=False, width_ratios=widths)
    for axes_row, (variant, of_reasonings) in zip(grid, paths.items(), strict=True):
        for axes, index in zip(axes_row, shown, strict=False):
            _draw_fan(axes, of_reasonings, truth, int(index), names)
        axes_row[0].set_ylabel(f"{variant}\nx ahead, m")
        _draw_histogram(axes_row[-1], [row for row in rows if row["variant"] == variant], names)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle("The same picture, another reasoning: planned paths of the next 3 s")
    return figure


def _draw_fan(
    axes: Axes,
    of_reasonings: Mapping[str, NDArray[np.float64]],
    truth: NDArray[np.float64],
    index: int,
    names: Mapping[str, str],
) -> None:
    origin = np.zeros((1, 2))
    driven = np.vstack([origin, truth[index, :_STEPS, :2]])
    axes.plot(driven[:, 1], driven[:, 0], color=INK, linewidth=5, alpha=0.18, label="driven")
    for reasoning, poses in of_reasonings.items():
        path = np.vstack([origin, poses[index, :_STEPS, :2]])
        line, label = "--" if reasoning == "none" else "-", f"reasoning: {names[reasoning]}"
        axes.plot(path[:, 1], path[:, 0], line, color=_COLOURS[reasoning], linewidth=1.6, label=label)
    reach = max(3.0, float(np.abs(np.stack([poses[index, :_STEPS, 1] for poses in of_reasonings.values()])).max()))
    # Left is left: y grows to the left.
    axes.set(xlim=(1.1 * reach, -1.1 * reach), xlabel="y left, m")


def _draw_histogram(axes: Axes, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    lateral = {
        reasoning: [row["lateral_3s_m"] for row in rows if row["reasoning"] == reasoning]
        for reasoning in ("true", "opposite", "straight")
    }
    every = np.concatenate([np.asarray(values) for values in lateral.values()])
    edges = np.linspace(every.min(), every.max() + 1e-6, 25).tolist()
    for reasoning, values in lateral.items():
        axes.hist(values, edges, color=_COLOURS[reasoning], alpha=0.45, label=names[reasoning])
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set(xlabel="lateral place after 3 s, m (true side positive)", ylabel="samples")
    axes.legend(fontsize=8)
