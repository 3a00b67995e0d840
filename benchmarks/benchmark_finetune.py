"""What a training step of the released size costs: memory and speed of ours against a naive LoRA, on one card.

    python benchmarks/benchmark_finetune.py [--only NAME ...] [--steps 8] [--out FILE.json]

Random weights of the released sizes (11.1 billion), one front image, both losses, LoRA of rank 16 on both halves and
the two projections in full. Each row of the table is a process of its own, so that no row's memory counts for the
next; "reserved" is what PyTorch's allocator holds at its peak, to which CUDA itself adds about 0.5 GiB.

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
IMAGE_TOKENS, HEAD, HISTORY, REQUEST, REASONING = 180, 24, 50, 24, 32


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    batch_size: int
    naive: bool = False
    recompute: int = 36
    four_bits: bool = False
    draws: int = 1
    compiled: bool = False
    fused: bool = True


ROWS = (
    Row("naive", 1, naive=True, recompute=0),
    Row("naive, checkpointed", 4, naive=True),
    Row("lora 1", 1),
    Row("lora 16", 16),
    Row("lora 16, PEFT's layers", 16, fused=False),
    Row("lora 16, compiled", 16, compiled=True),
    Row("qlora 1", 1, four_bits=True),
    Row("qlora 8, compiled", 8, compiled=True, four_bits=True),
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


def measure(row: Row, steps: int) -> dict[str, Any]:
    """Build, train a few steps, and say what it took. Runs in a process of its own."""
    import torch

    from finetune.adapters.fused import fuse_lora
    from finetune.adapters.lora import add_lora, trainable_counts
    from finetune.adapters.settings import LoraSettings
    from finetune.alpamayo.layers import compiled_layer
    from finetune.training.batches import VisionFeatures
    from finetune.training.loop import JointLoss, LoopSettings, batch_to, draws
    from finetune.training.memory import place_for_training

    device = torch.device("cuda")
    model = random_model("cuda")
    batch = batch_to(random_batch(model, row.batch_size, "cuda"), device)
    if row.naive:
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
        place_for_training(model, device, four_bits=row.four_bits)
        add_lora(model, LoraSettings())
        if row.fused:
            fuse_lora(model)
        if row.compiled:
            model.body = compiled_layer()
        model.checkpointed_layers = row.recompute
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
    for step in range(steps + 4):
        torch.cuda.synchronize()
        began = time.perf_counter()
        noise, times = draws(row.batch_size, settings, step, device)
        if row.naive:
            with torch.autocast("cuda", torch.bfloat16):
                total = naive_step(model, batch, noise, times)
        else:
            text, flow = loss(batch, noise, times)
            total = text + flow
        total.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        values.append(float(total))
        torch.cuda.synchronize()
        times_s.append(time.perf_counter() - began)
    step_s = sorted(times_s[4:])[steps // 2]
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
        "first_loss": values[0],
        "last_loss": values[-1],
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="rows by name; all without")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each row, after three to warm up")
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    if arguments.row:
        print("RESULT " + json.dumps(measure(next(r for r in ROWS if r.name == arguments.row), arguments.steps)))
        return
    print(f"{'':<22}{'batch':>6}{'tokens':>8}{'at rest':>9}{'reserved':>10}{'ms/step':>9}{'samples/s':>11}{'loss':>16}")
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
            f"{result['first_loss']:>8.2f}{result['last_loss']:>8.2f}",
            flush=True,
        )
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    if results:
        print(f"{results[0]['card']}, torch {results[0]['torch']}, {results[0]['trainable']:,} trainable parameters")


if __name__ == "__main__":
    main()
