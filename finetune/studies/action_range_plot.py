"""The plot beside the action-range tables: reach, cost of clipping, source of the loss, Euler steps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from collector.common.plot_style import SIDES, STYLE
from finetune.studies.action_range import AXES, EULER_STEPS, LIMITS, bin_names

_BIN_COLOURS = ("#b8bec6", "#20262e", SIDES["before"], SIDES["after"])
_COLOURS = ("#3567b0", "#d1432f", "#1d8a4e", "#8a5bb5")


@mpl.rc_context(STYLE)
def action_range_figure(metrics: Mapping[str, Any], actions: NDArray[np.float64]) -> Figure:
    """Four panels.

    Args:
        metrics: as :func:`finetune.studies.action_range_command.action_range` returns them.
        actions: (N, 64, 2) normalised actions of the dataset.
    """
    figure = Figure(figsize=(12.5, 8.0), layout="constrained")
    reached, clip, loss, euler = figure.subplots(2, 2).flat
    _draw_reach(reached, actions)
    _draw_clip(clip, metrics)
    _draw_bins(loss, metrics)
    _draw_euler(euler, metrics)
    figure.suptitle("Kart tracks in the released normalisation")
    return figure


def _draw_reach(axes: Axes, actions: NDArray[np.float64]) -> None:
    edge = max(9.0, float(np.abs(actions).max()))
    edges = np.linspace(-edge, edge, 81).tolist()
    for index, axis in enumerate(AXES):
        axes.hist(actions[..., index].ravel(), edges, histtype="step", linewidth=1.6, color=_COLOURS[index], label=axis)
    for limit in LIMITS:
        for side in (-limit, limit):
            axes.axvline(side, color="#9aa3ad", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="released standard deviations (left positive)", ylabel="waypoints")
    axes.legend()


def _draw_clip(axes: Axes, metrics: Mapping[str, Any]) -> None:
    rows = metrics["clip"][1:]
    places = np.arange(len(rows))
    for offset, (kind, until) in enumerate(product(("mean", "largest"), ("3", "6.4"))):
        shares = [row[f"{kind}_{until}s_m"] for row in rows]
        place = places + 0.2 * (offset - 1.5)
        axes.bar(place, shares, 0.19, color=_COLOURS[offset], label=f"{kind}, {until} s")
    axes.set_xticks(places, [f"{row['limit']:g} ({row['samples_moved']:.0%} of samples)" for row in rows])
    axes.set(xlabel="clip at, standard deviations", ylabel="path moved, m")
    axes.legend()


def _draw_bins(axes: Axes, metrics: Mapping[str, Any]) -> None:
    names, bins = bin_names(), metrics["bins"]
    width = 0.8 / len(bins)
    for index, (name, shares) in enumerate(bins.items()):
        place = np.arange(len(names)) + width * (index - (len(bins) - 1) / 2)
        axes.bar(place, shares, 0.95 * width, label=name, color=_BIN_COLOURS[index])
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="curvature of the waypoint, standard deviations", ylabel="share")
    axes.legend()


def _draw_euler(axes: Axes, metrics: Mapping[str, Any]) -> None:
    exact = metrics["exact_flow"]
    for index, mean in enumerate(exact["means"]):
        gaps = [exact["gaussian"][str(steps)][index] for steps in EULER_STEPS]
        look: dict[str, Any] = {
            "color": "#9aa3ad",
            "alpha": 0.5,
            "linewidth": 1.0 + 2.5 * (len(exact["means"]) - index - 1),
        }
        axes.plot(EULER_STEPS, gaps, "o-", label=f"exact flow to {mean:g} +- {exact['spread']:g}", **look)
    for variant, of in metrics["models"].items():
        for part, style in (("gentle", "--"), ("sharp", "-")):
            gaps = [of["euler"][f"zero, {steps}"]["curvature_gap_sigma"][part] for steps in EULER_STEPS]
            axes.plot(EULER_STEPS, gaps, "s" + style, color=SIDES[variant], label=f"model {variant}, {part} half")
    axes.set(
        xscale="log", yscale="log", xlabel="Euler steps", ylabel="end point off by, standard deviations of curvature"
    )
    axes.set_xticks(EULER_STEPS, [str(steps) for steps in EULER_STEPS])
    axes.minorticks_off()
    axes.legend(fontsize=8)
