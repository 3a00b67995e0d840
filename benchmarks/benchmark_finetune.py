"""What a training step of the released size costs: memory and speed of ours against a naive LoRA, on one card.

    python benchmarks/benchmark_finetune.py [--only NAME ...] [--steps 8] [--out FILE.json]

Random weights of the released sizes (11.1 billion), one front image, both losses, LoRA of rank 16 on both halves and
the two projections in full. Each row of the table is a process of its own, so that no row's memory counts for the
next; "reserved" is what PyTorch's allocator holds at its peak, to which CUDA itself adds about 0.5 GiB. Rows with a
limit are held to so much memory, and recompute as many layers ("again") as that asks for.

The naive rows are what one writes first: transformers' modules, PEFT and AdamW as they come, vision tower in every
step, logits of every token. With gradient checkpointing transformers drops the cache, so the naive checkpointed row
trains an expert that sees nothing: it is kept because its speed is the one to beat.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# One 1920x1080 frame is 20 x 36 patches, 180 tokens; the words around it and a reasoning of 30 words.
GRID = (1, 20, 36)
# Steps until all is compiled and the layers to recompute are chosen.
WARM_UPS = 5
IMAGE_TOKENS, HEAD, HISTORY, REQUEST, REASONING = 180, 24, 50, 24, 32


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    batch_size: int
    naive: bool = False
    recompute: int = -1  # -1: as many as the memory asks for
    limit_gib: float = 0.0
    four_bits: bool = False
    draws: int = 1
    compiled: bool = False
    fused: bool = True


ROWS = (
    Row("naive", 1, naive=True, recompute=0),
    Row("naive qlora", 1, naive=True, recompute=0, four_bits=True),
    Row("naive, checkpointed", 4, naive=True, recompute=36),
    Row("lora 1, least memory", 1, recompute=36),
    Row("lora 1", 1, limit_gib=22.0),
    Row("lora 1, compiled", 1, limit_gib=22.0, compiled=True),
    Row("lora 16", 16, recompute=36),
    Row("lora 16, PEFT's layers", 16, recompute=36, fused=False),
    Row("lora 16, compiled", 16, compiled=True, limit_gib=23.6),
    Row("qlora 1, least memory", 1, recompute=36, four_bits=True),
    Row("qlora 1", 1, limit_gib=22.0, four_bits=True),
    Row("qlora 1, compiled", 1, limit_gib=22.0, compiled=True, four_bits=True),
    Row("qlora 8, compiled", 8, compiled=True, recompute=36, four_bits=True),
)


def random_model(device: str) -> Any:
    """An AlpamayoR1 of the released sizes with random bfloat16 weights, made on the card."""
    import torch
    from random_checkpoint import random_tensors

    from finetune.alpamayo.configuration import AlpamayoConfig
    from finetune.alpamayo.model import AlpamayoR1
    from finetune.checkpoint import _remake_rotary

    config = AlpamayoConfig()
    with torch.device("meta"):
        model = AlpamayoR1(config)
    tensors = dict(random_tensors(config, device, torch.bfloat16))
    model.load_state_dict(tensors, strict=True, assign=True)
    _remake_rotary(model, device)
    return model.eval()


def random_batch(model: Any, size: int, device: str) -> Any:
    """Rows as the kart's camera gives them, of slightly different length."""
    import torch

    from finetune.training.batches import EncodedSample as Sample
    from finetune.training.batches import collate

    ids, settings = model.settings.token_ids, model.settings
    torch.manual_seed(0)
    samples = []
    for index in range(size):
        reasoning = REASONING - index % 8

        def words(count: int) -> Any:
            return torch.randint(1000, 100000, (count,))

        row = torch.cat(
            [
                words(HEAD),
                torch.tensor([151652]),
                torch.full((IMAGE_TOKENS,), settings.vlm["image_token_id"]),
                torch.tensor([151653]),
                torch.randint(settings.history_token_start_idx, 155000, (HISTORY,)),
                words(REQUEST + reasoning),
                torch.tensor([ids.future_start]),
            ]
        )
        mask = torch.zeros(len(row), dtype=torch.bool)
        mask[-reasoning - 1 :] = True
        pixels = torch.randint(0, 256, (GRID[1] * GRID[2], 768), dtype=torch.uint8)
        samples.append(Sample(str(index), row, mask, row[-40:], torch.randn(64, 2), torch.tensor([GRID]), pixels))
    return collate(samples, 151643)


def naive_step(model: Any, batch: Any, noise: Any, times: Any) -> Any:
    """Text and flow loss the way one writes it first."""
    import torch
    from transformers import DynamicCache

    from finetune.alpamayo.flow_matching import interpolate, target_velocity

    device = batch.input_ids.device
    cache = DynamicCache()
    labels = torch.where(batch.label_mask, batch.input_ids, -100)
    is_image = (batch.input_ids == model.settings.vlm["image_token_id"]).long()
    output = model.vlm(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=batch.pixel_values.bfloat16(),
        image_grid_thw=batch.grid_thw,
        mm_token_type_ids=is_image,
        labels=labels,
        past_key_values=cache,
        use_cache=True,
    )
    x_t = interpolate(batch.actions, noise[:, 0], times[:, 0])
    embeds = model.action_in_proj(x_t, times[:, 0])
    prefix = cache.get_seq_length()
    positions = (prefix + torch.arange(64, device=device)).expand(3, len(x_t), -1)
    mask = torch.zeros(len(x_t), 1, 64, prefix + 64, dtype=embeds.dtype, device=device)
    hidden = model.expert(
        inputs_embeds=embeds, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
    flow = (model.action_out_proj(hidden).float() - target_velocity(batch.actions, noise[:, 0])).square().mean()
    return output.loss + flow


def backward(row: Row, loss: Any, batch: Any, noise: Any, times: Any, recomputation: Any) -> Any:
    """The loss, after its backward pass; None where the memory was full and more layers can be computed again."""
    import torch

    try:
        if row.naive:
            with torch.autocast("cuda", torch.bfloat16):
                total = naive_step(loss.model, batch, noise, times)
        else:
            total = sum(loss(batch, noise, times))
        recomputation.remembered(batch.input_ids.numel())
        total.backward()
    except torch.OutOfMemoryError:
        if not recomputation.can_make_room:
            raise
        return None
    return total.detach()


def measure(row: Row, steps: int) -> dict[str, Any]:
    """Build, train a few steps, and say what it took. Runs in a process of its own."""
    import torch

    from finetune.adapters.fused import fuse_lora
    from finetune.adapters.lora import add_lora, trainable_counts
    from finetune.adapters.settings import LoraSettings
    from finetune.alpamayo.layers import compiled_layer
    from finetune.alpamayo.placement import place_on_card, quantise_language_model
    from finetune.training.batches import VisionFeatures
    from finetune.training.loop import JointLoss, LoopSettings, batch_to, draws
    from finetune.training.memory import Recomputation

    device = torch.device("cuda")
    model = random_model("cuda")
    if row.limit_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(row.limit_gib * 2**30 / total)
    batch = batch_to(random_batch(model, row.batch_size, "cuda"), device)
    if row.naive:
        if row.four_bits:
            quantise_language_model(model, device)
            torch.cuda.empty_cache()
        add_lora(model, LoraSettings())
        model.train()
        if row.recompute:
            model.vlm.gradient_checkpointing_enable()
            model.expert.gradient_checkpointing_enable()
    else:
        with torch.no_grad():
            vision = model.encode_images(batch.pixel_values, batch.grid_thw)
        batch = type(batch)(
            **{
                **vars(batch),
                "pixel_values": None,
                "vision": VisionFeatures(vision.embeds.clone(), [layer.clone() for layer in vision.deepstack]),
            }
        )
        place_on_card(model, device, four_bits=row.four_bits)
        add_lora(model, LoraSettings())
        if row.fused:
            fuse_lora(model)
        if row.compiled:
            model.body = compiled_layer(device)
        model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=None if row.naive else True)
    loss = JointLoss(model)
    settings = LoopSettings(noise_draws=row.draws)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    resting = torch.cuda.memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    times_s, values = [], []
    recomputation = Recomputation(model, row.recompute, device, batch.input_ids.numel())
    for step in range(steps + WARM_UPS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        noise, times = draws(row.batch_size, settings, step, device)
        recomputation.begin_step()
        total = backward(row, loss, batch, noise, times, recomputation)
        if total is None:
            optimizer.zero_grad(set_to_none=True)
            recomputation.make_room()
            continue
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recomputation.end_step()
        values.append(float(total))
        torch.cuda.synchronize()
        times_s.append(time.perf_counter() - began)
    step_s = sorted(times_s[WARM_UPS:])[steps // 2]
    return {
        "name": row.name,
        "batch_size": row.batch_size,
        "tokens": batch.input_ids.shape[1],
        "trainable": sum(count for count, _ in trainable_counts(model).values()),
        "resting_gib": resting,
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        "step_ms": 1000 * step_s,
        "samples_per_s": row.batch_size / step_s,
        "recomputed": 0 if row.naive else model.checkpointed_layers,
        "warm_up_s": sum(times_s[:WARM_UPS]),
        "first_loss": values[0],
        "last_loss": values[-1],
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="rows by name; all without")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each row, after five to warm up")
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    if arguments.row:
        print("RESULT " + json.dumps(measure(next(r for r in ROWS if r.name == arguments.row), arguments.steps)))
        return
    columns = f"{'batch':>6}{'tokens':>8}{'at rest':>9}{'reserved':>10}{'ms/step':>9}{'samples/s':>11}"
    print(f"{'':<22}{columns}{'again':>7}{'first s':>9}{'loss':>16}")
    results = []
    for row in chosen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if not row.naive:
            environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        done = subprocess.run(
            [sys.executable, __file__, "--row", row.name, "--steps", str(arguments.steps)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
        if line is None:
            print(f"{row.name:<22} failed: {done.stderr.strip().splitlines()[-1:]}\n{done.stderr[-2000:]}", flush=True)
            continue
        result = json.loads(line.removeprefix("RESULT "))
        results.append(result)
        print(
            f"{result['name']:<22}{result['batch_size']:>6}{result['tokens']:>8}{result['resting_gib']:>9.2f}"
            f"{result['reserved_gib']:>10.2f}{result['step_ms']:>9.0f}{result['samples_per_s']:>11.2f}"
            f"{result['recomputed']:>7}{result['warm_up_s']:>9.0f}"
            f"{result['first_loss']:>8.2f}{result['last_loss']:>8.2f}",
            flush=True,
        )
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    if results:
        print(f"{results[0]['card']}, torch {results[0]['torch']}, {results[0]['trainable']:,} trainable parameters")


if __name__ == "__main__":
    main()
