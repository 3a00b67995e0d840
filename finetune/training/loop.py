"""The training loop: text and trajectory together, logged apart, exact after a kill and over several processes.

The processes are accelerate's, so ``torchrun`` and ``accelerate launch`` run what one process runs: a batch is drawn
for all, each process takes its rows, and gradients of the global means are summed. Every draw (sample order, flow
noise, reasoning dropout, LoRA dropout) follows from seed and step alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from collector.common.errors import MonoError
from finetune.alpamayo.layers import run_layer
from finetune.training.batches import Batch, EncodedSample, Said, collate
from finetune.training.checkpoint import Checkpoints, MasterWeights, restore_state, state_tensors
from finetune.training.loss import JointLoss, RowLosses, draws
from finetune.training.memory import Recomputation, peak_memory_gib
from finetune.training.order import drawn_words, row_order
from finetune.training.processes import processes
from finetune.training.run import CHECKPOINTS, TrainingLog
from finetune.training.settings import LoopSettings, learning_rate_factor

# Noise of validation batches: far from that of any training step.
_VALIDATION_STEP = 10_000_000
# Compiled layers are padded to multiples of so many words: few lengths, and under a tenth of the work wasted.
_COMPILED_LENGTHS = 32
_TERMS = ("text", "flow", "xy", "contrast")


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on the device."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        moved[name] = value.to(device) if hasattr(value, "to") else value
    return Batch(**moved)


class Passes:
    """Forward passes of one process (see :mod:`finetune.training.processes`) over its share of a global batch."""

    def __init__(
        self, loss: JointLoss, accelerator: Any, settings: LoopSettings, pad_id: int, rows: Sequence[EncodedSample]
    ) -> None:
        self._loss, self.accelerator, self.settings, self._pad_id = loss, accelerator, settings, pad_id
        self._multiple = 1 if loss.model.body is run_layer else _COMPILED_LENGTHS
        longest = -(-max(len(row.input_ids) for row in rows) // self._multiple) * self._multiple
        share = -(-settings.batch_size // accelerator.num_processes)
        most_words = longest * min(share, settings.rows_per_pass or share)
        self.recomputation = Recomputation(loss.model, settings.recompute_layers, accelerator.device, most_words)

    def losses(
        self,
        rows: Sequence[EncodedSample],
        said: Sequence[Said],
        step: int,
        learn: Callable[[RowLosses], None] | None = None,
    ) -> Tensor:
        """Losses (B, 4) of all rows of a global batch, the same in every process; columns text, flow, xy, contrast.

        The step decides the noise. ``learn`` gets the losses of each pass, while their graph lives.
        """
        device = self.accelerator.device
        # Drawn for the global batch, so that a row meets the same noise wherever it is computed.
        noise, times = draws(len(rows), self.settings, step, device)
        table = torch.zeros(len(rows), len(_TERMS), device=device)
        for part in self._parts(len(rows)):
            chosen, spoken = [rows[index] for index in part], [said[index] for index in part]
            packed = learn is not None and self.settings.texts_per_frame > 1
            batch = collate(chosen, self._pad_id, spoken, self._multiple, packed)
            losses = self._loss.rows(batch_to(batch, device), noise[part], times[part])
            if learn is not None:
                self.recomputation.remembered(batch.input_ids.numel())
                learn(losses)
            table[part] = losses.table().detach().float()
        total: Tensor = self.accelerator.reduce(table, "sum")
        return total

    def _parts(self, count: int) -> Iterator[list[int]]:
        accelerator = self.accelerator
        mine = np.array_split(np.arange(count), accelerator.num_processes)[accelerator.process_index].tolist()
        size = self.settings.rows_per_pass or max(1, len(mine))
        for start in range(0, len(mine), size):
            yield mine[start : start + size]


def means(table: Tensor, speaking: int) -> dict[str, float]:
    """Mean text loss over the rows that speak, the other means over all; from a table (B, 4)."""
    sums = dict(zip(_TERMS, table.sum(dim=0).tolist(), strict=True))
    return {term: value / max(1, speaking if term == "text" else len(table)) for term, value in sums.items()}


def speaking_rows(rows: Sequence[EncodedSample], said: Sequence[Said]) -> int:
    """Rows with text to learn."""
    return sum(how == "all" and bool(row.label_mask.any()) for row, how in zip(rows, said, strict=False))


def validation_losses(passes: Passes, rows: Sequence[EncodedSample], settings: LoopSettings) -> dict[str, float]:
    """Mean losses over at least one validation row, with noise that never changes."""
    tables, speaking = [], 0
    with torch.no_grad():
        for start in range(0, len(rows), settings.batch_size):
            part = rows[start : start + settings.batch_size]
            said: list[Said] = ["all"] * len(part)
            tables.append(passes.losses(part, said, _VALIDATION_STEP + start))
            speaking += speaking_rows(part, said)
    return means(torch.cat(tables).double(), speaking)


def train(  # noqa: C901, PLR0915 - the whole of a training, read from top to bottom
    model: nn.Module,
    rows: Sequence[EncodedSample],
    validation: Sequence[EncodedSample],
    settings: LoopSettings,
    pad_id: int,
    out: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Train whatever parameters of the model require gradients, where they are: on the device already.

    Writes ``training.jsonl`` (one line a step: step, text_loss, flow_loss, xy_loss where it is on, learning_rate,
    samples_per_s; validation lines carry the same losses named validation_...), TensorBoard events and checkpoints
    into ``out``. Goes on from the newest checkpoint there.

    Returns:
        The first and last validation losses where there are validation rows, the rate, and the peak memory.

    Raises:
        MonoError: no rows, more processes than rows in a batch, or a loss or gradient that is not finite (with the
            sample ids). The last checkpoint stays.
    """
    if not rows:
        raise MonoError("a training set without samples", "at least one", "build more, or lower --val-fraction")
    accelerator = processes(device)
    if settings.batch_size < accelerator.num_processes:
        what = f"--batch_size {settings.batch_size} for {accelerator.num_processes} processes"
        raise MonoError(what, "at least one row for each (the batch is that of all together)", "raise --batch_size")
    weights = MasterWeights(model)
    optimizer = torch.optim.AdamW(
        weights.masters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    checkpoints = Checkpoints(out / CHECKPOINTS)
    found = checkpoints.newest(settings.steps)
    done = 0 if found is None else found.step
    result: dict[str, float] = {} if found is None else found.facts["result"]
    if found is not None:
        restore_state(weights, optimizer, found.tensors)
        del found
    weights_of_more = {"xy": settings.xy_weight, "contrast": settings.contrast_weight}
    loss = JointLoss(
        model,
        settings.horizon_s,
        settings.expert_gradient,
        with_xy=settings.xy_weight > 0.0,
        contrast_margin=settings.contrast_margin if settings.contrast_weight > 0.0 else 0.0,
    )
    passes = Passes(loss, accelerator, settings, pad_id, rows)
    terms = [term for term in _TERMS if weights_of_more.get(term, 1.0) > 0.0]
    chooser = np.random.default_rng(settings.seed + 17)
    pairs = [row.pair for row in rows] if settings.texts_per_frame > 1 else None
    order = row_order(len(rows), settings.batch_size, settings.seed, pairs, settings.texts_per_frame)
    for _ in range(done):
        next(order)
        chooser.random(settings.batch_size)
    with ExitStack() as stack:
        log = stack.enter_context(closing(TrainingLog(out, done))) if accelerator.is_main_process else None
        bar = stack.enter_context(
            tqdm(total=settings.steps, initial=done, desc="finetune", unit="step", dynamic_ncols=True, disable=not log)
        )

        def write(step: int, prefix: str, values: dict[str, float], **more: float) -> None:
            if log is not None:
                log.write(step, **{f"{prefix}{term}_loss": values[term] for term in terms}, **more)

        def validate(step: int) -> None:
            if not validation:
                return
            loss.eval()
            values = validation_losses(passes, validation, settings)
            loss.train()
            write(step, "validation_", values)
            when = "first" if step == 0 else "last"
            result.update({f"{when}_validation_{term}_loss": values[term] for term in terms})

        loss.train()
        if done == 0:
            validate(0)
        started = time.perf_counter()
        for step in range(done, settings.steps):
            chosen = [rows[index] for index in next(order)]
            said = drawn_words(chosen, chooser.random(len(chosen)).tolist(), settings)
            learning_rate = settings.learning_rate * learning_rate_factor(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            values = _step(passes, weights, optimizer, chosen, said, step, settings, accelerator)
            rate = (step + 1 - done) * settings.batch_size / (time.perf_counter() - started)
            write(step + 1, "", values, learning_rate=learning_rate, samples_per_s=rate)
            memory = peak_memory_gib(accelerator.device)
            bar.set_postfix(
                {**{term: f"{values[term]:.3f}" for term in terms}, "rate": f"{rate:.1f}/s", "mem": f"{memory:.1f}G"}
            )
            bar.update()
            last = step + 1 == settings.steps
            if (step + 1) % settings.validate_every == 0 or last:
                validate(step + 1)
            if log is not None and ((step + 1) % settings.checkpoint_every == 0 or last):
                log.flush_to_disk()
                checkpoints.save(step + 1, state_tensors(weights, optimizer), {"result": result})
    if done < settings.steps:
        result["samples_per_s"] = (settings.steps - done) * settings.batch_size / (time.perf_counter() - started)
    result["peak_memory_gib"] = peak_memory_gib(accelerator.device)
    return result


def _step(
    passes: Passes,
    weights: MasterWeights,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[EncodedSample],
    said: Sequence[Said],
    step: int,
    settings: LoopSettings,
    accelerator: Any,
) -> dict[str, float]:
    """One optimiser step; returns the global mean losses."""
    speaking = max(1, speaking_rows(rows, said))

    def learn(losses: RowLosses) -> None:
        # Shares of the global means: over passes and processes they add up to them, however unevenly rows speak.
        share = settings.text_weight * losses.text.sum() / speaking
        share = share + settings.flow_weight * losses.flow.sum() / len(rows)
        if settings.xy_weight > 0.0:
            share = share + settings.xy_weight * losses.xy.sum() / len(rows)
        if settings.contrast_weight > 0.0:
            share = share + settings.contrast_weight * losses.contrast.sum() / len(rows)
        share.backward()

    passes.recomputation.begin_step()
    while (table := _tried(passes, rows, said, step, learn)) is None:
        weights.drop_gradients()
        passes.recomputation.make_room()
    values = means(table, speaking)
    guilty = [row.sample_id for row, fine in zip(rows, table.isfinite().all(dim=1).tolist(), strict=False) if not fine]
    if guilty:
        terms = ", ".join(f"{term} {value:g}" for term, value in values.items())
        raise _not_finite(f"loss ({terms})", step, guilty)
    weights.take_gradients()
    masters = list(weights.masters.values())
    if accelerator.num_processes > 1:
        pending = [torch.distributed.all_reduce(master.grad, async_op=True) for master in masters]
        for work in pending:
            work.wait()
    norm = nn.utils.clip_grad_norm_(masters, settings.gradient_clip)
    if not bool(norm.isfinite()):
        raise _not_finite("gradient", step, [row.sample_id for row in rows])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    weights.give_values()
    passes.recomputation.end_step()
    return values


def _tried(
    passes: Passes, rows: Sequence[EncodedSample], said: Sequence[Said], step: int, learn: Callable[[RowLosses], None]
) -> Tensor | None:
    """:meth:`Passes.losses`; None where the memory was full and more layers can be computed again."""
    settings, accelerator = passes.settings, passes.accelerator
    # LoRA dropout is the one draw that takes torch's own generator.
    torch.manual_seed((settings.seed * 1_000_003 + step) * 1_009 + accelerator.process_index)
    try:
        return passes.losses(rows, said, step, learn)
    except torch.cuda.OutOfMemoryError as error:
        if passes.recomputation.can_make_room:
            return None
        device = accelerator.device
        found = f"the memory of {torch.cuda.get_device_name(device)} is full at step {step + 1} "
        found += f"({peak_memory_gib(device):.1f} GiB reserved): {str(error).splitlines()[0]}"
        do = "use --rows_per_pass 1, --dtype bfloat16, then --method qlora; the first leaves the numbers as they are"
        raise MonoError(found, "room for one forward and backward pass", do) from error


def _not_finite(what: str, step: int, sample_ids: Sequence[str]) -> MonoError:
    found = f"a {what} that is not finite at step {step + 1}; samples: {', '.join(sample_ids)}"
    do = "look at these samples, or lower --learning_rate; the last checkpoint is as it was"
    return MonoError(found, "finite losses and gradients", do)
