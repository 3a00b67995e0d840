"""Does the path follow the reasoning? Force the opposite one and measure how far the path moves.

On every sample that bends, the model plans through the driving path with its own reasoning, with the true one, with
left and right exchanged, with one that speaks of a straight lane, and without any. Picture and history stay the same,
so whatever moves the path is the reasoning. Pure numpy but for the planning itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.common.arguments import Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.output_folder import alone_in_out
from collector.common.plotting import INK, STYLE
from collector.common.run_folder import open_run, plain
from collector.common.tables import Console, Table, percent, write_csv
from collector.dataset.schema import METADATA_FILE, Sample
from collector.dataset.statistics import pairs_of
from collector.geometry.curvature import CurveLabel
from collector.reasoning.consistency import language_of, measure_motion, parse_claim
from collector.reasoning.writing import swap_sides, write_reasoning
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.evaluation.command import split_samples, spread
from finetune.evaluation.consistency import mean_of
from finetune.model_files.location import resolve_model
from finetune.policy import STEP_S, CameraMode, Observation, Plan, PolicySettings
from finetune.studies.arms import DEFINITIONS as ARM_DEFINITIONS
from finetune.studies.arms import arm_tables, plan_arms, summarise_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from finetune.alpamayo_policy import AlpamayoPolicy
    from finetune.evaluation.inference import Planned
    from finetune.processing.processor import Encoded

# What the model is made to think, and how a table calls it.
REASONINGS: Mapping[str, str] = {key: key for key in ("own", "true", "opposite", "straight", "none")} | {
    "straight": "straight lane"
}
TIMES_S = (2.0, 3.0)
Paths = dict[str, dict[str, NDArray[np.float64]]]  # variant -> reasoning -> (N, 64, 3) planned poses
_SHOWN = 5
# Up to here a path is drawn: what a reasoning speaks of, and what the table measures.
_STEPS = 30
_COLOURS = {"own": "#3567b0", "true": "#1d8a4e", "opposite": "#d1432f", "straight": "#e08a2e", "none": "#8a5bb5"}
_HISTOGRAM = ("true", "opposite", "straight")
_KEYS = tuple(
    f"{kind}_{time_s:g}s_{unit}" for kind, unit in (("heading", "rad"), ("lateral", "m")) for time_s in TIMES_S
)
DEFINITIONS = (
    "Samples whose true path bends; means over them. As reasoning: the path's own label (first curve within 3 s) is "
    "the direction the text names, as share of the texts that name one; as the road: it is the true one. Heading and "
    "lateral: of the planned path after 2 and 3 s, positive towards the side the road bends to. Moved: how far that is "
    "from the path with the true reasoning, away from that side."
)


@dataclass(frozen=True)
class CounterfactualConfig(Arguments):
    """Force the opposite reasoning through the driving path and measure how far the planned path moves."""

    model: Path  # model folder in the official layout, or its id on the Hugging Face hub.
    dataset: Path  # dataset folder made by `alpamayo-mono build`; the samples that bend are taken.
    # folder for metrics.json, table.csv, samples.csv, arms.csv, paths.json and counterfactual.png.
    out: Path = Path("runs/counterfactual")
    adapter: Path | None = None  # adapter folder; with it the table shows before and after.
    cameras: CameraMode = PolicySettings.cameras  # what the kart has when it drives.
    split: str = "val"  # train or val.
    limit: int = argument(0, "at most so many samples, evenly spread; 0 for all", 0, 10_000_000)
    batch_size: int = argument(8, "plans per forward pass", 1, 65_536)
    device: str = PolicySettings.device  # torch device.


def forced_text(sample: Sample, reasoning: str) -> str:
    """The text of a forced reasoning: the sample's own words, mirrored, or a straight lane's at the same speed."""
    if reasoning == "true":
        return sample.reasoning
    if reasoning == "opposite":
        return swap_sides(sample.reasoning)
    if reasoning == "straight":
        motion = measure_motion(sample.future_array(), sample.dt_s, speed_mps=sample.speed_mps)
        straight = replace(motion, lateral="straight", curve=CurveLabel("straight", 0.0, None, 0.0, "straight"))
        return write_reasoning(straight, seed=0, language=language_of(sample.reasoning))
    return ""


def bending(samples: Sequence[Sample]) -> list[Sample]:
    """The samples whose path bends and whose text says so; only there the opposite is something else."""
    return [
        sample
        for sample in samples
        if measure_motion(sample.future_array(), sample.dt_s).lateral != "straight"
        and swap_sides(sample.reasoning) != sample.reasoning
    ]


def measure_path(poses: ArrayLike, side: float, text: str) -> dict[str, Any]:
    """One planned path (64, 3) against the side its road bends to (+1 left, -1 right) and the text it came from.

    Gives ``heading_2s_rad``, ``lateral_3s_m`` and so on, positive towards that side; ``direction`` of the path; what
    the text ``names``; and whether it ``follows`` it, None where it names none.
    """
    path = np.asarray(poses, np.float64)
    yaw_rad = np.unwrap(np.concatenate([[0.0], path[:, 2]]))[1:]
    measured: dict[str, Any] = {}
    for time_s in TIMES_S:
        step = round(time_s / STEP_S) - 1
        measured[f"heading_{time_s:g}s_rad"] = float(side * yaw_rad[step])
        measured[f"lateral_{time_s:g}s_m"] = float(side * path[step, 1])
    direction, names = measure_motion(path).lateral, parse_claim(text).lateral
    follows = None if names == "none" else direction == names
    return {**measured, "direction": direction, "names": names, "follows": follows}


def summarise_reasonings(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means per forced reasoning over samples, and how far each moved from the path with the true reasoning.

    The rows are as :func:`measure_path` gives them, with ``id`` and ``reasoning``; every sample with every reasoning.
    """
    true = {row["id"]: row for row in rows if row["reasoning"] == "true"}
    out: dict[str, dict[str, float]] = {}
    for reasoning in REASONINGS:
        mine = [row for row in rows if row["reasoning"] == reasoning]
        if not mine:
            continue
        follows = [row["follows"] for row in mine if row["follows"] is not None]
        out[reasoning] = {
            "samples": len(mine),
            "follows": mean_of(follows),
            "to_true_side": mean_of([row["direction"] == true[row["id"]]["true_direction"] for row in mine]),
            **{key: mean_of([row[key] for row in mine]) for key in _KEYS},
            **{f"moved_{key}": mean_of([true[row["id"]][key] - row[key] for row in mine]) for key in _KEYS},
        }
    return out


@alone_in_out("counterfactual")
def counterfactual(config: CounterfactualConfig) -> dict[str, Any]:
    """Plan with every reasoning and write ``metrics.json`` (returned), ``table.csv``, ``samples.csv`` and the plot.

    Raises:
        MonoError: no sample of the split bends.
    """
    require("matplotlib", "report")
    from finetune.evaluation.inference import plan_all, policies

    config = replace(config, model=resolve_model(config.model))
    found = split_samples(config.dataset, config.split)
    samples = spread(bending(found), config.limit)
    if not samples:
        what = f"none of the {len(found)} samples of split {config.split!r} in {config.dataset} bends"
        expected = "curves, and texts that name them"
        raise MonoError(what, expected, "choose another --split or build from drives with curves")
    if config.adapter is not None:  # rather now than after a pass of the base
        check_belongs(adapter_facts(config.adapter), config.model, config.cameras)
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE, config.model], verb="counterfactual")
    said = {"definitions": DEFINITIONS, "arm_definitions": ARM_DEFINITIONS}
    metrics: dict[str, Any] = {**said, "samples": len(samples), "variants": {}, "arms": {}, "spread": {}}
    rows, arms = list[dict[str, Any]](), list[dict[str, Any]]()
    pairs = pairs_of(config.dataset, samples)
    paths: Paths = {}
    for variant, policy in policies(config.model, config.adapter, config.cameras, config.device):
        planned: dict[str, list[Plan]] = {}
        paths[variant], mine = {}, []
        for reasoning, name in REASONINGS.items():
            forced = None if reasoning == "own" else partial(_plan_forced, policy, reasoning)
            title = f"{variant}, reasoning: {name}"
            plans = planned[reasoning] = plan_all(policy, samples, config.dataset, config.batch_size, title, forced)
            paths[variant][reasoning] = np.stack([plan.poses for plan in plans])
            for sample, plan in zip(samples, plans, strict=True):
                direction = measure_motion(sample.future_array(), sample.dt_s).lateral
                row = {"variant": variant, "reasoning": reasoning, "id": sample.id, "true_direction": direction}
                side = 1.0 if direction == "left" else -1.0
                mine.append({**row, **measure_path(plan.poses, side, plan.reasoning), "text": plan.reasoning})
        metrics["variants"][variant] = summarise_reasonings(mine)
        rows += mine
        asked = samples, config.dataset, config.batch_size, pairs, planned, variant
        measured, metrics["spread"][variant] = plan_arms(policy, *asked)
        metrics["arms"][variant] = summarise_arms(measured, samples)
        arms += [{"variant": variant, **row} for row in measured]
    run.write_metrics(metrics)
    write_csv(config.out / "table.csv", table_rows(metrics))
    write_csv(config.out / "samples.csv", rows)
    write_csv(config.out / "arms.csv", arms)
    truth = np.stack([sample.future_array() for sample in samples])
    drawn = {variant: {name: np.round(poses, 3) for name, poses in of.items()} for variant, of in paths.items()}
    shown = plain({"ids": [sample.id for sample in samples], "truth": np.round(truth, 3), **drawn})
    (config.out / "paths.json").write_text(json.dumps(shown) + "\n")
    counterfactual_figure(rows, paths, truth).savefig(config.out / "counterfactual.png", dpi=130)
    return metrics


def _plan_forced(
    policy: AlpamayoPolicy,
    reasoning: str,
    samples: Sequence[Sample],
    seen: Sequence[Observation],
    encoded: Sequence[Encoded],
) -> list[Planned]:
    from finetune.studies.stages import plan_with_reasonings

    return plan_with_reasonings(policy, seen, [forced_text(sample, reasoning) for sample in samples], encoded)


def table_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table as strings: a row per variant and reasoning; two figures in one cell are those at 2 and 3 s."""
    rows = []
    for variant, reasonings in metrics["variants"].items():
        for reasoning, values in reasonings.items():
            moved = {key: f"{values[f'moved_{key}']:.2f}" for key in _KEYS if reasoning != "true"}
            rows.append({
                "variant": variant,
                "reasoning": REASONINGS[reasoning],
                "as reasoning": percent(values["follows"]),
                "as the road": percent(values["to_true_side"]),
                "heading, rad": f"{values[_KEYS[0]]:+.2f} {values[_KEYS[1]]:+.2f}",
                "lateral, m": f"{values[_KEYS[2]]:+.2f} {values[_KEYS[3]]:+.2f}",
                "moved, rad": " ".join(moved[key] for key in _KEYS[:2] if key in moved),
                "moved, m": " ".join(moved[key] for key in _KEYS[2:] if key in moved),
            })  # fmt: skip
    return rows


def print_table(metrics: Mapping[str, Any]) -> None:
    """The table on the terminal, with the definitions under it."""
    rows, console = table_rows(metrics), Console()
    for variant in metrics["variants"]:
        mine = [list(row.values())[1:] for row in rows if row["variant"] == variant]
        title = f"Reasoning forced, {variant}: {metrics['samples']} samples that bend"
        console.print(Table(title, list(rows[0])[1:], mine))
    console.print(metrics["definitions"], style="dim")
    for table in arm_tables(metrics):
        console.print(table)
    console.print(metrics["arm_definitions"], style="dim")


def counterfactual_figure(rows: Sequence[Mapping[str, Any]], paths: Paths, truth: NDArray[np.float64]) -> Figure:
    """A row per variant: fans of some samples, the truth (N, 64, 3), and a histogram of lateral places after 3 s."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = np.unique(np.linspace(0, len(truth) - 1, min(_SHOWN, len(truth))).astype(int)).tolist()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * len(shown) + 4.2, 3.5 * len(paths) + 0.6), layout="constrained")
        widths = [1.0] * len(shown) + [1.6]
        grid = figure.subplots(len(paths), len(widths), squeeze=False, width_ratios=widths)
        for axes_row, (variant, of_reasonings) in zip(grid, paths.items(), strict=True):
            for axes, index in zip(axes_row, shown, strict=False):
                _draw_fan(axes, {name: poses[index] for name, poses in of_reasonings.items()}, truth[index])
            axes_row[0].set_ylabel(f"{variant}\nx ahead, m")
            _draw_histogram(axes_row[-1], [row for row in rows if row["variant"] == variant])
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle("The same picture, another reasoning: planned paths of the next 3 s")
    return figure


def _draw_fan(axes: Axes, planned: Mapping[str, NDArray[np.float64]], truth: NDArray[np.float64]) -> None:
    def line(poses: NDArray[np.float64], style: str, **look: Any) -> None:  # noqa: ANN401 - matplotlib's own words
        path = np.vstack([np.zeros((1, 2)), poses[:_STEPS, :2]])
        axes.plot(path[:, 1], path[:, 0], style, **look)

    line(truth, "-", color=INK, linewidth=5, alpha=0.18, label="driven")
    for reasoning, poses in planned.items():
        look = {"color": _COLOURS[reasoning], "linewidth": 1.6, "label": f"reasoning: {REASONINGS[reasoning]}"}
        line(poses, "--" if reasoning == "none" else "-", **look)
    reach = max(3.0, *(float(np.abs(poses[:_STEPS, 1]).max()) for poses in planned.values()))
    # Left is left: y grows to the left.
    axes.set(xlim=(1.1 * reach, -1.1 * reach), xlabel="y left, m")


def _draw_histogram(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    every = [row["lateral_3s_m"] for row in rows if row["reasoning"] in _HISTOGRAM]
    edges = np.linspace(min(every), max(every) + 1e-6, 25).tolist()
    for reasoning in _HISTOGRAM:
        values = [row["lateral_3s_m"] for row in rows if row["reasoning"] == reasoning]
        axes.hist(values, edges, color=_COLOURS[reasoning], alpha=0.45, label=REASONINGS[reasoning])
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set(xlabel="lateral place after 3 s, m (true side positive)", ylabel="samples")
    axes.legend(fontsize=8)


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono counterfactual``."""
    config = command_line(CounterfactualConfig, argv, "alpamayo-mono counterfactual")
    print_table(counterfactual(config))
    print(f"plot: {config.out / 'counterfactual.png'}")
