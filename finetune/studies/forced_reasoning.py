"""Words put into a policy's mouth: it drives as ever, but decodes the reasoning it is given, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finetune.alpamayo.cache import PrefixCache
from finetune.alpamayo.generation import Generation
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.evaluation.inference import Planned
from finetune.policy import Observation
from finetune.processing.processor import Encoded

# Name of a method -> arguments and result of its last call.
Calls = dict[str, tuple[tuple[Any, ...], Any]]


@contextmanager
def watched(policy: AlpamayoPolicy, reasonings: Sequence[str]) -> Iterator[Calls]:
    """Let a policy write one given reasoning per row, and remember what passes through its model.

    Yields:
        the calls of ``encode_images`` and ``sample_actions`` of the model and of ``write`` of the policy, as they come.
    """
    calls: Calls = {}
    own_write = policy.write

    def write(prefix: PrefixCache) -> Generation:
        # A row that has said its last word is not read any more: what fills it up is never seen.
        rows = [reasoning_ids(policy, reasoning) for reasoning in reasonings]
        width, end = max(map(len, rows)), policy.model.settings.token_ids.future_start
        return own_write(prefix, torch.tensor([[*row, *[end] * (width - len(row))] for row in rows]))

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
) -> list[Planned]:
    """Plans of the driving path with these reasoning texts; "" everywhere skips it, as ``reasoning=False`` does.

    A policy's room for reasoning texts is widened for the call where a reasoning needs it.

    Args:
        policy: that plans.
        observations: with their frames.
        reasonings: one of each, all of them empty or none.
        encoded: prompts of the observations that ask for a reasoning, where they are at hand.

    Raises:
        ValueError: some reasoning texts are empty and others are not.
    """
    before = policy.reasoning, policy.max_reasoning_tokens
    try:
        if not any(reasonings):
            policy.reasoning = False
            return policy.plan_draws(observations, 0)
        if not all(reasonings) or len(reasonings) != len(observations):
            raise ValueError("one reasoning per observation, all of them empty or none")
        room = max(len(reasoning_ids(policy, reasoning)) for reasoning in reasonings)
        policy.reasoning, policy.max_reasoning_tokens = True, max(before[1], room)
        with watched(policy, reasonings):
            return policy.plan_draws(observations, 0, encoded)
    finally:
        policy.reasoning, policy.max_reasoning_tokens = before
