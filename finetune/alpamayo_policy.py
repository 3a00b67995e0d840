"""Alpamayo as a driver: observations in, plans out, several karts in one forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collector.common.errors import MonoError
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.alpamayo.cache import PrefixCache
from finetune.alpamayo.decoder import pack_linears
from finetune.alpamayo.generation import Generation, generate
from finetune.checkpoint import LoadedModel, load_model
from finetune.model_files.configuration_files import read_json
from finetune.model_files.location import resolve_model
from finetune.policy import (
    FUTURE_STEPS,
    Observation,
    Plan,
    PolicySettings,
    camera_of_each_image,
    cameras_of,
    select_images,
)
from finetune.processing.processor import Encoded, pad_right

MAX_REASONING_TOKENS = 128


class AlpamayoPolicy:
    """Plans with an Alpamayo model folder, optionally with an adapter.

    The reasoning is decoded greedily. Noise is drawn per observation from its stamp and the seed, so a plan does not
    depend on which others were planned beside it.

    Raises:
        MonoError: unusable folder, adapter, camera mode or settings.
    """

    def __init__(
        self,
        # Official layout, or the id of one on the Hugging Face hub; or a model already loaded.
        model_folder: Path | str | LoadedModel,
        adapter: Path | str | None = None,  # PEFT adapter folder, merged on loading
        cameras: str = PolicySettings.cameras,  # camera mode, see finetune.policy.MODES
        flow_steps: int = PolicySettings.flow_steps,  # Euler steps of the action expert
        # Scale of the initial noise; 0 gives the most typical path, 1 samples.
        noise_temperature: float = PolicySettings.noise_temperature,
        seed: int = 0,  # of the noise
        reasoning: bool = PolicySettings.reasoning,  # think before driving; without, the prompt asks for the path alone
        device: str = PolicySettings.device,  # "cpu" or "cuda"; on a CPU weights are float32, elsewhere as stored
        # Room for the reasoning; a longer one is cut off and the plan made from it. None takes ``max_new_tokens`` of
        # the folder's ``generation_config.json``, 128 without one.
        max_reasoning_tokens: int | None = None,
    ) -> None:
        cameras_of(cameras)
        if flow_steps < 1 or noise_temperature < 0.0:
            raise MonoError(
                f"{flow_steps} flow steps at noise temperature {noise_temperature}", "at least 1 step, temperature >= 0"
            )
        if adapter is not None:  # rather now than after minutes of loading
            known = model_folder.folder if isinstance(model_folder, LoadedModel) else resolve_model(model_folder)
            check_belongs(adapter_facts(adapter), known, cameras)
        loaded = model_folder if isinstance(model_folder, LoadedModel) else load_base(model_folder, device)
        self.processor = loaded.processor
        self.model = loaded.model
        if adapter is not None:
            from finetune.adapters.lora import load_adapter

            load_adapter(loaded.model, adapter)
        self.model.eval()
        pack_linears(self.model.vlm.model.language_model)
        pack_linears(self.model.expert)
        self.cameras = cameras
        self.flow_steps = flow_steps
        self.noise_temperature = noise_temperature
        self.seed = seed
        self.reasoning = reasoning
        self.max_reasoning_tokens = max_reasoning_tokens or reasoning_room(loaded.folder)

    def plan(self, observation: Observation) -> Plan:
        """Plan for one observation."""
        return self.plan_many([observation])[0]

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        """Plan for several observations in one pass; ``timings_ms`` are those of the whole pass."""
        return [plan for plan, _ in self.plan_draws(observations, 0)]

    def encode(self, observation: Observation) -> Encoded:
        """The prompt of an observation; MonoError where it lacks a camera of the mode."""
        asked = None if self.reasoning else ""
        images, cameras = select_images(observation, self.cameras), camera_of_each_image(self.cameras)
        return self.processor.encode(images, observation.history, asked, cameras)

    def write(self, prefix: PrefixCache, forced: Tensor | None = None) -> Generation:
        """The reasoning after a prefix, greedily; ``forced`` (B, n) are ids to write instead."""
        end, room = self.processor.cot_end_id, self.max_reasoning_tokens
        return generate(self.model, prefix, cot_end_id=end, max_new_tokens=room, forced=forced)

    @torch.no_grad()
    def plan_draws(
        self, observations: Sequence[Observation], draws: int, encoded: Sequence[Encoded] | None = None
    ) -> list[tuple[Plan, np.ndarray]]:
        """Plans as :meth:`plan_many` makes them and, from the same reasoning texts, plans drawn at noise temperature 1.

        Per observation its plan and the poses (draws, 64, 3) of the draws; a draw depends on seed, stamp and its number
        alone. With the prompts of :meth:`encode` given (``encoded``), frames are not looked at.

        Raises:
            MonoError: an observation lacks a camera of the mode.
        """
        if not observations:
            return []
        clock = _StageClock(self.model.device)
        prompts = encoded or [self.encode(observation) for observation in observations]
        input_ids = pad_right([prompt.input_ids for prompt in prompts], self.processor.pad_id)
        seen = pad_right([torch.ones_like(prompt.input_ids) for prompt in prompts], 0)
        pixels = torch.cat([prompt.pixel_values for prompt in prompts])
        grids = torch.cat([prompt.grid_thw for prompt in prompts])
        clock.lap("encode")
        device = self.model.device
        vision = self.model.encode_images(pixels.to(device), grids.to(device))
        clock.lap("vision")
        prefix = self.model.run_prefix(input_ids.to(device), seen.to(device), vision, grids)
        clock.lap("prefill")
        reasonings = [""] * len(observations)
        if self.reasoning:
            answer = self.write(prefix)
            prefix, reasonings = answer.prefix, [self.processor.decode_reasoning(ids) for ids in answer.tokens]
        clock.lap("decode")
        noise = self._noise(observations, draws).flatten(0, 1)
        actions = self.model.sample_actions(prefix, noise.to(device), self.flow_steps)
        poses = self._poses([o for o in observations for _ in range(1 + draws)], actions)
        clock.lap("action")
        sets = poses.reshape(len(observations), 1 + draws, FUTURE_STEPS, 3)
        return [
            (Plan(observation.stamp_ns, own[0], reasoning, dict(clock.laps_ms)), own[1:])
            for observation, own, reasoning in zip(observations, sets, reasonings, strict=False)
        ]

    def _noise(self, observations: Sequence[Observation], draws: int) -> Tensor:
        """(B, 1 + draws, 64, 2): what drives, then draws at temperature 1, the first ones the same for any number."""
        noise = torch.zeros(len(observations), 1 + draws, FUTURE_STEPS, 2)
        for row, observation in enumerate(observations):
            if self.noise_temperature > 0.0:
                noise[row, 0] = self.noise_temperature * _seeded_noise(self.seed, observation.stamp_ns)
            for draw in range(1, 1 + draws):
                noise[row, draw] = _seeded_noise(self.seed, observation.stamp_ns, draw)
        return noise

    def _poses(self, observations: Sequence[Observation], actions: Tensor) -> np.ndarray:
        """Poses (B, 64, 3); the wheel speed at t0, where known, replaces the estimate from poses."""
        space = self.model.action_space
        history = torch.as_tensor(np.stack([o.history for o in observations]), device=actions.device)
        v0 = space.estimate_v0(history)
        given = [np.nan if o.speed_mps is None else o.speed_mps for o in observations]
        speeds = torch.tensor(given, dtype=v0.dtype, device=v0.device)
        v0 = torch.where(speeds.isfinite(), speeds, v0)
        return np.asarray(space.action_to_traj(history, actions.double(), v0=v0).cpu().numpy())


def _seeded_noise(*seeds: int) -> Tensor:
    # Stamps may lie before the zero of their clock.
    seed = np.random.SeedSequence([value % 2**64 for value in seeds]).generate_state(1, np.uint64)[0]
    return torch.randn((FUTURE_STEPS, 2), generator=torch.Generator().manual_seed(int(seed) >> 1))


def load_base(folder: Path | str, device: str) -> LoadedModel:
    """A model folder as a driver wants it: on a CPU weights are float32, elsewhere as stored."""
    return load_model(folder, dtype=torch.float32 if torch.device(device).type == "cpu" else None, device=device)


def reasoning_room(folder: Path | None) -> int:
    """Longest reasoning a model folder asks for: one that babbles must not keep its plan waiting.

    Raises:
        MonoError: a ``generation_config.json`` without a usable number.
    """
    path = folder / "generation_config.json" if folder else None
    if path is None or not path.is_file():
        return MAX_REASONING_TOKENS
    room = read_json(path, "correct or remove it").get("max_new_tokens", MAX_REASONING_TOKENS)
    if not isinstance(room, int) or room < 2:
        raise MonoError(f"{path}: max_new_tokens is {room!r}", "a whole number of at least 2", "correct or remove it")
    return room


class _StageClock:
    """Milliseconds per stage; a GPU is waited for, so that its work is counted where it belongs."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._last = time.perf_counter()
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
        now = time.perf_counter()
        self.laps_ms[stage] = 1000.0 * (now - self._last)
        self._last = now
