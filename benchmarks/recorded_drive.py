"""A recorded drive planned again: its reasonings, by pictures of no road, once or for as long as is asked."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from finetune.alpamayo.draft import ReasoningDraft
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.policy import Observation
from finetune.processing.tokenizer import Tokenizer


def observation(frames: int, number: int) -> Observation:
    """A smooth random picture and an arc driven, other ones for each number."""
    generator = np.random.default_rng(number)
    coarse = torch.from_numpy(generator.integers(0, 255, (frames, 3, 9, 16)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (1080, 1920), mode="bilinear")
    history = np.zeros((16, 3))
    history[:, 0] = np.linspace(-generator.uniform(1.0, 6.0), 0.0, 16)
    return Observation(
        10**9 * (number + 1), {"front": fine.permute(0, 2, 3, 1).byte().contiguous().numpy()}, history, 3.0
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(max(values))}


def words_of(path: Path, policy: AlpamayoPolicy) -> list[list[int]]:
    """The reasonings of a recorded drive as ids of the tiny model's words: the random tokenizer spells every letter."""
    tokenizer = Tokenizer.from_folder(Path(__file__).resolve().parents[1] / "finetune" / "tiny_base", "")
    end = [policy.processor.cot_end_id, policy.model.settings.token_ids.future_start]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [[*tokenizer.encode_plain(line["reasoning"]), *end] for line in lines]


class Recorded:
    """Plans with the reasonings of a drive: real drafts, and a head whose choice is forced to what was said there."""

    def __init__(self, fast: Any) -> None:
        self.fast, self.text = fast, list[int]()
        engine = next(iter(fast._engines.values()))
        self._prefill, self._read, self._engine = engine.prefill, engine._read_stage, engine
        engine.prefill, engine._read_stage, fast._draft = self.prefill, self.read, ReasoningDraft()
        engine._rules = type(engine._rules)(128, engine._rules.cot_end_id, engine._rules.future_start_id)

    def prefill(self, ids: Any, words: Sequence[int]) -> list[int]:
        # The work is done as ever; only what the random head would say is replaced by what was said.
        return [self._said(index) for index in range(len(self._prefill(ids, words)))]

    def read(self) -> Any:
        chosen, at = self._read(), int(self._engine._filled) - self._engine.shape.length
        return torch.tensor([self._said(at + 1 + k) for k in range(len(chosen))])

    def plan(self, text: list[int], seen: Any) -> tuple[float, Any]:
        """Milliseconds, and the plan."""
        self.text = text
        torch.cuda.synchronize()
        start = time.perf_counter()
        plan = self.fast.plan(seen)
        return 1e3 * (time.perf_counter() - start), plan

    def _said(self, index: int) -> int:
        return self.text[index] if index < len(self.text) else 0


def replay(drive: Recorded, texts: list[list[int]], seen: Any, report: Any, name: str) -> None:
    """Plan a drive once."""
    made = [drive.plan(text, seen) for text in texts]
    report(f"{name}, engine, recorded drive", spread([ms for ms, _ in made][5:]), [plan for _, plan in made][5:])
    passes = [plan.passes for _, plan in made]
    whole = np.mean(np.equal(passes, 0))
    print(f"  {len(texts)} plans, {np.mean(passes):.2f} passes per plan, {whole:.0%} read along whole")


def soak(drive: Recorded, texts: list[list[int]], frames: int, seconds: float, found: dict[str, Any]) -> None:
    """Plan a recorded drive over and over, with ever other pictures: what half an hour of driving would meet."""
    compiled: list[str] = []
    triton.knobs.runtime.jit_post_compile_hook = lambda **what: compiled.append(str(what.get("repr")))
    pictures = [observation(frames, number) for number in range(8)]
    for index, text in enumerate(texts):
        drive.plan(text, pictures[index % len(pictures)])
    engines, graphs = len(drive.fast._engines), dict(torch._dynamo.utils.counters["stats"])
    before = memory_bytes()
    taken, grown, began = list[list[float]](), list[list[int]](), time.monotonic()
    compiled.clear()
    # In tenths, so that what grows or slows down shows.
    for tenth in range(1, 11):
        taken.append([])
        while time.monotonic() - began < seconds * tenth / 10:
            number = sum(map(len, taken))
            ms, _ = drive.plan(texts[number % len(texts)], pictures[number % len(pictures)])
            taken[-1].append(ms)
        grown.append([now - then for now, then in zip(memory_bytes(), before, strict=True)])
        part = spread(taken[-1])
        print(
            f"  soak, {seconds * tenth / 600:.1f} min: {sum(map(len, taken))} plans, "
            f"p50 {part['p50']:.1f} p99 {part['p99']:.1f} max {part['max']:.1f} ms; grown by (card reserved, card in "
            f"use, this process) {[round(each / 2**20, 1) for each in grown[-1]]} MiB",
            flush=True,
        )
    found["soak"] = {
        **spread([ms for part in taken for ms in part]),
        "plans": sum(map(len, taken)),
        "tenths": [spread(part) for part in taken],
        "grown_bytes": grown,
        "kernels_compiled": len(compiled),
        "engines_made": len(drive.fast._engines) - engines,
        "graphs_compiled": dict(torch._dynamo.utils.counters["stats"]) != graphs,
    }
    print({name: value for name, value in found["soak"].items() if name not in ("tenths", "grown_bytes")})


def memory_bytes() -> tuple[int, int, int]:
    """What is reserved on the card, in use there, and resident of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return torch.cuda.memory_reserved(), torch.cuda.memory_allocated(), pages * resource.getpagesize()
