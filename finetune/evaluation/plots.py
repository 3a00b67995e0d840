"""Plots of an open-loop evaluation. Every figure function returns a matplotlib Figure and touches no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from collector.common.plotting import INK, SIDES, STYLE, bars, families, is_shown, wrapped
from collector.common.tables import percent
from finetune.evaluation.metrics import HORIZONS_S, MAIN_HORIZON_S, MAX_DEVIATION, Mask, Scores, label_masks
from finetune.policy import FUTURE_STEPS, STEP_S

# Reasoning texts may be Japanese.
STYLE = {**STYLE, "font.family": families()}
COLOURS: Mapping[str, str] = {
    **SIDES,
    "constant velocity": "#9aa3ad",
    "constant yaw rate": "#6b7280",
    "ego-only regressor": "#3567b0",
}
LINES: Mapping[str, str] = {"constant velocity": ":", "constant yaw rate": "--", "ego-only regressor": "-."}
LABEL_MARKS = {"straight": ("#6b7280", "s"), "left": ("#3567b0", "<"), "right": ("#e08a2e", ">"), "s": ("#8a5bb5", "o")}
EXAMPLES = 6
_COVERAGE = ("coverage", "longitudinal_coverage", "both_coverage")


def write_plots(metrics: Mapping[str, Any], variants: Sequence[Scores], chosen: Mask, folder: Path) -> list[Path]:
    """All figures that the variants allow, as PNG in ``plots``; returns their paths."""
    place = folder / "plots"
    place.mkdir(exist_ok=True)
    thinking = [scores for scores in variants if scores.thinks]
    models = {scores.name: metrics["variants"][scores.name] for scores in thinking}
    figures = {
        "error_by_horizon": horizon_figure(variants, chosen),
        "error_by_curve": curve_figure(metrics["variants"]),
        "consistency": consistency_figure(models),
        "examples": examples_figure(thinking, chosen),
    }
    if len(thinking) > 1:
        figures["before_after"] = scatter_figure(thinking[0], thinking[1], chosen)
    if metrics["draws"] > 1:
        figures["min_ade"] = draws_figure(models)
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in figures.items():
            paths.append(place / f"{name}.png")
            figure.savefig(paths[-1], dpi=130, bbox_inches="tight", pad_inches=0.08)
    return paths


def _style(name: str) -> dict[str, Any]:
    thinks = name in SIDES
    return {"color": COLOURS.get(name, INK), "linestyle": LINES.get(name, "-"), "linewidth": 2.2 if thinks else 1.5}


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


@mpl.rc_context(STYLE)
def horizon_figure(variants: Sequence[Scores], chosen: Mask) -> Figure:
    """Mean distance from the driven path at each moment ahead, every variant; near and far."""
    indices = np.flatnonzero(chosen).tolist()
    truth = np.stack([variants[0].samples[index].future_array()[:, :2] for index in indices])
    time_s = STEP_S * np.arange(1, FUTURE_STEPS + 1)
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    near, far = figure.subplots(1, 2)
    for scores in variants:
        planned = np.stack([scores.poses[index][:, :2] for index in indices])
        distance = np.linalg.norm(planned - truth, axis=-1).mean(axis=0)
        for axes, until in ((near, MAIN_HORIZON_S), (far, HORIZONS_S[-1])):
            shown = time_s <= until + STEP_S / 2
            axes.plot(time_s[shown], distance[shown], label=scores.name, **_style(scores.name))
    for axes, until in ((near, MAIN_HORIZON_S), (far, HORIZONS_S[-1])):
        axes.set(xlim=(0.0, until), ylim=(0.0, None), xlabel="time ahead (s)", ylabel="mean distance (m)")
        axes.set_title(f"Distance from the driven path, up to {until:g} s")
    _legend_below(figure, near, 5)
    return figure


@mpl.rc_context(STYLE)
def scatter_figure(before: Scores, after: Scores, chosen: Mask) -> Figure:
    """Max deviation of every sample before and after; below the diagonal it became better."""
    old, new = before.values[MAX_DEVIATION], after.values[MAX_DEVIATION]
    figure = Figure(figsize=(5.8, 5.6), layout="constrained")
    axes: Axes = figure.subplots()
    values = np.concatenate([old[chosen], new[chosen]])
    low, high = max(0.01, float(values.min())) * 0.8, max(0.02, float(values.max())) * 1.25
    axes.fill_between([low, high], [low, high], low, color="#eaf4ee", zorder=0)
    axes.plot([low, high], [low, high], color="#9aa3ad", linewidth=1.0, zorder=1)
    for label, of_label in label_masks(before.samples).items():
        shown = of_label & chosen
        colour, mark = LABEL_MARKS[label]
        dots: dict[str, Any] = {"color": colour, "markersize": 5, "alpha": 0.75, "markeredgewidth": 0.0}
        places = np.maximum(old[shown], low), np.maximum(new[shown], low)
        axes.plot(*places, mark, label=f"{label} ({shown.sum()})", **dots)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="before (m)", ylabel="after (m)")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    better = float((new[chosen] < old[chosen]).mean())
    axes.set_title(f"Max deviation up to {MAIN_HORIZON_S:g} s: lower after in {percent(better)} of samples")
    axes.legend(loc="upper left", title="curve ahead (samples)", alignment="left")
    return figure


@mpl.rc_context(STYLE)
def consistency_figure(variants: Mapping[str, Any]) -> Figure:
    """Coverage on the left; on the right, among the plans that claim something, how many are right."""
    # Rate, its words, what it is a share of.
    coverage = [(key, words, "plans") for key, words in zip(_COVERAGE, ("direction", "speed", "both"), strict=True)]
    rates = [
        ("consistent", "path agrees on direction", _COVERAGE[0]),
        ("longitudinal_consistent", "path agrees on speed", _COVERAGE[1]),
        ("both_consistent", "path agrees on both", _COVERAGE[2]),
        ("reasoning_right", "direction claimed is true", _COVERAGE[0]),
        ("speed_reasoning_right", "speed claimed is true", _COVERAGE[1]),
        ("thinks_curve_drives_straight", "thinks curve,\ndrives straight", "curve_plans"),
    ]
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.45))
    for axes, rows, title, room in (
        (left, coverage, "Plans whose text claims something on", 150.0),
        (right, rates, "Of these plans (red: of all plans into a curve)", 128.0),
    ):
        for name, at, height in bars(variants, np.arange(len(rows), dtype=np.float64), 0.8):
            said = variants[name]["consistency"]
            shares = [0.0 if np.isnan(said[key]) else 100.0 * said[key] for key, *_ in rows]
            axes.barh(at, shares, height * 0.92, color=COLOURS[name], label=name)
            for place, share, (key, _, whole) in zip(at, shares, rows, strict=True):
                count = said[whole] if whole.endswith("plans") else round(said["plans"] * said[whole])
                nothing = "no curve" if whole == "curve_plans" else "no claim"
                text = f"{percent(said[key])} of {count}" if count else nothing
                axes.text(share + 1.5, place, text, va="center", fontsize=8.5, color=INK)
        axes.set_yticks(range(len(rows)), [words for _, words, _ in rows])
        axes.invert_yaxis()
        axes.set(xlim=(0.0, room), xticks=range(0, 101, 25), xlabel="%")
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    right.get_yticklabels()[-1].set_color("#b3151b")
    _legend_below(figure, right, 2)
    return figure


@mpl.rc_context(STYLE)
def curve_figure(variants: Mapping[str, Any]) -> Figure:
    """Max deviation by curve label and radius bin, every variant."""
    parts = {name: {**values["by_label"], **values["by_radius"]} for name, values in variants.items()}
    first, labels = next(iter(parts.values())), len(next(iter(variants.values()))["by_label"])
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    axes: Axes = figure.subplots()
    # A gap between labels and bins: the bins divide the same samples again.
    places = np.array([place + (0.7 if place >= labels else 0.0) for place in range(len(first))])
    for name, at, width in bars(parts, places, 0.84):
        heights = [parts[name][part][MAX_DEVIATION] for part in first]
        axes.bar(at, heights, width * 0.94, color=COLOURS.get(name, INK), label=name)
    axes.set_xticks(places, [part.replace(" ", "\n") + f"\n({of['samples']})" for part, of in first.items()])
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.01)
    axes.set(ylabel="mean of max deviation (m)")
    axes.set_title(f"Max deviation up to {MAIN_HORIZON_S:g} s, by curve label and by radius (samples)")
    _legend_below(figure, axes, 5)
    return figure


@mpl.rc_context(STYLE)
def draws_figure(variants: Mapping[str, Any]) -> Figure:
    """MinADE over the number of draws."""
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, horizon in zip(panels, (MAIN_HORIZON_S, HORIZONS_S[-1]), strict=True):
        for name, values in variants.items():
            best = values["min_ade_k"][f"{horizon:g}s_m"]
            axes.plot(range(1, len(best) + 1), best, marker="o", markersize=4, label=name, **_style(name))
        axes.set(xlabel="k plans drawn", ylabel="minADE (m)", ylim=(0.0, None))
        axes.set_title(f"minADE_k up to {horizon:g} s")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend()
    return figure


@mpl.rc_context(STYLE)
def examples_figure(thinking: Sequence[Scores], chosen: Mask) -> Figure:
    """Plans from above, from the least to the greatest max deviation of the last variant in even steps of rank."""
    last = thinking[-1]
    order = np.flatnonzero(chosen)[np.argsort(last.values[MAX_DEVIATION][chosen], kind="stable")]
    picked = order[np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))]
    columns = min(3, len(picked))
    rows = -(-len(picked) // columns)
    figure = Figure(figsize=(11.0, 4.4 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, index in zip(panels.flat, picked.tolist(), strict=False):
        _draw_example(axes, thinking, index)
    for axes in list(panels.flat)[len(picked) :]:
        axes.set_visible(False)
    _legend_below(figure, panels.flat[0], 5)
    title = f"Plans from above: from the least to the greatest max deviation {last.name}, in even steps of rank"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def _draw_example(axes: Axes, thinking: Sequence[Scores], index: int) -> None:
    sample = thinking[0].samples[index]
    future, history = sample.future_array(), sample.history_array()

    def line(poses: NDArray[np.float64], **style: Any) -> None:  # noqa: ANN401 - matplotlib's own words
        # From above with x, the way ahead, pointing up: y left is then left on the page.
        path = np.vstack([np.zeros((1, 2)), poses[:, :2]])
        axes.plot(-path[:, 1], path[:, 0], **style)
        at = path[round(MAIN_HORIZON_S / STEP_S)]
        axes.plot(-at[1], at[0], "o", color=style["color"], markersize=5, zorder=style.get("zorder", 2))

    axes.plot(-history[:, 1], history[:, 0], color="#9aa3ad", linewidth=1.5, linestyle=":", label="history")
    line(future, color=INK, linewidth=4.5, alpha=0.35, label="driven (dot: 3 s)", zorder=1.5)
    for scores in thinking:
        line(scores.poses[index], label=scores.name, zorder=3, **_style(scores.name))
    axes.plot(0.0, 0.0, marker="^", color=INK, markersize=7, zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="m to the right", ylabel="m ahead")
    said = "\n".join(
        wrapped(f"{s.name} {s.values[MAX_DEVIATION][index]:.2f} m: {_shown(s.reasonings[index])}", 58) for s in thinking
    )
    # A model may write anything: a dollar sign begins no formula.
    axes.set_title(said, fontsize=7.5, fontweight="normal", parse_math=False)


def _shown(reasoning: str, most: int = 200) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in reasoning)
    if not is_shown(text):
        return "(in letters that no font here has: see plans.jsonl)"
    return (text[:most] + " ..." if len(text) > most else text) or "-"
