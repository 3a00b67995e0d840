"""Alpamayo as a driver: observations in, plans out, several karts in one forward pass."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collector.errors import MonoError
from finetune.alpamayo.checkpoint import LoadedModel, load_model
from finetune.policy import FUTURE_STEPS, Observation, Plan, camera_of_each_image, cameras_of, select_images

MAX_THOUGHT_TOKENS = 128


class AlpamayoPolicy:
    """Plans with an Alpamayo model folder, optionally with an adapter.

    The thought is decoded greedily. Noise is drawn per observation from its stamp and the seed, so a plan does not
    depend on which others were planned beside it.

    Args:
        model_folder: official layout, or the id of one on the Hugging Face hub; or a model already loaded.
        adapter: PEFT adapter folder, merged on loading.
        cameras: camera mode, see :data:`finetune.policy.CAMERA_MODES`.
        flow_steps: Euler steps of the action expert.
        noise_temperature: scale of the initial noise; 0 gives the most typical path, 1 samples.
        seed: of the noise.
        reasoning: think before driving; without, the prompt asks for the trajectory alone.
        device: "cpu" or "cuda"; on a CPU weights are float32, elsewhere as stored.
        max_thought_tokens: room for the thought; a longer one is cut off and the plan made from it. None takes
            ``max_new_tokens`` of the folder's ``generation_config.json``, 128 without one.

    Raises:
        MonoError: unusable folder, adapter, camera mode or settings.
    """

    def __init__(
        self,
        model_folder: Path | str | LoadedModel,
        adapter: Path | str | None = None,
        cameras: str = "mono",
        flow_steps: int = 10,
        noise_temperature: float = 0.0,
        seed: int = 0,
        reasoning: bool = True,
        device: str = "cpu",
        max_thought_tokens: int | None = None,
    ) -> None:
        cameras_of(cameras)
        if flow_steps < 1 or noise_temperature < 0.0:
            raise MonoError(
                f"{flow_steps} flow steps at noise temperature {noise_temperature}",
                "at least 1 step, temperature >= 0",
            )
        if isinstance(model_folder, LoadedModel):
            loaded = model_folder
        else:
            dtype = torch.float32 if torch.device(device).type == "cpu" else None
            loaded = load_model(model_folder, dtype=dtype, device=device)
        self.processor = loaded.processor
        self.model = loaded.model
        if adapter is not None:
            from finetune.adapters import load_adapter

            load_adapter(loaded.model, adapter, base=loaded.folder, cameras=cameras)
        self.model.eval()
        self.cameras = cameras
        self.flow_steps = flow_steps
        self.noise_temperature = noise_temperature
        self.seed = seed
        self.reasoning = reasoning
        self.max_thought_tokens = max_thought_tokens or thought_room(loaded.folder)

    def plan(self, observation: Observation) -> Plan:
        """Plan for one observation."""
        return self.plan_many([observation])[0]

    @torch.no_grad()
    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        """Plan for several observations in one pass; ``timings_ms`` are those of the whole pass.

        Raises:
            MonoError: an observation lacks a camera of the mode.
        """
        if not observations:
            return []
        clock = _StageClock(self.model.device)
        asked = None if self.reasoning else ""
        batch = self.processor.collate(
            [
                self.processor.encode(
                    select_images(observation, self.cameras), observation.history, asked,
                    camera_of_each_image(self.cameras),
                )
                for observation in observations
            ]
        )
        clock.lap("encode")
        device, grids = self.model.device, batch.grid_thw
        vision = self.model.encode_images(batch.pixel_values.to(device), grids.to(device))
        clock.lap("vision")
        prefix = self.model.run_prefix(
            batch.input_ids.to(device), batch.attention_mask.to(device), vision, grids
        )
        clock.lap("prefill")
        thoughts = [""] * len(observations)
        if self.reasoning:
            answer = self.model.generate(
                prefix, cot_end_id=self.processor.cot_end_id, max_new_tokens=self.max_thought_tokens
            )
            prefix, thoughts = answer.prefix, [self.processor.decode_reasoning(ids) for ids in answer.tokens]
        clock.lap("decode")
        actions = self.model.sample_actions(prefix, self._noise(observations).to(device), self.flow_steps)
        poses = self._poses(observations, actions)
        clock.lap("action")
        return [
            Plan(observation.stamp_ns, pose, thought, dict(clock.laps_ms))
            for observation, pose, thought in zip(observations, poses, thoughts)
        ]

    def _noise(self, observations: Sequence[Observation]) -> Tensor:
        shape = (FUTURE_STEPS, 2)
        if self.noise_temperature == 0.0:
            return torch.zeros(len(observations), *shape)
        draws = []
        for observation in observations:
            seed = np.random.SeedSequence([self.seed, observation.stamp_ns]).generate_state(1, np.uint64)[0]
            draws.append(torch.randn(shape, generator=torch.Generator().manual_seed(int(seed) >> 1)))
        return self.noise_temperature * torch.stack(draws)

    def _poses(self, observations: Sequence[Observation], actions: Tensor) -> list[np.ndarray]:
        """Poses (64, 3) per observation; the wheel speed at t0, where known, replaces the estimate from poses."""
        space = self.model.action_space
        history = torch.as_tensor(np.stack([o.history for o in observations]), device=actions.device)
        v0 = space.estimate_v0(history)
        known = [o.speed_mps is not None and bool(np.isfinite(o.speed_mps)) for o in observations]
        speeds = torch.tensor(
            [o.speed_mps if k else 0.0 for o, k in zip(observations, known)], dtype=v0.dtype
        )
        v0 = torch.where(torch.tensor(known).to(v0.device), speeds.to(v0.device), v0)
        poses = space.action_to_traj(history, actions.double(), v0=v0)
        return list(poses.cpu().numpy())


def thought_room(folder: Path | None) -> int:
    """Longest thought a model folder asks for: one that babbles must not keep its plan waiting.

    Raises:
        MonoError: a ``generation_config.json`` without a usable number.
    """
    path = folder / "generation_config.json" if folder else None
    if path is None or not path.is_file():
        return MAX_THOUGHT_TOKENS
    try:
        room = json.loads(path.read_text(encoding="utf-8")).get("max_new_tokens", MAX_THOUGHT_TOKENS)
    except (ValueError, AttributeError) as error:
        raise MonoError(f"{path} is not a JSON object", '{"max_new_tokens": 128}', "correct or remove it") from error
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
