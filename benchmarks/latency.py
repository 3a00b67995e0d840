"""What one plan costs at the released sizes: a naive one, our eager one, and the engine's, stage by stage.

    python benchmarks/latency.py [--tokens 0 16 40] [--frames 1 4] [--repetitions 30] [--plans FILE] [--out FILE.json]

Random weights of the released sizes in bfloat16 on one GPU, 1920 x 1080 frames, reasonings of a given number of words.
"naive" is transformers' generate() and the expert through its own modules and cache. The engine is timed with a draft
that is right, one that goes wrong in the middle and is continued rightly, and none. Beside each stage stands its floor:
the bytes of its weights and the operations of its products, over what this card was just measured to read and multiply.
--plans replays the reasonings of a recorded drive (plans.jsonl), so that drafts hit as often as they did there, and
--soak_s plans that drive over and over for so long, and says what grew; --limit_gib holds PyTorch to so much memory, as
a smaller card would; --quantised packs the language model for one.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_finetune import random_model
from random_checkpoint import released_tokenizer
from recorded_drive import Recorded, observation, replay, soak, spread, words_of
from transformers import DynamicCache

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from collector.common.cpu import share_cores
from finetune.alpamayo.flow_matching import integrate
from finetune.alpamayo.generation import choose
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.checkpoint import LoadedModel
from finetune.policy import Observation, select_images
from finetune.processing.processor import Processor

MODES = {1: "mono", 4: "mono-4frames"}
STAGES = ("encode", "vision", "prefill", "decode", "action")


class Told:
    """Stands for what was said before: drafts and expectations as the benchmark wants them."""

    def __init__(self, draft: Sequence[int] = (), text: Sequence[int] = ()) -> None:
        self.draft, self.text = draft, text

    def first(self, rows: int) -> list[list[int]]:
        return [list(self.draft) for _ in range(rows)]

    def after(self, written: Sequence[int]) -> Sequence[int]:
        return self.text[len(written) :]

    def learn(self, reasonings: Sequence[Sequence[int]]) -> None:
        self.said = list(reasonings[0])


def naive_plan(policy: AlpamayoPolicy, seen: Observation, words: int) -> Any:
    """A plan the way one writes it first."""
    model, device = policy.model, policy.model.device
    prompt = policy.encode(seen)
    ids, cache = prompt.input_ids[None].to(device), DynamicCache()
    start = model.settings.traj_token_start_idx
    given: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": prompt.pixel_values.to(device, torch.bfloat16),
        "image_grid_thw": prompt.grid_thw.to(device),
        "mm_token_type_ids": (ids == model.settings.vlm["image_token_id"]).long(),
        "past_key_values": cache,
        "use_cache": True,
    }
    if words:
        bins = list(range(start, start + model.settings.traj_vocab_size))
        model.vlm.generate(
            **given, max_new_tokens=words, min_new_tokens=words, do_sample=False, suppress_tokens=bins, pad_token_id=0
        )
    else:
        model.vlm(**given)
    prefix = cache.get_seq_length()
    positions = (prefix + torch.arange(64, device=device)).expand(3, 1, -1)
    mask = torch.zeros(1, 1, 64, prefix + 64, dtype=torch.bfloat16, device=device)

    def velocity(x: Any, t: Any) -> Any:
        hidden = model.expert(
            inputs_embeds=model.action_in_proj(x, t),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        cache.crop(prefix)
        return model.action_out_proj(hidden)

    actions = integrate(velocity, policy._noise([seen], 0).flatten(0, 1).to(device), policy.flow_steps)
    return policy._poses([seen], actions)


def timed(work: Callable[[], Any], repetitions: int, warm_ups: int = 2) -> tuple[dict[str, float], list[Any]]:
    """Milliseconds of a whole plan, and what each answered."""
    taken, answers = [], []
    for index in range(repetitions + warm_ups):
        torch.cuda.synchronize()
        start = time.perf_counter()
        answers.append(work())
        torch.cuda.synchronize()
        if index >= warm_ups:
            taken.append(1e3 * (time.perf_counter() - start))
    return spread(taken), answers[warm_ups:]


def ceilings() -> tuple[float, float]:
    """Bytes per second read, and operations per second in bfloat16 products."""
    matrix = torch.randn(2**16, 2**15, device="cuda", dtype=torch.bfloat16)
    row = torch.randn(16, 2**15, device="cuda", dtype=torch.bfloat16)
    reading, _ = timed(lambda: row @ matrix.T, 10)
    square = matrix[:8192, :8192].contiguous()
    multiplying, _ = timed(lambda: square @ square, 10)
    return matrix.nbytes / reading["p50"] * 1e3, 2 * 8192**3 / multiplying["p50"] * 1e3


def floors(model: Any, shape: Any, words: int, steps: int, read: float, multiply: float) -> dict[str, float]:
    """Milliseconds that no version of a stage can beat, with a draft that is right."""

    def matrices(module: Any) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)

    def floor(weights: int, rows: int) -> float:
        return 1e3 * max(2 * weights / read, 2 * weights * rows / multiply)

    language, visual = model.vlm.model.language_model, model.vlm.model.visual
    layers = matrices(language.layers)
    head = model.vlm.lm_head.weight.numel()
    patches = sum(int(np.prod(grid)) for grid in shape.grids)
    return {
        "vision": floor(matrices(visual.blocks), patches),
        "prefill": floor(layers, shape.length + words) + floor(head, 1 + words),
        "one pass": floor(layers + head, 16),
        "action": steps * floor(matrices(model.expert.layers), 64),
    }


class Bench:
    """The rows of the table."""

    def __init__(self, options: Any, loaded: LoadedModel, found: dict[str, Any], read: float, multiply: float) -> None:
        self.options, self.loaded, self.found, self.rates = options, loaded, found, (read, multiply)
        self._exact: Any = None

    def report(self, name: str, whole: dict[str, float], plans: Sequence[Any] = (), floor: Any = None) -> None:
        stages = {}
        if plans and hasattr(plans[0], "timings_ms"):
            stages = {stage: float(np.median([plan.timings_ms[stage] for plan in plans])) for stage in STAGES}
        self.found[name] = {**whole, "stages": stages, "floors": floor}
        parts = "".join(f"  {stage} {value:.1f}" for stage, value in stages.items())
        beside = "" if floor is None else "  floors " + " ".join(f"{k} {v:.1f}" for k, v in floor.items())
        print(f"{name:<36} p50 {whole['p50']:8.1f} p95 {whole['p95']:8.1f}{parts}{beside}", flush=True)

    def measure(self, frames: int, words: int) -> None:
        """Naive, eager and engine for so many frames and words."""
        options, slow = self.options, self.options.slow_repetitions
        how: dict[str, Any] = {"cameras": MODES[frames], "device": "cuda", "reasoning": words > 0}
        how["max_reasoning_tokens"] = words or None
        how["quantised"] = options.quantised
        eager, fast = (AlpamayoPolicy(self.loaded, engine=engine, **how) for engine in ("eager", "fast"))
        seen, name = observation(frames, 0), f"{frames} frames, {words} words"
        if slow and options.quantised == "none":
            self.report(f"{name}, naive", timed(lambda: naive_plan(eager, seen, words), slow, 1)[0])
        if slow:
            self.report(f"{name}, eager", *timed(lambda: eager.plan(seen), slow, 1))
        began = time.perf_counter()
        text = settled_text(fast, seen) if words else []
        print(f"  engine made and text settled in {time.perf_counter() - began:.1f} s", flush=True)
        engine = next(iter((fast._engines or {}).values()), None)
        floor = None
        if self.rates[0] and engine is not None:
            floor = floors(fast.model, engine.shape, words, fast.flow_steps, *self.rates)
        half = len(text) // 2
        drafts = {"hit": Told(text, text)}
        if words:
            drafts["half hit"] = Told([*text[:half], text[half] ^ 1, *text[half + 1 :]], text)
            drafts["miss"] = Told()
        for kind, told in drafts.items():
            fast._draft = told
            self.report(f"{name}, engine, {kind}", *timed(lambda: fast.plan(seen), options.repetitions), floor)
        if options.agree and options.quantised == "none":
            self.agree(eager, fast, frames, name)
        if options.plans is not None and words:
            drive, texts = Recorded(fast), words_of(options.plans, fast)
            replay(drive, texts, seen, self.report, name)
            if options.soak_s:
                soak(drive, texts, frames, options.soak_s, self.found)

    def agree(self, eager: Any, fast: Any, frames: int, name: str) -> None:
        """Eager and engine on fresh inputs, each beside the same weights in float32, reading the same words.

        Random weights are undecided: rounding to bfloat16 alone turns some words and moves paths by decimetres. So
        what can be asked is that the engine is no further from exact arithmetic than eager is.
        """
        model, exact = fast.model, self.exact()
        engine = next(iter(fast._engines.values()))
        close: dict[str, list[float]] = {"eager": [], "engine": []}
        apart: dict[str, list[float]] = {"eager": [], "engine": []}
        for number in range(1, 1 + self.options.agree):
            seen = observation(frames, number)
            prompt = eager.encode(seen)
            fast._draft = told = Told()
            fast.plan(seen)
            words = list(getattr(told, "said", ()))
            noise = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(number))
            choices, paths = {}, {}
            for who, which in (("eager", model), ("exact", exact)):
                ids = torch.cat([prompt.input_ids, torch.tensor(words, dtype=torch.int64)])[None].cuda()
                vision = which.encode_images(prompt.pixel_values.cuda(), prompt.grid_thw.cuda())
                prefix = which.run_prefix(ids, torch.ones_like(ids), vision, prompt.grid_thw.cuda())
                choices[who] = choose(which, prefix.hidden[:, len(prompt.input_ids) - 1 :])[0]
                paths[who] = fast._poses([seen], which.sample_actions(prefix, noise.cuda(), fast.flow_steps).cpu())[0]
            engine.see(select_images(seen, fast.cameras))
            choices["engine"] = engine.prefill(prompt.input_ids, words)
            engine._filled.fill_(engine.shape.length + len(words))
            paths["engine"] = fast._poses([seen], engine.drive(noise))[0]
            for who, shares in close.items():
                shares.append(float(np.mean(np.equal(choices[who], choices["exact"]))))
                apart[who].append(float(np.hypot(*(paths[who] - paths["exact"])[:, :2].T).max()))
        self.found[f"{name}, beside float32"] = {"same_choice": close, "path_apart_m": apart}
        print(
            "  beside float32: same choice of words "
            + ", ".join(f"{who} {np.mean(values):.3f}" for who, values in close.items())
            + "; paths apart, median and most, m: "
            + ", ".join(f"{who} {np.median(values):.3f} {max(values):.3f}" for who, values in apart.items()),
            flush=True,
        )

    def exact(self) -> Any:
        """The model in float32, made once."""
        if self._exact is None:
            self._exact = copy.deepcopy(self.loaded.model).float()
        return self._exact


def settled_text(fast: Any, seen: Any) -> list[int]:
    """The reasoning that is chosen when it is read along.

    Where random weights are undecided, words chosen one by one and words chosen in one pass can differ.
    """
    fast._draft = told = Told()
    fast.plan(seen)
    for _ in range(8):
        fast._draft = told = Told(told.said)
        if fast.plan(seen).passes == 0:
            break
    return list(told.said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[0, 16, 40])
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 4], choices=MODES)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--slow_repetitions", type=int, default=4, help="of the naive and the eager plan")
    parser.add_argument("--agree", type=int, default=8, help="fresh inputs on which eager and engine are compared")
    parser.add_argument("--plans", type=Path)
    parser.add_argument("--soak_s", type=float, default=0.0)
    parser.add_argument("--limit_gib", type=float, default=0.0)
    parser.add_argument("--quantised", default="none", choices=("none", "nf4"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.soak_s and options.plans is None:
        parser.error("--soak_s plans a recorded drive: say which by --plans FILE")
    share_cores()  # the allocator's settings, before it is first used
    torch.set_grad_enabled(False)
    gib = 2**30
    card = torch.cuda.get_device_properties(0)
    read, multiply = (0.0, 0.0) if options.limit_gib else ceilings()
    torch.cuda.empty_cache()
    model = random_model("cuda")
    if options.quantised != "none":  # a card too small for the model gets it part by part
        model.cpu()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if options.limit_gib:
        torch.cuda.set_per_process_memory_fraction(options.limit_gib * gib / card.total_memory)
    loaded = LoadedModel(model, Processor(model.settings, released_tokenizer()), model.settings)
    found: dict[str, Any] = {"card": card.name, "torch": torch.__version__, "read_tb_s": read / 1e12}
    print(
        f"{card.name}, torch {torch.__version__}: reads {read / 1e12:.2f} TB/s, {multiply / 1e12:.0f} TFLOP/s",
        flush=True,
    )

    bench = Bench(options, loaded, found, read, multiply)
    for frames in options.frames:
        for words in options.tokens:
            bench.measure(frames, words)
    used = torch.cuda.max_memory_reserved() / gib
    found["reserved_gib"] = used
    print(f"at most {used:.2f} GiB reserved, {torch.cuda.max_memory_allocated() / gib:.2f} GiB in use")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
