"""Words put into a policy's mouth: it drives as ever, but decodes the reasoning it is given, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finetune.alpamayo.cache import Prefix
from finetune.alpamayo.generation import Generation, generate
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.policy import Observation, Plan


class WatchedModel:
    """A model that hands everything on, but writes forced reasoning texts and remembers what passed through it.

    Attributes:
        forced: ids each row of the next batch must write, reasoning, its end and ``<|traj_future_start|>``; None lets
            the model choose.
        seen: name of a method -> its arguments and its result at the last call, for the methods below.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.forced: Sequence[Sequence[int]] | None = None
        self.seen: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_images(self, *arguments: Any, **settings: Any) -> Any:
        return self._keep("encode_images", arguments, self._model.encode_images(*arguments, **settings))

    def run_prefix(self, *arguments: Any, **settings: Any) -> Prefix:
        return self._keep("run_prefix", arguments, self._model.run_prefix(*arguments, **settings))

    def sample_actions(self, *arguments: Any, **settings: Any) -> torch.Tensor:
        return self._keep("sample_actions", arguments, self._model.sample_actions(*arguments, **settings))

    def generate(self, prefix: Prefix, **settings: Any) -> Generation:
        ids = None
        if self.forced is not None:
            # A row that has said its last word is not read any more: what fills it up is never seen.
            width = max(map(len, self.forced))
            end = self._model.settings.token_ids.future_start
            ids = torch.tensor([[*row, *[end] * (width - len(row))] for row in self.forced])
        return self._keep("generate", (prefix,), generate(self._model, prefix, forced=ids, **settings))

    def _keep(self, name: str, arguments: tuple[Any, ...], result: Any) -> Any:
        self.seen[name] = (arguments, result)
        return result


@contextmanager
def watched(policy: AlpamayoPolicy) -> Iterator[WatchedModel]:
    """Put a :class:`WatchedModel` where the policy's model is, for as long as the context lasts."""
    inner: Any = policy.model
    outer: Any = WatchedModel(inner)
    policy.model = outer
    try:
        yield outer
    finally:
        policy.model = inner


def reasoning_ids(policy: AlpamayoPolicy, reasoning: str) -> list[int]:
    """What a model writes for a reasoning: its words, ``<|cot_end|>``, ``<|traj_future_start|>``."""
    end = policy.model.settings.token_ids.future_start
    return [*policy.processor.tokenizer.encode_plain(reasoning), policy.processor.cot_end_id, end]


def plan_with_reasonings(
    policy: AlpamayoPolicy, observations: Sequence[Observation], reasonings: Sequence[str]
) -> list[Plan]:
    """Plans of the driving path with these reasoning texts; "" everywhere skips it, as ``reasoning=False`` does.

    A policy's room for reasoning texts is widened for the call where a reasoning needs it.

    Raises:
        ValueError: some reasoning texts are empty and others are not.
    """
    if not any(reasonings):
        reasoning, policy.reasoning = policy.reasoning, False
        try:
            return policy.plan_many(observations)
        finally:
            policy.reasoning = reasoning
    if not all(reasonings) or len(reasonings) != len(observations):
        raise ValueError("one reasoning per observation, all of them empty or none")
    before = policy.reasoning, policy.max_reasoning_tokens
    with watched(policy) as model:
        model.forced = [reasoning_ids(policy, reasoning) for reasoning in reasonings]
        policy.reasoning, policy.max_reasoning_tokens = True, max(before[1], *map(len, model.forced))
        try:
            return policy.plan_many(observations)
        finally:
            policy.reasoning, policy.max_reasoning_tokens = before
