"""A plan's time by stage against transformers' own modules and cache, in the same run.

    python benchmarks/plan_time.py [--model finetune/tiny_base] [--rows 1 9] [--repetitions 30] [--threads 2]

Both ways plan the same smooth random pictures with the same noise, by turns; what is printed is each stage's median in
milliseconds, the least of the whole plan, and how far the poses are apart.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import DynamicCache

from finetune.alpamayo.flow_matching import integrate
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.policy import Observation
from finetune.processing.processor import Encoded

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("encode", "vision", "prefill", "decode", "action")


def observations(count: int) -> list[Observation]:
    generator = np.random.default_rng(0)
    made = []
    for row in range(count):
        coarse = generator.integers(0, 255, (10, 20, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((320, 160)))
        history = np.zeros((16, 3))
        history[:, 0] = np.linspace(-3.0 - 0.2 * row, 0.0, 16)
        made.append(Observation(10**9 * (row + 1), {"front": image[None]}, history, 2.0))
    return made


class Ours:
    """The stages as the driver runs them."""

    def __init__(self, policy: AlpamayoPolicy) -> None:
        self.policy, self.model = policy, policy.model

    def prefill(self, ids: Any, vision: Any, grids: Any) -> Any:
        return self.model.run_prefix(ids, torch.ones_like(ids), vision, grids)

    def decode(self, prefix: Any) -> Any:
        return self.policy.write(prefix).prefix

    def action(self, prefix: Any, noise: Any) -> Any:
        return self.model.sample_actions(prefix, noise, self.policy.flow_steps)


class Transformers(Ours):
    """The same stages through ``Qwen3VLTextModel`` and ``DynamicCache``, rows of one length."""

    def prefill(self, ids: Any, vision: Any, grids: Any) -> Any:
        with torch.enable_grad():  # where the driver's decoder gives way to the modules
            return super().prefill(ids, vision, grids).detach()

    def _cache(self, prefix: Any) -> Any:
        cache = DynamicCache()
        for layer, columns in enumerate(prefix.columns):
            cache.update(*columns, layer)
        return cache

    @staticmethod
    def _mask(visible: Any, queries: int) -> Any:
        mask = torch.zeros(visible.shape, device=visible.device)
        return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)[:, None, None].expand(-1, 1, queries, -1)

    def decode(self, prefix: Any) -> Any:
        language, settings = self.model.vlm.model.language_model, self.model.settings
        start, end = settings.traj_token_start_idx, settings.token_ids.future_start
        cache, filled, position = self._cache(prefix), prefix.filled, prefix.next_position
        hidden, ids = prefix.hidden[:, -1], prefix.input_ids
        done = torch.zeros(len(prefix), dtype=torch.bool)
        while not bool(done.all()):
            logits = self.model.text_logits(hidden)
            logits[:, start : start + settings.traj_vocab_size] = -torch.inf
            token = logits.argmax(-1)
            filled, ids = torch.cat([filled, ~done[:, None]], dim=1), torch.cat([ids, token[:, None]], dim=1)
            hidden = language(
                inputs_embeds=language.embed_tokens(token)[:, None],
                position_ids=position[None, :, None].expand(3, -1, -1),
                attention_mask=self._mask(filled, 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, 0]
            position, done = position + ~done, done | (token == end)
        keys, values = (tuple(getattr(layer, kind) for layer in cache.layers) for kind in ("keys", "values"))
        return prefix.with_words(keys, values, filled, position, ids)

    def action(self, prefix: Any, noise: Any) -> Any:
        cache, model = self._cache(prefix), self.model
        positions = (prefix.expert_position[:, None] + torch.arange(noise.shape[1])).expand(3, -1, -1)
        visible = functional.pad(prefix.visible, (0, noise.shape[1]), value=True)

        def velocity(x: Any, t: Any) -> Any:
            output = model.expert(
                inputs_embeds=model.action_in_proj(x, t),
                position_ids=positions,
                attention_mask=self._mask(visible, x.shape[1]),
                past_key_values=cache,
                use_cache=True,
            )
            cache.crop(-x.shape[1])  # every step starts from the bare prefix
            return model.action_out_proj(output.last_hidden_state)

        return integrate(velocity, noise, self.policy.flow_steps)


@torch.no_grad()
def plan(way: Ours, seen: list[Observation], noise: Any) -> tuple[dict[str, float], Any]:
    """Milliseconds of each stage, and the poses."""
    laps = [time.perf_counter()]
    encoded: list[Encoded] = [way.policy.encode(one) for one in seen]
    ids, grids = torch.stack([one.input_ids for one in encoded]), torch.cat([one.grid_thw for one in encoded])
    pixels = torch.cat([one.pixel_values for one in encoded])
    laps.append(time.perf_counter())
    vision = way.model.encode_images(pixels, grids)
    laps.append(time.perf_counter())
    prefix = way.prefill(ids, vision, grids)
    laps.append(time.perf_counter())
    prefix = way.decode(prefix)
    laps.append(time.perf_counter())
    history, speeds = torch.from_numpy(np.stack([one.history for one in seen])), torch.full((len(seen),), 2.0)
    poses = way.model.action_space.action_to_traj(history, way.action(prefix, noise).double(), v0=speeds).numpy()
    laps.append(time.perf_counter())
    return dict(zip(STAGES, 1000.0 * np.diff(laps), strict=True)), poses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "finetune" / "tiny_base")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 9])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(options.threads)
    policy = AlpamayoPolicy(options.model)
    policy.model.requires_grad_(False)
    ways = {"transformers": Transformers(policy), "ours": Ours(policy)}
    for rows in options.rows:
        seen, noise = observations(rows), torch.randn(rows, 64, 2, generator=torch.Generator().manual_seed(0))
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        poses: dict[str, Any] = {}
        for _ in range(options.repetitions + 1):
            for name, way in ways.items():
                laps, poses[name] = plan(way, seen, noise)
                taken[name].append(laps)
        print(f"{rows} rows, poses apart by {np.abs(poses['transformers'] - poses['ours']).max():.1e}")
        medians = {}
        for name, runs in taken.items():
            wholes = [sum(run.values()) for run in runs[1:]]
            medians[name] = {stage: median(run[stage] for run in runs[1:]) for stage in STAGES} | {
                "plan": median(wholes),
                "least": min(wholes),
            }
            print(f"  {name:<14}" + "".join(f"{stage:>9} {value:6.1f}" for stage, value in medians[name].items()))
        ratios = {stage: medians["transformers"][stage] / value for stage, value in medians["ours"].items()}
        print(f"  {'ratio':<14}" + "".join(f"{stage:>9} {value:6.2f}" for stage, value in ratios.items()))


if __name__ == "__main__":
    main()
