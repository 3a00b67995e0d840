"""``alpamayo-mono action-range``: a dataset's reach in the model's units and, with a model, its flow; tables, plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from collector.common.cpu import share_cores
from collector.common.errors import MonoError, require
from collector.common.format import percent
from collector.common.run_folder import command_line, open_run
from collector.common.tables import text_table, write_csv
from collector.dataset.schema import METADATA_FILE, Sample, read_samples
from finetune.evaluation.samples import spread
from finetune.model_files.location import resolve_model
from finetune.policy import CameraMode, PolicySettings
from finetune.studies.action_range import (
    BIN_EDGES,
    EULER_STEPS,
    LIMITS,
    STEP_3S,
    FloatArray,
    bin_means,
    bin_names,
    bin_shares,
    exact_flow_errors,
    halves,
    ignorant_loss,
    path_cost,
    reach,
)

if TYPE_CHECKING:
    from finetune.alpamayo_policy import AlpamayoPolicy

_REFERENCE_STEPS = 200
WHY = (
    "Why: a clip moves paths by metres just where karts bend; action_in_proj reads noisy actions through waves with a "
    "period of one standard deviation and shorter, so other constants would mean to learn it anew; and distance costs "
    "no Euler steps, for the flow's path from noise to action is straight (the columns of exact flows are alike). Far "
    "waypoints do dominate the loss: --horizon_s makes those fade that nobody can see yet."
)


@dataclass(frozen=True)
class ActionRangeConfig:
    """A dataset's accelerations and curvatures in standard deviations of the released model, and what follows.

    Nothing is clipped and the released normalisation is kept by the finetuning; this shows why. With --model it also
    measures which waypoints that model's flow loss comes from and how many Euler steps its paths need.

    Attributes:
        dataset: dataset folder made by `alpamayo-mono build`.
        out: folder for metrics.json, bins.csv and action_range.png.
        model: model folder in the official layout, or its id on the Hugging Face hub.
        adapter: adapter folder; with it the model is measured before and after.
        cameras: camera mode: mono, mono-4frames or mono-padded.
        split: the split the model is measured on.
        limit: at most so many samples for the model, evenly spread; 0 for all.
        batch_size: samples per forward pass.
        seed: of noise and flow times.
        device: torch device.
    """

    dataset: tyro.conf.Positional[Path]
    out: Path = Path("runs/action_range")
    model: Path | None = None
    adapter: Path | None = None
    cameras: CameraMode = PolicySettings.cameras
    split: str = "val"
    limit: int = 64
    batch_size: int = 16
    seed: int = 0
    device: str = PolicySettings.device


def action_range(config: ActionRangeConfig) -> dict[str, Any]:
    """Measure and write ``metrics.json``, ``bins.csv`` and ``action_range.png``.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        MonoError: an empty dataset, or an adapter without its model.
    """
    require("matplotlib", "report")
    from finetune.studies.action_range_plot import action_range_figure

    if config.adapter is not None and config.model is None:
        raise MonoError("--adapter without --model", "the base it was trained on", "give --model")
    if config.model is not None:
        config = replace(config, model=resolve_model(config.model))
    samples = list(read_samples(config.dataset))
    if not samples:
        raise MonoError(f"no sample in {config.dataset}", "a dataset with at least one", "run `alpamayo-mono build`")
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE])
    actions, outside, clipped = _actions_and_clips(samples)
    metrics: dict[str, Any] = {
        "samples": len(samples),
        "reach": reach(actions),
        "samples_outside_released_bounds": outside,
        "clip": clipped,
        "bin_edges": list(BIN_EDGES),
        "bins": {
            "waypoints": bin_shares(actions),
            "loss of an ignorant model": bin_shares(actions, ignorant_loss(actions)),
        },
        "exact_flow": exact_flow_errors(),
        "models": {},
    }
    if config.model is not None:
        judged = spread([sample for sample in samples if sample.split == config.split] or samples, config.limit)
        from finetune.evaluation.inference import policies

        for variant, policy in policies(config.model, config.adapter, config.cameras, config.device):
            metrics["models"][variant] = _study(config, policy, judged)
            metrics["bins"][f"flow loss {variant}"] = metrics["models"][variant]["loss_share"]
    run.write_metrics(metrics)
    shares = metrics["bins"].items()
    write_csv(
        config.out / "bins.csv", [{"share of": name, **dict(zip(bin_names(), of, strict=True))} for name, of in shares]
    )
    action_range_figure(metrics, actions).savefig(config.out / "action_range.png", dpi=130)
    return metrics


def _actions_and_clips(samples: Sequence[Sample]) -> tuple[FloatArray, float, list[dict[str, float]]]:
    """Normalised actions (N, 64, 2), the share of samples outside the released bounds, and what clips would cost."""
    import torch

    from finetune.alpamayo.action_space import ActionSpace
    from finetune.alpamayo.configuration import RELEASED_ACTION_SPACE

    space = ActionSpace(RELEASED_ACTION_SPACE, torch.float64)
    history = torch.from_numpy(np.stack([sample.history_array() for sample in samples]))
    future = torch.from_numpy(np.stack([sample.future_array() for sample in samples]))
    actions = space.traj_to_action(history, future)
    whole = space.action_to_traj(history, actions)

    def distance(path: torch.Tensor, other: torch.Tensor) -> FloatArray:
        gap: FloatArray = torch.linalg.vector_norm(path[..., :2] - other[..., :2], dim=-1).numpy()
        return gap

    gaps = {limit: distance(space.action_to_traj(history, actions.clamp(-limit, limit)), whole) for limit in LIMITS}
    rows = [path_cost(np.inf, distance(whole, future))]
    outside = 1.0 - float(space.is_within_bounds(actions).double().mean())
    return actions.numpy(), outside, rows + [path_cost(limit, gap) for limit, gap in gaps.items()]


def _study(config: ActionRangeConfig, policy: AlpamayoPolicy, samples: Sequence[Sample]) -> dict[str, Any]:
    """One model's flow on some samples: loss by bin, and the cost of few Euler steps."""
    import torch

    from finetune.studies.flow_study import study_flow

    steps = (*EULER_STEPS, _REFERENCE_STEPS)
    study = study_flow(policy, samples, config.dataset, steps, config.batch_size, config.seed)
    history = torch.from_numpy(np.stack([sample.history_array() for sample in samples]))
    truth = np.stack([sample.future_array() for sample in samples])
    space = deepcopy(policy.model.action_space).cpu()
    true_actions = space.traj_to_action(history, torch.from_numpy(truth)).numpy()
    loss = study.squared_error.mean(axis=-1)
    bend = np.abs(true_actions[:, : STEP_3S + 1, 1]).mean(axis=1)
    sharp = bend > np.median(bend)
    out: dict[str, Any] = {
        "samples": len(samples),
        "flow_loss": float(loss.mean()),
        "loss_share": bin_shares(true_actions, loss),
        "loss_per_waypoint": bin_means(true_actions, loss),
        "euler": {},
        "mean_curvature_3s_sigma": halves(bend, sharp),
    }
    for name, ends in (("zero", study.ends), ("drawn", study.drawn_ends)):
        paths = {
            count: space.action_to_traj(history, torch.from_numpy(end)).numpy()[:, : STEP_3S + 1, :2]
            for count, end in ends.items()
        }
        reference = paths[_REFERENCE_STEPS]
        for count in EULER_STEPS:
            gap = np.linalg.norm(paths[count] - reference, axis=-1)[:, -1]
            sigma = np.sqrt(np.mean((ends[count] - ends[_REFERENCE_STEPS])[..., 1] ** 2, axis=1))
            out["euler"][f"{name}, {count}"] = {
                "curvature_gap_sigma": halves(sigma, sharp),
                "path_gap_3s_m": halves(gap, sharp),
                "ade_3s_m": halves(
                    np.linalg.norm(paths[count] - truth[:, : STEP_3S + 1, :2], axis=-1).mean(axis=1), sharp
                ),
            }
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono action-range``."""
    share_cores()
    config = command_line(ActionRangeConfig, argv, "alpamayo-mono action-range")
    print_report(action_range(config))
    print(f"plot: {config.out / 'action_range.png'}")


def _beyond(of: Mapping[str, float]) -> list[str]:
    """Shares of waypoints (of samples) beyond each limit."""
    pairs = [(of[f"waypoints_beyond_{limit:g}"], of[f"samples_beyond_{limit:g}"]) for limit in LIMITS]
    return [f"{waypoints:.1%} ({samples:.0%})" for waypoints, samples in pairs]


def print_report(metrics: Mapping[str, Any]) -> None:
    """Tables on the terminal: reach, clips, loss by bin, Euler steps, and what the default makes of it."""
    from rich.console import Console

    console = Console()

    def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        console.print(text_table(title, columns, rows))

    show(
        f"Reach of {metrics['samples']} samples, in released standard deviations; shares of waypoints (of samples)",
        ["", "spread", "largest", *(f"beyond {limit:g}" for limit in LIMITS)],
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
        ["share of", *bin_names()],
        [[name, *map(percent, shares)] for name, shares in metrics["bins"].items()],
    )
    exact = metrics["exact_flow"]
    show(
        f"Euler on exact flows, ends at {', '.join(f'{mean:g}' for mean in exact['means'])} standard deviations",
        ["steps", "single end: largest error", f"known to {exact['spread']:g}: RMS error", "two ends: lost between"],
        [
            [
                str(steps),
                " ".join(f"{v:.0e}" for v in exact["point"][str(steps)]),
                " ".join(f"{v:.3f}" for v in exact["gaussian"][str(steps)]),
                " ".join(f"{v:.0%}" for v in exact["two_ends"][str(steps)]),
            ]
            for steps in EULER_STEPS
        ],
    )
    gaps = ("curvature_gap_sigma", "path_gap_3s_m", "ade_3s_m")
    for variant, of in metrics["models"].items():
        bend = of["mean_curvature_3s_sigma"]
        show(
            f"Euler on the model, {variant}, against {_REFERENCE_STEPS} steps: the half of {of['samples']} samples "
            f"that bends less | more within 3 s (mean curvature {bend['gentle']:.1f} | {bend['sharp']:.1f})",
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


if __name__ == "__main__":
    main()
