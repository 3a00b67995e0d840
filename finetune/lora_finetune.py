"""Finetune the language model and the action expert of an Alpamayo-R1 together: LoRA, QLoRA, or all weights.

python -m finetune.lora_finetune --model MODEL --dataset DATASET --lora_rank 16 --lora_alpha 32
torchrun --nproc_per_node 2 -m finetune.lora_finetune --model MODEL --dataset DATASET --device cuda
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from collector.common.arguments import argument
from collector.common.command_line import command_line
from collector.common.cpu import share_cores
from collector.common.errors import MonoError, require
from collector.common.files import sentence_of
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import RunFolder, hash_path, plain
from collector.dataset.schema import METADATA_FILE
from finetune.adapters.settings import LoraSettings
from finetune.model_files.location import resolve_model
from finetune.policy import FrontMode, PolicySettings
from finetune.training.settings import STEPS_WORTH_COMPILING, LoopSettings

Method = Literal["lora", "qlora", "full"]


@dataclass(frozen=True)
class Place:
    """What to train on what."""

    model: Path  # an Alpamayo-R1 or 1.5, a folder in the official layout or its id on the Hugging Face hub.
    dataset: Path  # dataset folder made by `alpamayo-mono build`.
    # further dataset folders to train on together with it, such as those of `pairs` and `dagger`.
    more_datasets: tuple[Path, ...] = ()
    out: Path = Path("runs/finetune")  # run folder; the adapter lands in OUT/adapter, a full model in OUT/model.
    # what the kart will have when it drives; mono is the newest frame of its front camera.
    cameras: FrontMode = PolicySettings.cameras
    # lora; qlora, LoRA with the frozen language model in four bits (needs the extra [gpu]); or full, which trains all
    # weights of the chosen parts and writes a whole model instead of an adapter.
    method: Method = "lora"
    # an adapter whose weights this run begins with, such as the one that drove for `dagger`; of the same base, cameras,
    # rank, alpha and parts. The run itself begins at its first step.
    start_from: Path | None = None
    overwrite: bool = False  # forget the run that OUT holds, finished or not, and begin again.

    @property
    def datasets(self) -> tuple[Path, ...]:
        """All of them, the first one first."""
        return (self.dataset, *self.more_datasets)


@dataclass(frozen=True)
class FinetuneConfig(LoopSettings, LoraSettings, Place):
    """Train adapters, or all weights, with a text loss and a trajectory loss together.

    A killed run goes on where it was: type the same command again. For several processes put
    `torchrun --nproc_per_node N -m closed_loop.cli finetune` in place of `alpamayo-mono finetune`.
    """

    mirror: bool = False  # train on the mirror image of every sample too; for a camera on the kart's middle line.
    device: Literal["cpu", "cuda"] = "cpu"  # cpu or cuda.
    # of the weights; auto means bfloat16 on a card and float32 on a CPU. What trains is kept in float32.
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = argument(0, "torch threads on a CPU; 0 leaves torch's choice", 0, 1024)

    @property
    def precision(self) -> str:
        """Name of the weights' precision, what `auto` means included."""
        return self.dtype if self.dtype != "auto" else "bfloat16" if self.device == "cuda" else "float32"


def refuse_early(config: FinetuneConfig) -> None:
    """Say before anything is loaded or written what cannot work.

    Raises:
        MonoError: a camera mode the dataset cannot give, an adapter in place of a model, a dataset named twice, four
            bits without bitsandbytes, a GPU that is not there.
    """
    import torch

    if (config.model / "adapter_config.json").is_file():
        found = f"{config.model} is an adapter"
        do = "give --model the base that the adapter was trained on, or merge the two first"
        raise MonoError(found, "a whole model", do)
    if len({folder.resolve() for folder in config.datasets}) < len(config.datasets):
        raise MonoError("a dataset that is named twice", "each once", "leave it out of --more_datasets")
    first: dict[str, Path] = {}
    for folder in config.datasets:
        held = hash_path(folder / METADATA_FILE)
        if held is not None and (same := first.setdefault(held, folder)) != folder:
            found = f"{folder} holds the same samples as {same}"
            raise MonoError(found, "each sample once", f"leave {folder} out of --more_datasets")
    if config.start_from is not None:
        if config.method == "full":
            found, expected = "--start_from with --method full", "an adapter to go on with, or all weights to train"
            raise MonoError(found, expected, "merge the adapter, and give the result to --model")
        config.check_start(config.start_from, resolve_model(config.model), config.cameras)
    if config.method == "qlora":
        require("bitsandbytes", "gpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        found = "--device cuda, and torch sees no GPU"
        expected = "an NVIDIA card, its driver, and a torch built for CUDA"
        raise MonoError(found, expected, "see what nvidia-smi says, or leave --device out to train on the CPU")


@alone_in_out("finetune")
def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train, and save an adapter or a model; goes on with an unfinished run of the same settings. Returns its metrics.

    Raises:
        MonoError: an empty dataset, a folder that is no model, a part without trainable parameters, a run folder
            that holds another run.
    """
    import torch

    from finetune.adapters.lora import trainable_counts, trainable_table
    from finetune.checkpoint import load_model
    from finetune.training.encoding import ASIDE_FILE, SetAside, encode_dataset, encoded_rows, usable_samples
    from finetune.training.loop import train
    from finetune.training.processes import on_main, processes
    from finetune.training.run import ROWS, open_training_run, remove_intermediate

    refuse_early(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    aside = SetAside()
    samples = {folder: usable_samples(folder, aside) for folder in config.datasets}
    base = resolve_model(config.model)
    accelerator = processes(config.device)
    # What trains on a card is brought there part by part, see `prepare`.
    loaded = load_model(base, dtype=getattr(torch, config.precision))
    rows_folder = config.out / ROWS

    def begin() -> None:
        inputs = [*(each / METADATA_FILE for each in samples), base]
        inputs += [config.start_from] if config.start_from is not None else []
        open_training_run(config, inputs, config.overwrite)
        if not rows_folder.is_dir():
            loaded.model.vlm.model.visual.to(accelerator.device)
            encode_dataset(
                loaded,
                samples,
                rows_folder,
                aside,
                cameras=config.cameras,
                mirror=config.mirror,
                frozen_vision=not config.adapt_vision,
                device=accelerator.device,
            )

    on_main(accelerator, begin)
    rows, validation, aside = encoded_rows(rows_folder)
    adapted = prepare(loaded.model, config, accelerator.device)
    if accelerator.is_main_process:
        print(trainable_table(loaded.model))
        if aside.entries:
            print(aside)
            aside.write(config.out / ASIDE_FILE)
    losses = train(loaded.model, rows, validation, config, loaded.processor.pad_id, config.out, device=config.device)
    metrics: dict[str, Any] = {
        "train_samples": len(rows),
        "validation_samples": len(validation),
        "set_aside": aside.counts(),
        "trainable_parameters": {part: counts[0] for part, counts in trainable_counts(loaded.model).items()},
        "processes": accelerator.num_processes,
        **losses,
    }

    def end() -> None:
        made = save(loaded, adapted, config, base, metrics)
        # Last of all: a folder with metrics is a finished run.
        RunFolder(config.out).write_metrics(metrics)
        remove_intermediate(config.out)
        print(f"{'model' if adapted is None else 'adapter'}: {made}")

    on_main(accelerator, end)
    return metrics


def prepare(model: Any, config: FinetuneConfig, device: Any) -> Any:
    """Put a model where it trains and mark what trains: the ``PeftModel`` around it, None where all weights train."""
    from finetune.adapters.fused import fuse_lora
    from finetune.adapters.lora import add_lora, go_on_from, train_in_full
    from finetune.alpamayo.layers import compiled_layer
    from finetune.alpamayo.placement import place_on_card, quantise_language_model

    on_card = device.type == "cuda"
    if config.compile and on_card and config.steps >= STEPS_WORTH_COMPILING:
        # Texts behind one picture: how many pictures there are, and how long their texts, is another matter each step.
        model.body = compiled_layer(device, many_shapes=config.texts_per_frame > 1)
    if config.method == "full":
        train_in_full(model.to(device), config)
        return None
    if on_card:
        place_on_card(model, device, four_bits=config.method == "qlora", vision_on_card=config.adapt_vision)
    elif config.method == "qlora":
        quantise_language_model(model, device)
    adapted = add_lora(model, config)
    if config.start_from is not None:
        go_on_from(adapted, config.start_from)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # The projections too: the expert reads noise through features that bfloat16 would blur.
            parameter.data = parameter.data.float()
    fuse_lora(model)
    return adapted


def save(loaded: Any, adapted: Any, config: FinetuneConfig, base: Path, metrics: dict[str, Any]) -> Path:
    """Write OUT/adapter with its card, or OUT/model; the folder appears as a whole."""
    from finetune.adapters.card import adapter_card
    from finetune.adapters.lora import save_adapter
    from finetune.checkpoint import save_model
    from finetune.training.checkpoint import part_of, publish

    folder = config.out / ("model" if adapted is None else "adapter")
    part = part_of(folder)
    if adapted is None:
        save_model(loaded, part)
    else:
        save_adapter(adapted, part, base, config.cameras)
    card = adapter_card(plain(config), config.precision, base, metrics)
    (part / "README.md").write_text(card, encoding="utf-8")
    publish(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono finetune``."""
    share_cores()
    finetune(command_line(FinetuneConfig, argv, "alpamayo-mono finetune"))


if __name__ == "__main__":
    try:
        main()
    except (MonoError, OSError) as error:
        print(f"alpamayo-mono finetune: {sentence_of(error)}", file=sys.stderr)
        sys.exit(2)
