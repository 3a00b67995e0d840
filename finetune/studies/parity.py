"""Does driving compute what training did? Training samples through the driving path, stage by stage.

An adapter drives badly without any error when the two differ: another crop of the picture, another word in the prompt,
a position off by one in the decoding. Training encodes prompt and reasoning in one padded batch, with the adapter
beside the weights; driving encodes the prompt alone, decodes the reasoning token by token, with the adapter merged.
Reasoning, noise and noisy actions are the same for both here, so every stage must agree to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collector.common.arguments import Arguments, argument, same_as
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import open_run
from collector.common.tables import Console, Table, progress
from collector.dataset.schema import METADATA_FILE, read_samples
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.evaluation.command import spread
from finetune.model_files.location import resolve_model
from finetune.policy import CameraMode, PolicySettings

if TYPE_CHECKING:
    from finetune.studies.stages import StageView

# Stage -> what differs there when it is the first one to.
STAGES: Mapping[str, str] = {
    "pixels": "the pictures are cropped, scaled or coloured differently",
    "tokens": "prompt or reasoning are written differently, or the reasoning has too little room (max_new_tokens)",
    "vision features": "the vision tower's weights differ",
    "prefix keys and values": "the language model's weights, positions or decoding differ",
    "position": "the expert starts at another rotary position",
    "velocity": "the expert's weights, mask or projections differ",
    "actions": "the Euler steps differ",
}
# Largest allowed difference, as a share of the stage's largest value: rounding in these precisions.
TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 5e-2}
# The actions may differ by so many times what a millionth on the noise changes there.
_GROWTH = 10.0


@dataclass(frozen=True)
class CheckDrivingConfig(Arguments):
    """Run training samples through the driving path and compare every stage with what training computed.

    Ends with exit code 1 and the first stage that differs, if one does.
    """

    model: Path  # model folder in the official layout, or its id on the Hugging Face hub.
    dataset: Path  # dataset folder made by `alpamayo-mono build`.
    out: Path = Path("runs/check_driving")  # folder for metrics.json.
    adapter: Path | None = None  # adapter folder; merged for driving, beside the weights for training.
    cameras: CameraMode = PolicySettings.cameras  # what the kart has when it drives.
    split: str = "train"  # train or val.
    samples: int = argument(8, "so many samples, evenly spread", 1, 10_000)
    flow_steps: int = same_as(PolicySettings, "flow_steps")
    tolerance: float = argument(
        0.0,
        "largest difference allowed, as a share of a stage's largest value; 0 takes 1e-4 for float32 (a CPU),"
        " else 0.05. The actions are allowed what rounding grows to over the Euler steps, which is measured",
        0.0,
        1.0,
    )
    device: str = PolicySettings.device  # torch device.


@dataclass(frozen=True)
class StageGap:
    """One stage compared."""

    largest: float  # largest absolute difference over samples; infinite where shapes differ or a value is not finite
    relative: float  # the same as a share of the largest value training saw
    allowed: float  # the largest share that agrees; whole numbers must be equal
    sample_id: str  # where it is largest
    agrees: bool  # whether it is allowed


def compare_stage(
    driven: Sequence[NDArray[Any]], trained: Sequence[NDArray[Any]], ids: Sequence[str], tolerance: float
) -> StageGap:
    """Compare one stage, an array per sample; of whole numbers none may differ."""
    worst, worst_share, where = 0.0, 0.0, ids[0]
    exact = all(np.issubdtype(values.dtype, np.integer) for values in trained)
    for here, there, name in zip(driven, trained, ids, strict=True):
        if here.shape != there.shape or not (np.isfinite(here).all() and np.isfinite(there).all()):
            return StageGap(np.inf, np.inf, tolerance, name, False)
        gap = float(np.abs(here.astype(np.float64) - there).max())
        share = gap / max(float(np.abs(there).max()), 1e-12)
        if share > worst_share:
            worst, worst_share, where = gap, share, name
    allowed = 0.0 if exact else tolerance
    return StageGap(worst, worst_share, allowed, where, worst_share <= allowed)


def compare_views(
    driven: Sequence[StageView], trained: Sequence[StageView], ids: Sequence[str], tolerance: float
) -> dict[str, StageGap]:
    """All stages in order."""
    actions = max(tolerance, _GROWTH * max(view.rounding for view in trained))
    found = {}
    for stage in STAGES:
        here, there = ([view.stages[stage] for view in views] for views in (driven, trained))
        found[stage] = compare_stage(here, there, ids, actions if stage == "actions" else tolerance)
    return found


def first_difference(differences: Mapping[str, StageGap]) -> str | None:
    """The first stage that disagrees: later ones follow from it."""
    return next((stage for stage in STAGES if not differences[stage].agrees), None)


@alone_in_out("check-driving")
def check_driving(config: CheckDrivingConfig) -> dict[str, Any]:
    """Compare and write ``metrics.json`` (returned).

    It holds per stage the differences; ``first_difference``, None where all agree; and how far the wheel speed, which
    driving starts from, is from the speed that training reads off the poses.

    Raises:
        MonoError: no sample of the split, an unusable model or adapter.
    """
    import torch

    from finetune.alpamayo_policy import AlpamayoPolicy
    from finetune.checkpoint import load_model
    from finetune.studies.stages import adapted_as_in_training, driving_view, training_views

    config = replace(config, model=resolve_model(config.model))
    found = [sample for sample in read_samples(config.dataset) if sample.split == config.split and sample.reasoning]
    if not found or config.samples < 1:
        what = (
            f"{len(found)} samples with a reasoning in split {config.split!r} of {config.dataset}, "
            f"{config.samples} asked for"
        )
        raise MonoError(what, "at least one", "choose another --split or --samples")
    samples = spread(found, config.samples)
    if config.adapter is not None:  # rather now than after a pass of the base
        check_belongs(adapter_facts(config.adapter), config.model, config.cameras)
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE, config.model], verb="check-driving")
    policy = AlpamayoPolicy(
        config.model,
        adapter=config.adapter,
        cameras=config.cameras,
        device=config.device,
        flow_steps=config.flow_steps,
        noise_temperature=1.0,
    )
    dtype = next(policy.model.parameters()).dtype
    precision = str(dtype).removeprefix("torch.")
    tolerance = config.tolerance or TOLERANCES.get(precision, TOLERANCES["bfloat16"])
    driven = [driving_view(policy, sample, config.dataset) for sample in progress(samples, "drive", "sample")]
    # The second model takes the place of the first: one of the released size fills a card.
    space = policy.model.action_space
    del policy
    loaded = adapted_as_in_training(load_model(config.model, dtype=dtype, device=config.device), config.adapter)
    trained = training_views(loaded, samples, config.dataset, config.cameras, driven, config.flow_steps)
    differences = compare_views(driven, trained, [sample.id for sample in samples], tolerance)

    history = torch.as_tensor(np.stack([sample.history_array() for sample in samples]))
    from_poses = space.estimate_v0(history.to(space.accel_std.device)).cpu()
    actions = torch.as_tensor(np.stack([view.stages["actions"] for view in trained])).double()
    space = space.cpu()
    paths = space.action_to_traj(history, actions).numpy()
    gap_m = np.linalg.norm(np.stack([view.poses for view in driven])[..., :2] - paths[..., :2], axis=-1)
    metrics = {
        "samples": len(samples),
        "tolerance": tolerance,
        "dtype": precision,
        "stages": differences,
        "first_difference": first_difference(differences),
        "start_speed": {
            "largest_gap_mps": float(np.abs(from_poses.numpy() - [sample.speed_mps for sample in samples]).max()),
            "largest_path_gap_3s_m": float(gap_m[:, 29].max()),
            "largest_path_gap_6.4s_m": float(gap_m[:, 63].max()),
        },
    }
    run.write_metrics(metrics)
    return metrics


def print_report(metrics: Mapping[str, Any]) -> None:
    """The stages on the terminal, and under them the verdict."""
    rows = []
    for stage, gap in metrics["stages"].items():
        figures = [f"{gap.largest:.2e}", f"{gap.relative:.1e}", f"{gap.allowed:.0e}"]
        rows.append([stage, *figures, gap.sample_id, "" if gap.agrees else "DIFFERS"])
    headings = ["stage", "largest gap", "as share", "allowed", "sample", ""]
    Console().print(Table("Driving against training", headings, rows, left=(0, 4)))
    speed = metrics["start_speed"]
    print(
        f"not judged: driving starts from the wheel speed, training reads the speed off the poses; they are up to "
        f"{speed['largest_gap_mps']:.2f} m/s apart, the same actions end up to {speed['largest_path_gap_3s_m']:.2f} m "
        f"apart after 3 s and {speed['largest_path_gap_6.4s_m']:.2f} m after 6.4 s"
    )
    first = metrics["first_difference"]
    if first is None:
        print(f"passed: driving computes what training did, {metrics['samples']} samples, {metrics['dtype']}")
    else:
        print(f"failed: driving and training differ first in the {first}: {STAGES[first]}")


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono check-driving``; 1 where the paths differ."""
    metrics = check_driving(command_line(CheckDrivingConfig, argv, "alpamayo-mono check-driving"))
    print_report(metrics)
    return 0 if metrics["first_difference"] is None else 1
