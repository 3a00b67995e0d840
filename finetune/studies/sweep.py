"""How many samples does it take? The same finetuning at growing dataset sizes, the same validation samples for all.

The sizes are nested: 200 samples hold the 100. Every size trains for the same number of STEPS, not epochs: all runs
then cost the same and follow the same learning-rate schedule, and only the data differ. With equal epochs 50 samples
would get a twentieth of the steps of 1000, and a curve would mostly show how little was trained. The price is that a
small set is seen many times; its epochs stand in the table, and its lowest validation loss beside its last one. A large
set may not have given all it has: train it longer before saying that more samples are of no use.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import shutil
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collector.common.arguments import argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.files import write_atomically
from collector.common.output_folder import alone_in_out
from collector.common.plotting import SIDES, STYLE
from collector.common.run_folder import hash_path, open_run, plain
from collector.common.tables import Console, Table, number, percent, write_csv
from collector.common.text_files import read_json
from collector.dataset.schema import METADATA_FILE, Sample, read_samples
from finetune.evaluation.command import split_samples, spread
from finetune.evaluation.consistency import SYMPTOM_DEFINITION
from finetune.evaluation.metrics import plan_figures
from finetune.lora_finetune import FinetuneConfig, finetune
from finetune.model_files.location import resolve_model
from finetune.policy import REFERENCE
from finetune.studies.subsets import nested_order, validation_losses, write_subset
from finetune.training.run import finished_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Figure -> column and title; for all of them less is better.
FIGURES: Mapping[str, tuple[str, str]] = {
    "text_loss": ("text loss", "validation loss, text"),
    "flow_loss": ("flow loss", "validation loss, flow"),
    "ade_3s_m": ("ADE 3 s", "ADE at 3 s, m"),
    "max_deviation_3s_m": ("max dev.", "max deviation within 3 s, m"),
    "symptom_rate": ("symptom", "thinks curve, drives straight"),
}
# Enough is where no size from there on is worse than the best by more than this: one training per size is no more
# exact (with 200 steps the tiny model's ADE rose by 19 % from 500 samples to 1000).
ENOUGH = 1.2
_SIZE_DIGITS = 8
_AGAIN = "choose another --out, or --fresh to train all sizes again"
# Settings that change where and how fast a size is trained, but not what comes out.
_PLACE = ("out", "dataset", "more_datasets", "threads", "overwrite")


@dataclass(frozen=True)
class SweepConfig(FinetuneConfig):
    """Finetune at growing dataset sizes and plot what each size brings.

    All settings of `alpamayo-mono finetune` apply to every size alike, --steps included. A size that is finished in
    OUT is not trained again. Needs the extra [report] for the plot.
    """

    # run folder; the adapter lands in OUT/adapter, a full model in OUT/model.
    out: Path = Path("runs/sweep")
    # training samples of each run, as 50,100,200 or 50 100 200.
    sizes: tuple[str, ...] = ("50", "100", "200", "500", "1000")
    limit: int = argument(
        0, "judge at most so many validation samples with the driving path, evenly spread; 0 for all", 0, 10_000_000
    )
    eval_batch_size: int = argument(8, "plans per forward pass when judging", 1, 65_536)
    fresh: bool = False  # forget finished sizes and begin again.

    def __post_init__(self) -> None:
        super().__post_init__()
        read_sizes(self.sizes)
        if self.more_datasets:
            raise MonoError(
                f"a sweep over several datasets, {', '.join(map(str, self.more_datasets))} among them",
                "one, of which the sizes are cut",
                "leave out the others",
            )


def read_sizes(words: Sequence[str]) -> tuple[int, ...]:
    """Sizes in growing order, each once (MonoError: none, or one that is no whole number from 1 to 99,999,999)."""
    parts = [part.strip() for word in words for part in str(word).split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdecimal() or len(part) > _SIZE_DIGITS or int(part) < 1]
    if wrong or not parts:
        found = f"the sizes {', '.join(each[:20] for each in wrong) or 'are empty'}"
        raise MonoError(found, "whole numbers from 1 to 99999999", "write --sizes 50,100,200")
    return tuple(sorted({int(part) for part in parts}))


def enough_samples(results: Sequence[Mapping[str, Any]], figure: str) -> int | None:
    """The smallest size from which on every size comes within ``ENOUGH`` of the best one; the base comes first.

    None without sizes, where the figure is missing, where no size is better than the base, or where the largest one is
    too far from the best.
    """
    base, *values = (_figure_of(result, figure) for result in results)
    if not values or not all(map(math.isfinite, values)) or not min(values) < base < math.inf:
        return None
    good = [value <= ENOUGH * min(values) for value in values]
    return next((result["samples"] for index, result in enumerate(results[1:]) if all(good[index:])), None)


@alone_in_out("sweep")
def sweep(config: SweepConfig) -> dict[str, Any]:
    """Train and judge every size that is not finished yet.

    Writes ``sweep.json`` (returned), ``sweep.csv`` and ``sweep.png`` into the run folder, after each size anew.

    Raises:
        MonoError: fewer training samples than a size, no validation sample, or a finished size of another recipe.
    """
    require("matplotlib", "report")
    config = dataclasses.replace(config, model=resolve_model(config.model))
    sizes = read_sizes(config.sizes)
    train = list(read_samples(config.dataset, "train"))
    validation = split_samples(config.dataset, "val")
    if len(train) < sizes[-1]:
        fitting = ",".join(str(size) for size in sizes if size <= len(train)) or str(len(train))
        found = f"{config.dataset} has {len(train)} training samples, and a size of {sizes[-1]} was asked for"
        expected = "at least as many samples as the largest size"
        raise MonoError(found, expected, f"record more, build with a smaller --stride, or use --sizes {fitting}")
    recipe = _recipe(config)
    _refuse_other_recipes(config, sizes, recipe)
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE, config.model], verb="sweep")
    order = nested_order(train, config.seed)
    judged = spread(validation, config.limit)
    results: list[dict[str, Any]] = []
    for place, size in enumerate((0, *sizes)):
        folder = config.out / f"size_{size:05d}"
        name = f"size {size}" if size else "the base"
        if (folder / "result.json").is_file():
            known = read_json(folder / "result.json", _AGAIN)["result"]
            print(f"== {name}: finished before", flush=True)
        else:
            print(f"== {name} ({place} of {len(sizes)} sizes)", flush=True)
            known = _run_size(config, folder, [train[index] for index in order[:size]], validation, judged)
            write_atomically(folder / "result.json", json.dumps({"recipe": recipe, "result": plain(known)}) + "\n")
        results.append(known)
        summary = summarise_sweep(results, config, len(judged))
        _write(summary, config.out)
    run.write_metrics(summary)
    return summary


def _run_size(
    config: SweepConfig, folder: Path, train: Sequence[Sample], validation: Sequence[Sample], judged: Sequence[Sample]
) -> dict[str, Any]:
    """Train on a subset (none for the base) and judge it."""
    from finetune.alpamayo_policy import AlpamayoPolicy
    from finetune.evaluation.inference import plan_all

    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    result: dict[str, Any] = {"samples": len(train)}
    if train:
        write_subset(config.dataset, folder / "dataset", train, validation, f"{len(train)} samples of a sweep")
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(FinetuneConfig)}
        one = FinetuneConfig(**{**settings, "dataset": folder / "dataset", "out": folder / "finetune"})
        # Killed while it judged, a size has its adapter already.
        views = int((finished_metrics(one) or finetune(one))["train_samples"])
        result |= {"epochs": round(one.steps * one.batch_size / views, 2)}
        result |= validation_losses(folder / "finetune" / "training.jsonl")
        gc.collect()
    adapter = folder / "finetune" / "adapter" if train else None
    model = folder / "finetune" / "model"  # where all weights were trained
    place = (model, None) if model.is_dir() else (config.model, adapter)
    policy = AlpamayoPolicy(*place, cameras=config.cameras, device=config.device, engine=REFERENCE)
    plans = plan_all(policy, judged, config.dataset, config.eval_batch_size, "judge")
    return {**result, **plan_figures(judged, plans), "seconds": round(time.monotonic() - began, 1)}


def _recipe(config: SweepConfig) -> dict[str, Any]:
    """What a finished size must have in common with the others, hashes of model and dataset included."""
    names = [field.name for field in dataclasses.fields(FinetuneConfig) if field.name not in _PLACE]
    recipe = {name: plain(getattr(config, name)) for name in [*names, "limit"]}
    return {**recipe, "model": hash_path(config.model), "dataset": hash_path(config.dataset / METADATA_FILE)}


def _refuse_other_recipes(config: SweepConfig, sizes: Sequence[int], recipe: Mapping[str, Any]) -> None:
    for size in (0, *sizes):
        path = config.out / f"size_{size:05d}" / "result.json"
        if config.fresh and path.parent.is_dir():
            print(f"removing {path.parent}, to train it again", flush=True)
            shutil.rmtree(path.parent)
        if not path.is_file():
            continue
        before = read_json(path, _AGAIN).get("recipe") or {}
        changed = sorted(key for key in {*recipe, *before} if recipe.get(key) != before.get(key))
        if changed:
            found = f"{path.parent} was trained with other settings: {', '.join(changed)}"
            expected = "one recipe for all sizes"
            raise MonoError(found, expected, _AGAIN)


def summarise_sweep(results: list[dict[str, Any]], config: SweepConfig, judged: int) -> dict[str, Any]:
    """What ``sweep.json`` holds: a result per size, the base first, and how many samples are enough."""
    trained = [result for result in results if result["samples"]]
    base = dict(results[0])
    if trained:
        # The base's losses are those before the first step, the same for every size.
        base |= {f"{kind}_loss": trained[0][f"{kind}_loss_before"] for kind in ("text", "flow")}
    rows = [base, *trained]
    return {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "judged_samples": judged,
        "seed": config.seed,
        "sizes": rows,
        "enough": {figure: enough_samples(rows, figure) for figure in FIGURES},
        "enough_means": f"from this size on none is worse than the best by more than {ENOUGH - 1:.0%}",
    }


def _write(summary: Mapping[str, Any], out: Path) -> None:
    write_atomically(out / "sweep.json", json.dumps(plain(summary), indent=2) + "\n")
    write_csv(out / "sweep.csv", summary["sizes"])
    if len(summary["sizes"]) > 1:
        sweep_figure(summary).savefig(out / "sweep.png", dpi=130)


def sweep_figure(summary: Mapping[str, Any]) -> Figure:
    """A panel per figure over a logarithmic axis of samples: the base a line across, the size that is enough a mark."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 6.6), layout="constrained")
        panels = figure.subplots(2, 3)
        for axes, (key, (_, title)) in zip(panels.flat, FIGURES.items(), strict=False):
            _draw_panel(axes, summary, key)
            axes.set_title(title)
        note = panels.flat[len(FIGURES)]
        note.set_axis_off()
        lines = [
            f"{summary['steps']} steps of {summary['batch_size']} at every size,",
            f"the same {summary['judged_samples']} validation samples for all.",
            "",
            *(f"{row['samples']:>6} samples: seen {row['epochs']:.1f} times" for row in summary["sizes"][1:]),
            "",
            *textwrap.wrap(f"enough: {summary['enough_means']}", 45),
        ]
        note.text(0.0, 0.95, "\n".join(lines), va="top", fontsize=9)
        figure.suptitle("How many samples does it take?")
    return figure


def _draw_panel(axes: Axes, summary: Mapping[str, Any], key: str) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter, StrMethodFormatter

    base, *rows = summary["sizes"]
    sizes = [row["samples"] for row in rows]
    values = [_figure_of(row, key) for row in rows]
    axes.plot(sizes, values, "o-", color=SIDES["after"], label="last step")
    if f"{key}_lowest" in rows[0]:
        axes.plot(sizes, [row[f"{key}_lowest"] for row in rows], ".--", color="#9fc5ae", label="lowest on the way")
    # The base may lie far above: the sizes are what is to be told apart.
    top = 1.3 * max([0.04, *(value for value in values if math.isfinite(value))])
    before = _figure_of(base, key)
    if math.isfinite(before):
        label = f"base: {before:.2f}{' (above)' if before > top else ''}"
        axes.axhline(before, color=SIDES["before"], linewidth=1.2, linestyle=":", label=label)
    enough = summary["enough"][key]
    if enough is not None:
        axes.axvline(enough, color="#b8bec6", linewidth=5, alpha=0.5, zorder=0, label=f"enough: {enough}")
    axes.set(xlabel="training samples", xscale="log", ylim=(0.0, top))
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if key == "symptom_rate":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(fontsize=8)


def _figure_of(result: Mapping[str, Any], key: str) -> float:
    value = result.get(key)
    return math.nan if value is None else float(value)


def print_table(summary: Mapping[str, Any]) -> None:
    """The table of sizes on the terminal, and under it how many samples are enough."""
    rows = []
    for row in summary["sizes"]:
        figures = [(percent if key == "symptom_rate" else number)(row.get(key)) for key in FIGURES]
        rows.append([str(row["samples"] or "base"), number(row["epochs"], 1) if "epochs" in row else "", *figures])
    rows.append(["enough", "", *(str(summary["enough"][key] or "-") for key in FIGURES)])
    headings = ["samples", "epochs", *(column for column, _ in FIGURES.values())]
    console = Console()
    title = f"{summary['steps']} steps of {summary['batch_size']} at every size"
    console.print(Table(title, headings, rows, left=()))
    console.print(
        f"Losses, ADE and max deviation within 3 s (m) and symptom on {summary['judged_samples']} validation samples. "
        f"enough: {summary['enough_means']}. {SYMPTOM_DEFINITION}.",
        style="dim",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono sweep``."""
    config = command_line(SweepConfig, argv, "alpamayo-mono sweep")
    print_table(sweep(config))
    print(f"plot: {config.out / 'sweep.png'}")
