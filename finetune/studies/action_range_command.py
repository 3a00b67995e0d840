"""``alpamayo-mono action-range``: a dataset's reach in the model's units and, with a model, its flow; tables, plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from collector.common.arguments import MOST_SEED, POSITIONAL, Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.output_folder import alone_in_out
from collector.common.plotting import SIDES, STYLE, bars
from collector.common.run_folder import open_run
from collector.common.tables import Console, Table, percent, write_csv
from collector.dataset.schema import METADATA_FILE, read_samples
from collector.geometry.poses import FloatArray
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.evaluation.command import spread
from finetune.model_files.location import resolve_model
from finetune.policy import CameraMode, PolicySettings
from finetune.studies import action_range as study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHY = (
    "Why: a clip moves paths by metres just where karts bend; action_in_proj reads noisy actions through waves with a "
    "period of one standard deviation and shorter, so other constants would mean to learn it anew; and distance costs "
    "no Euler steps, for the flow's path from noise to action is straight (benchmarks/exact_flow.py). Far "
    "waypoints do dominate the loss: --horizon_s makes those fade that nobody can see yet."
)
_COLOURS = ("#3567b0", "#d1432f", "#1d8a4e", "#8a5bb5")


@dataclass(frozen=True)
class ActionRangeConfig(Arguments):
    """A dataset's accelerations and curvatures in standard deviations of the released model, and what follows.

    Nothing is clipped and the released normalisation is kept by the finetuning; this shows why. With --model it also
    measures which waypoints that model's flow loss comes from and how many Euler steps its paths need.
    """

    dataset: Annotated[Path, POSITIONAL]  # dataset folder made by `alpamayo-mono build`.
    out: Path = Path("runs/action_range")  # folder for metrics.json, bins.csv and action_range.png.
    model: Path | None = None  # model folder in the official layout, or its id on the Hugging Face hub.
    adapter: Path | None = None  # adapter folder; with it the model is measured before and after.
    cameras: CameraMode = PolicySettings.cameras  # what the kart has when it drives.
    split: str = "val"  # the split the model is measured on.
    limit: int = argument(64, "at most so many samples for the model, evenly spread; 0 for all", 0, 10_000_000)
    batch_size: int = argument(16, "samples per forward pass", 1, 65_536)
    seed: int = argument(0, "of noise and flow times", 0, MOST_SEED)
    device: str = PolicySettings.device  # torch device.


@alone_in_out("action-range")
def action_range(config: ActionRangeConfig) -> dict[str, Any]:
    """Measure and write ``metrics.json`` (returned), ``bins.csv`` and ``action_range.png``.

    Raises:
        MonoError: an empty dataset, or an adapter without its model.
    """
    require("matplotlib", "report")
    if config.adapter is not None and config.model is None:
        raise MonoError("--adapter without --model", "the base it was trained on", "give --model")
    if config.model is not None:
        config = replace(config, model=resolve_model(config.model))
    samples = list(read_samples(config.dataset))
    if not samples:
        raise MonoError(f"no sample in {config.dataset}", "a dataset with at least one", "run `alpamayo-mono build`")
    if config.adapter is not None and config.model is not None:
        check_belongs(adapter_facts(config.adapter), config.model, config.cameras)
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE], verb="action-range")
    actions, outside, clips = study.actions_and_clips(samples)
    metrics: dict[str, Any] = {
        "samples": len(samples),
        "reach": study.reach(actions),
        "samples_outside_released_bounds": outside,
        "clip": clips,
        "bin_edges": list(study.BIN_EDGES),
        "bins": {
            "waypoints": study.bin_shares(actions),
            "loss of an ignorant model": study.bin_shares(actions, study.ignorant_loss(actions)),
        },
        "models": {},
    }
    if config.model is not None:
        judged = spread([sample for sample in samples if sample.split == config.split] or samples, config.limit)
        from finetune.evaluation.inference import policies

        for variant, policy in policies(config.model, config.adapter, config.cameras, config.device):
            found = study.study_flow(policy, judged, config.dataset, config.batch_size, config.seed)
            metrics["models"][variant], metrics["bins"][f"flow loss {variant}"] = found, found["loss_share"]
    run.write_metrics(metrics)
    bins = [{"share of": name, **dict(zip(study.BIN_NAMES, of, strict=True))} for name, of in metrics["bins"].items()]
    write_csv(config.out / "bins.csv", bins)
    action_range_figure(metrics, actions).savefig(config.out / "action_range.png", dpi=130)
    return metrics


def _beyond(of: Mapping[str, float]) -> list[str]:
    """Shares of waypoints (of samples) beyond each limit."""
    pairs = [(of[f"waypoints_beyond_{limit:g}"], of[f"samples_beyond_{limit:g}"]) for limit in study.LIMITS]
    return [f"{waypoints:.1%} ({samples:.0%})" for waypoints, samples in pairs]


def print_report(metrics: Mapping[str, Any]) -> None:
    """Tables on the terminal: reach, clips, loss by bin, Euler steps, and what the default makes of it."""
    console = Console()

    def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        console.print(Table(title, columns, rows))

    show(
        f"Reach of {metrics['samples']} samples, in released standard deviations; shares of waypoints (of samples)",
        ["", "spread", "largest", *(f"beyond {limit:g}" for limit in study.LIMITS)],
        [[axis, f"{of['spread']:.2f}", f"{of['largest']:.1f}", *_beyond(of)] for axis, of in metrics["reach"].items()],
    )
    console.print(
        f"{metrics['samples_outside_released_bounds']:.0%} of the samples leave the released model's bounds "
        "(0.33 1/m, 9.8 m/s^2), which nothing enforces.",
        style="dim",
    )
    costs = ("mean_3s_m", "largest_3s_m", "mean_6.4s_m", "largest_6.4s_m")
    show(
        "What a clip would cost, metres over the samples it moves (first row: the round trip alone)",
        ["clip at", "moved", "mean 3 s", "largest 3 s", "mean 6.4 s", "largest 6.4 s"],
        [
            [
                f"{of['limit']:g}".replace("inf", "none"),
                percent(of["samples_moved"]),
                *(f"{of[key]:.2f}" for key in costs),
            ]
            for of in metrics["clip"]
        ],
    )
    show(
        "Which waypoints the loss comes from, by standard deviations of their curvature",
        ["share of", *study.BIN_NAMES],
        [[name, *map(percent, shares)] for name, shares in metrics["bins"].items()],
    )
    gaps = ("curvature_gap_sigma", "path_gap_3s_m", "ade_3s_m")
    for variant, of in metrics["models"].items():
        bend = of["mean_curvature_3s_sigma"]
        show(
            f"Euler on the model, {variant}, against {study.REFERENCE_STEPS} steps: the half of {of['samples']} "
            f"samples that bends less | more within 3 s (mean curvature {bend['gentle']:.1f} | {bend['sharp']:.1f})",
            ["noise, steps", "curvature off by", "path off at 3 s, m", "ADE at 3 s, m"],
            [
                [name, *(f"{of[key]['gentle']:.2f} | {of[key]['sharp']:.2f}" for key in gaps)]
                for name, of in of["euler"].items()
            ],
        )
    console.print(
        "What the finetuning does about it: nothing is clipped, the released normalisation is kept, and both action "
        "projections train in full.\n" + WHY,
        style="dim",
    )


def action_range_figure(metrics: Mapping[str, Any], actions: FloatArray) -> Figure:
    """Of normalised actions (N, 64, 2): reach, cost of clipping, source of the loss and a model's Euler steps."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 8.0), layout="constrained")
        reached, clip, loss, euler = figure.subplots(2, 2).flat
        edge = max(9.0, float(np.abs(actions).max()))
        edges = np.linspace(-edge, edge, 81).tolist()
        for index, axis in enumerate(study.AXES):
            values = actions[..., index].ravel()
            reached.hist(values, edges, histtype="step", linewidth=1.6, color=_COLOURS[index], label=axis)
        for limit, sign in product(study.LIMITS, (-1.0, 1.0)):
            reached.axvline(sign * limit, color="#9aa3ad", linewidth=0.8, linestyle=":")
        reached.set(yscale="log", xlabel="released standard deviations (left positive)", ylabel="waypoints")
        rows = metrics["clip"][1:]
        costs = {
            f"{kind}, {until} s": [row[f"{kind}_{until}s_m"] for row in rows]
            for kind, until in product(("mean", "largest"), ("3", "6.4"))
        }
        _draw_bars(clip, [f"{row['limit']:g} ({row['samples_moved']:.0%} of samples)" for row in rows], costs, _COLOURS)
        clip.set(xlabel="clip at, standard deviations", ylabel="path moved, m")
        _draw_bars(loss, study.BIN_NAMES, metrics["bins"], ("#b8bec6", "#20262e", SIDES["before"], SIDES["after"]))
        loss.yaxis.set_major_formatter(PercentFormatter(1.0))
        loss.set(xlabel="curvature of the waypoint, standard deviations", ylabel="share")
        for variant, of in metrics["models"].items():
            for part, style in (("gentle", "--"), ("sharp", "-")):
                gaps = [of["euler"][f"zero, {steps}"]["curvature_gap_sigma"][part] for steps in study.EULER_STEPS]
                euler.plot(study.EULER_STEPS, gaps, "s" + style, color=SIDES[variant], label=f"{variant}, {part} half")
        euler.set(xscale="log", yscale="log", xlabel="Euler steps", ylabel="end point off by, sigma of curvature")
        euler.set_xticks(study.EULER_STEPS, [str(steps) for steps in study.EULER_STEPS])
        euler.minorticks_off()
        euler.set_visible(bool(metrics["models"]))
        for axes in (reached, clip, loss, *([euler] if metrics["models"] else [])):
            axes.legend()
        figure.suptitle("Kart tracks in the released normalisation")
    return figure


def _draw_bars(
    axes: Axes, places: Sequence[str], values: Mapping[str, Sequence[float]], colours: Sequence[str]
) -> None:
    """A group of bars at each place, a bar of it per name."""
    for (name, at, width), colour in zip(
        bars(values, np.arange(len(places), dtype=np.float64), 0.8), colours, strict=False
    ):
        axes.bar(at, values[name], 0.95 * width, label=name, color=colour)
    axes.set_xticks(range(len(places)), places)


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono action-range``."""
    config = command_line(ActionRangeConfig, argv, "alpamayo-mono action-range")
    print_report(action_range(config))
    print(f"plot: {config.out / 'action_range.png'}")
