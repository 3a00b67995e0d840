"""Inside a plan: a reasoning put into a policy's mouth, and what each stage computes in training and in driving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collector.common.errors import require
from collector.dataset.schema import Sample
from finetune.alpamayo.cache import PrefixCache, VisionFeatures
from finetune.alpamayo.flow_matching import interpolate
from finetune.alpamayo.generation import Generation
from finetune.alpamayo.model import AlpamayoR1
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.checkpoint import LoadedModel
from finetune.evaluation.inference import Planned
from finetune.policy import Observation
from finetune.processing.processor import Encoded
from finetune.training.batches import Batch, cache_vision, collate, encode_row, observe, unpack_pixels

# Name of a method -> arguments and result of its last call.
Calls = dict[str, tuple[tuple[Any, ...], Any]]
# Flow times at which the expert's velocity is asked for, from pure noise to almost there.
FLOW_TIMES = (0.0, 0.3, 0.6, 0.9)
_NUDGE = 1e-6


@dataclass(frozen=True)
class StageView:
    """One sample's way through the model."""

    stages: Mapping[str, NDArray[Any]]  # in the order of computation; see `finetune.studies.parity.STAGES`
    noise: Tensor  # (64, 2) the flow began from
    x_t: Tensor  # (K, 64, 2) noisy actions at `FLOW_TIMES` at which the velocity was asked for
    # (64, 3) planned; empty where training never makes them
    poses: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    reasoning: str = ""  # as decoded
    # what a millionth on the noise changes at the actions, as a share of their largest value. Rounding grows like this
    # along the Euler steps: the expert reads actions through waves of up to 100 periods a sigma.
    rounding: float = 0.0


@torch.no_grad()
def driving_view(policy: AlpamayoPolicy, sample: Sample, folder: Path) -> StageView:
    """Plan a sample as in driving, its own reasoning forced token by token, and keep what each stage made."""
    with watched(policy, [sample.reasoning]) as calls:
        plan = policy.plan(observe(sample, folder, policy.cameras))
    (pixels, _), features = calls["encode_images"]
    prefix: PrefixCache = calls["write"][1].prefix
    (_, noise, *_), actions = calls["sample_actions"]
    times = torch.tensor(FLOW_TIMES, device=actions.device)
    x_t = interpolate(actions, noise, times)
    velocity = policy.model.velocity(prefix, x_t, times)
    return StageView(
        _stages(pixels, prefix, features, velocity, actions), noise[0].cpu(), x_t.cpu(), plan.poses, plan.reasoning
    )


@torch.no_grad()
def training_views(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    folder: Path,
    cameras: str,
    driven: Sequence[StageView],
    flow_steps: int,
) -> list[StageView]:
    """What training computes for the same samples, side by side in one padded batch.

    The adapter lies beside the weights, not merged into them. Noise and noisy actions are those that were ``driven``.
    """
    model, device = loaded.model, loaded.model.device
    rows = [encode_row(loaded, sample, folder, cameras) for sample in samples]
    cached = list(cache_vision(model, rows, device))
    batch = collate(cached, loaded.processor.pad_id)
    prefix = run_batch(model, batch)
    x_t = torch.cat([view.x_t for view in driven]).to(device)
    times = torch.tensor(FLOW_TIMES, device=device).repeat(len(rows))
    velocity = model.velocity(prefix, x_t, times).view(len(rows), len(FLOW_TIMES), *x_t.shape[1:])
    noise = torch.stack([view.noise for view in driven]).to(device)
    actions = model.sample_actions(prefix, noise, flow_steps)
    moved = model.sample_actions(prefix, noise + _NUDGE * torch.randn_like(noise), flow_steps) - actions
    rounding = (moved.abs().amax((1, 2)) / actions.abs().amax((1, 2))).tolist()
    views = []
    for index, (row, seen, view) in enumerate(zip(rows, cached, driven, strict=True)):
        if row.pixels is None or seen.vision is None:
            raise ValueError("rows without pixels or features")
        pixels, one = unpack_pixels(row.pixels), _row(prefix, index)
        stages = _stages(pixels, one, seen.vision, velocity[index], actions[index : index + 1])
        views.append(StageView(stages, view.noise, view.x_t, rounding=rounding[index]))
    return views


def run_batch(model: AlpamayoR1, batch: Batch) -> PrefixCache:
    """The prefix of a batch whose image features are at hand."""
    if batch.vision is None:
        raise ValueError("a batch without features")
    device = model.device
    return model.run_prefix(
        batch.input_ids.to(device), batch.attention_mask.to(device), batch.vision.to(device), batch.grid_thw
    )


def _stages(
    pixels: Tensor, prefix: PrefixCache, features: VisionFeatures, velocity: Tensor, actions: Tensor
) -> dict[str, NDArray[Any]]:
    """One row's values per stage; of the prefix what the expert sees."""
    columns = prefix.visible[0]
    memory = torch.stack([part[0][:, columns].float() for part in (*prefix.keys, *prefix.values)])
    values = {
        "pixels": pixels,
        "tokens": prefix.input_ids[0][columns],
        "vision features": torch.cat([features.embeds, *features.deepstack], dim=-1),
        "prefix keys and values": memory,
        "position": prefix.expert_position[:1],
        "velocity": velocity,
        "actions": actions[0],
    }
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().numpy() for name, value in values.items()
    }


def _row(prefix: PrefixCache, index: int) -> PrefixCache:
    """One row of a prefix, still padded."""
    row = slice(index, index + 1)
    names = ("filled", "visible", "next_position", "expert_position", "input_ids")
    return replace(
        prefix,
        keys=tuple(key[row] for key in prefix.keys),
        values=tuple(value[row] for value in prefix.values),
        hidden=None,
        **{name: getattr(prefix, name)[row] for name in names},
    )


def adapted_as_in_training(loaded: LoadedModel, adapter: Path | None) -> LoadedModel:
    """Put an adapter beside the weights, as training has it; the driving path merges it into them."""
    if adapter is not None:
        require("peft", "model").PeftModel.from_pretrained(loaded.model, str(adapter))
    loaded.model.eval()
    return loaded


@contextmanager
def watched(policy: AlpamayoPolicy, reasonings: Sequence[str]) -> Iterator[Calls]:
    """Let a policy write one given reasoning per row, and remember what passes through its model.

    Yields the calls of ``encode_images`` and ``sample_actions`` of the model and of ``write`` of the policy.
    """
    calls: Calls = {}
    own_write = policy.write

    def write(prefix: PrefixCache, drafts: Sequence[Sequence[int]], _: object = None) -> Generation:
        return own_write(prefix, drafts, [reasoning_ids(policy, reasoning) for reasoning in reasonings])

    def kept(name: str, method: Any) -> Any:  # noqa: ANN401 - a method of torch's module
        def call(*arguments: Any) -> Any:  # noqa: ANN401 - handed on
            calls[name] = arguments, method(*arguments)
            return calls[name][1]

        return call

    model = policy.model
    methods = [(model, "encode_images", model.encode_images), (model, "sample_actions", model.sample_actions)]
    places: list[tuple[object, str, Any]] = [*methods, (policy, "write", write)]
    before = [vars(owner).get(name) for owner, name, _ in places]
    for owner, name, method in places:
        setattr(owner, name, kept(name, method))
    try:
        yield calls
    finally:
        for (owner, name, _), own in zip(places, before, strict=True):
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def reasoning_ids(policy: AlpamayoPolicy, reasoning: str) -> list[int]:
    """What a model writes for a reasoning: its words, ``<|cot_end|>``, ``<|traj_future_start|>``."""
    end = policy.model.settings.token_ids.future_start
    return [*policy.processor.tokenizer.encode_plain(reasoning), policy.processor.cot_end_id, end]


def plan_with_reasonings(
    policy: AlpamayoPolicy,
    observations: Sequence[Observation],
    reasonings: Sequence[str],
    encoded: Sequence[Encoded] | None = None,
    draws: int = 0,
) -> list[Planned]:
    """Plans of the driving path with these reasoning texts; "" everywhere skips it, as ``reasoning=False`` does.

    A policy's room for reasoning texts is widened for the call where a reasoning needs it. ``encoded`` are the prompts
    that ask for a reasoning, where they are at hand; ``draws`` are further plans drawn at noise temperature 1.

    Raises:
        ValueError: some reasoning texts are empty and others are not.
    """
    before = policy.reasoning, policy.max_reasoning_tokens
    try:
        if not any(reasonings):
            policy.reasoning = False
            return policy.plan_draws(observations, draws)
        if not all(reasonings) or len(reasonings) != len(observations):
            raise ValueError("one reasoning per observation, all of them empty or none")
        room = max(len(reasoning_ids(policy, reasoning)) for reasoning in reasonings)
        policy.reasoning, policy.max_reasoning_tokens = True, max(before[1], room)
        with watched(policy, reasonings):
            return policy.plan_draws(observations, draws, encoded)
    finally:
        policy.reasoning, policy.max_reasoning_tokens = before
