"""Alpamayo as a driver: observations in, plans out, several karts in one forward pass."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collector.common.errors import MonoError
from collector.reasoning.instructions import read_instruction
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.alpamayo.cache import PrefixCache
from finetune.alpamayo.decoder import pack_linears
from finetune.alpamayo.draft import ReasoningDraft, ReasoningPace, drafts_and_forced
from finetune.alpamayo.generation import Generation, generate
from finetune.alpamayo.placement import place_on_card
from finetune.alpamayo.sampling import initial_noise, medoid
from finetune.checkpoint import LoadedModel, load_base
from finetune.engine.engine import Engine, PromptShape
from finetune.engine.fixed_decoder import UnsuitableError
from finetune.engine.frames import FramePatches
from finetune.engine.stage_clock import StageClock
from finetune.model_files.configuration_files import reasoning_room
from finetune.model_files.location import resolve_model
from finetune.policy import (
    CHALLENGE_FRAME_PX,
    FUTURE_STEPS,
    HISTORY_STEPS,
    Observation,
    Plan,
    PolicySettings,
    camera_of_each_image,
    cameras_of,
    frames_of,
    select_images,
)
from finetune.processing.images import patch_grid
from finetune.processing.processor import Encoded, pad_right

# Plans until nothing is made or recorded for the first time.
_WARM_UPS = 3
_LEAST_ROOM = 8  # words of its own that a reasoning needs after an instruction, its last ones included
# What an engine is made for: the prompt, and number, height and width of the frames.
_EngineKey = tuple[PromptShape, tuple[int, int, int]]


class AlpamayoPolicy:
    """Plans with an Alpamayo model folder, optionally with an adapter.

    The reasoning is decoded greedily. Noise is drawn per observation from its stamp and the seed, so a plan does not
    depend on which others were planned beside it; with the fast engine rounding does on what was said before. A text
    that has to begin with an instruction is written on greedily from there.

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
        engine: str = PolicySettings.engine,  # see finetune.policy.Engine
        samples: int = PolicySettings.samples,  # trajectories drawn, of which the medoid is driven
        reasoning_hz: float = PolicySettings.reasoning_hz,  # of new reasonings; 0 with every plan
        quantised: str = PolicySettings.quantised,  # see finetune.policy.Pack; once packed, a model stays so
    ) -> None:
        cameras_of(cameras)
        if flow_steps < 1 or noise_temperature < 0.0:
            raise MonoError(
                f"{flow_steps} flow steps at noise temperature {noise_temperature}", "at least 1 step, temperature >= 0"
            )
        if adapter is not None:  # rather now than after minutes of loading
            known = model_folder.folder if isinstance(model_folder, LoadedModel) else resolve_model(model_folder)
            check_belongs(adapter_facts(adapter), known, cameras)
        loaded = model_folder if isinstance(model_folder, LoadedModel) else load_base(model_folder, device, quantised)
        self.processor = loaded.processor
        self.model = loaded.model
        if adapter is not None:
            from finetune.adapters.lora import load_adapter

            load_adapter(loaded.model, adapter)
        self.model.eval()
        if quantised != "none":
            place_on_card(self.model, torch.device(device), four_bits=True, vision_on_card=True)
        pack_linears(self.model.vlm.model.language_model)
        pack_linears(self.model.expert)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()  # what was joined lies elsewhere now
        self.cameras = cameras
        self.flow_steps = flow_steps
        self.noise_temperature = noise_temperature
        self.seed = seed
        self.reasoning = reasoning
        self.max_reasoning_tokens = max_reasoning_tokens or reasoning_room(loaded.folder)
        self.samples = samples
        self._pace = ReasoningPace(reasoning_hz)
        self._draft = ReasoningDraft() if engine == "fast" else None
        # Fixed shapes and recorded launches are a GPU's gain; a CPU is as quick without.
        self._engines: dict[_EngineKey, Engine] | None = None
        if self._draft and self.model.device.type == "cuda":
            self._engines = {}

    @property
    def takes_instructions(self) -> bool:
        """Whether there is a reasoning that could begin with them."""
        return self.reasoning

    def plan(self, observation: Observation) -> Plan:
        """Plan for one observation."""
        return self.plan_many([observation])[0]

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        """Plan for several observations in one pass; ``timings_ms`` are those of the whole pass."""
        return [plan for plan, _ in self.plan_draws(observations, 0)]

    def forget(self) -> None:
        """Begin anew: what was said so far decides nothing any more, down to the last digit."""
        self._pace.forget()
        if self._draft:
            self._draft.forget()

    def warm_up(self) -> None:
        """Plan from black frames of the Challenge's camera, so that the first real plan is as quick as the rest."""
        width_px, height_px = CHALLENGE_FRAME_PX
        count = frames_of(self.cameras)
        black = {camera: np.zeros((count, height_px, width_px, 3), np.uint8) for camera in cameras_of(self.cameras)}
        for _ in range(_WARM_UPS):
            self.plan(Observation(0, black, np.zeros((HISTORY_STEPS, 3)), 0.0))
        self.forget()

    def _plan_alone(self, observation: Observation, engines: dict[_EngineKey, Engine]) -> Plan:
        """The plan of one kart by an :class:`finetune.engine.engine.Engine`, made where the shape is new."""
        clock = StageClock(self.model.device)
        images, cameras = select_images(observation, self.cameras), camera_of_each_image(self.cameras)
        if len({image.shape for image in images}) > 1:
            raise UnsuitableError("frames of different sizes")
        size = (len(images), images[0].shape[0], images[0].shape[1])
        grids = np.array([patch_grid(image.shape[0], image.shape[1], self.processor.images) for image in images])
        ids, _ = self.processor.tokens(grids, observation.history, None if self.reasoning else "", cameras)
        shape = PromptShape.of(ids, torch.from_numpy(grids), self.model.settings.vlm["image_token_id"])
        if (shape, size) not in engines:
            engines[shape, size] = Engine(
                self.model,
                shape,
                FramePatches(*size, self.processor.images, self.model.device),
                room=self.max_reasoning_tokens if self.reasoning else 0,
                flow_steps=self.flow_steps,
                cot_end_id=self.processor.cot_end_id,
            )
            clock = StageClock(self.model.device)
        engine = engines[shape, size]
        clock.lap("encode")
        engine.see(images)
        clock.lap("vision")
        beginnings = self._beginnings([observation])
        [draft], [forced] = self._drafts([observation], beginnings)
        choices = engine.prefill(ids, draft)
        clock.lap("prefill")
        tokens: list[list[int]] = []
        passes = 0
        if self.reasoning and self._draft:
            words, passes = engine.write(draft, choices, self._draft.after, forced)
            tokens = [words]
        clock.lap("decode")
        noise = self._noise([observation], 0)[0]
        actions = [engine.drive(one[None]) for one in noise]
        poses = self._poses([observation] * len(noise), torch.cat(actions))
        return self._plans([observation], beginnings, tokens, poses[None], passes, clock)[0]

    def encode(self, observation: Observation) -> Encoded:
        """The prompt of an observation; MonoError where it lacks a camera of the mode."""
        asked = None if self.reasoning else ""
        images, cameras = select_images(observation, self.cameras), camera_of_each_image(self.cameras)
        return self.processor.encode(images, observation.history, asked, cameras)

    def write(
        self,
        prefix: PrefixCache,
        drafts: Sequence[Sequence[int]] | None = None,
        forced: Sequence[Sequence[int]] | None = None,
    ) -> Generation:
        """The reasoning after a prefix that ends in drafts, greedily; ``forced`` are words to write at first."""
        return generate(
            self.model,
            prefix,
            cot_end_id=self.processor.cot_end_id,
            max_new_tokens=self.max_reasoning_tokens,
            forced=forced,
            drafts=drafts,
            expect=self._draft.after if self._draft else None,
        )

    @torch.no_grad()
    def plan_draws(
        self, observations: Sequence[Observation], draws: int, encoded: Sequence[Encoded] | None = None
    ) -> list[tuple[Plan, np.ndarray]]:
        """Plans as :meth:`plan_many` makes them and, from the same reasoning texts, plans drawn at noise temperature 1.

        Per observation its plan and the poses (draws, 64, 3) of the draws; a draw depends on seed, stamp and its number
        alone. With the prompts of :meth:`encode` given (``encoded``), frames are not looked at.

        Raises:
            MonoError: an observation lacks a camera of the mode, or has an instruction that cannot be taken.
        """
        if not observations:
            return []
        if self._engines is not None and len(observations) == 1 and draws == 0 and encoded is None:
            try:
                return [(self._plan_alone(observations[0], self._engines), np.zeros((0, FUTURE_STEPS, 3)))]
            except UnsuitableError as error:
                print(f"plans are computed operation by operation from here on: {error}", file=sys.stderr)
                self._engines = None
        clock = StageClock(self.model.device)
        prompts = encoded or [self.encode(observation) for observation in observations]
        beginnings = self._beginnings(observations)
        drafts, forced = self._drafts(observations, beginnings)
        rows = [
            torch.cat([prompt.input_ids, torch.tensor(draft, dtype=torch.int64)])
            for prompt, draft in zip(prompts, drafts, strict=True)
        ]
        input_ids = pad_right(rows, self.processor.pad_id)
        seen = pad_right([torch.ones_like(row) for row in rows], 0)
        pixels = torch.cat([prompt.pixel_values for prompt in prompts])
        grids = torch.cat([prompt.grid_thw for prompt in prompts])
        clock.lap("encode")
        device = self.model.device
        vision = self.model.encode_images(pixels.to(device), grids.to(device))
        clock.lap("vision")
        prefix = self.model.run_prefix(input_ids.to(device), seen.to(device), vision, grids)
        clock.lap("prefill")
        tokens: list[list[int]] = []
        passes = 0
        if self.reasoning:
            answer = self.write(prefix, drafts, forced)
            prefix, passes, tokens = answer.prefix, answer.passes, answer.tokens
        clock.lap("decode")
        noise = self._noise(observations, draws)
        actions = self.model.sample_actions(prefix, noise.flatten(0, 1).to(device), self.flow_steps)
        poses = self._poses([o for o in observations for _ in range(noise.shape[1])], actions)
        poses = poses.reshape(len(observations), -1, FUTURE_STEPS, 3)
        plans = self._plans(observations, beginnings, tokens, poses[:, : self.samples], passes, clock)
        return list(zip(plans, poses[:, self.samples :], strict=True))

    def _beginnings(self, observations: Sequence[Observation]) -> list[list[int]]:
        """Per row the words that an instruction has the reasoning begin with; none without one."""
        texts = [read_instruction(observation.instruction).lead_in for observation in observations]
        if any(texts) and not self.reasoning:
            raise MonoError("an instruction to a model that does not reason", "reasoning:=true", "leave either out")
        return [self._beginning(text) if text else [] for text in texts]

    def check_instruction(self, text: str) -> None:
        """Raise MonoError for an instruction that is not understood, or that leaves no room for a reasoning."""
        if lead_in := read_instruction(text).lead_in:
            self._beginning(lead_in)

    def _beginning(self, lead_in: str) -> list[int]:
        words = self.processor.tokenizer.encode_beginning(lead_in)
        if len(words) + _LEAST_ROOM > self.max_reasoning_tokens:
            found = f"the instruction {lead_in.strip()!r}, {len(words)} tokens to this model, "
            found += f"where {self.max_reasoning_tokens} are all there is"
            do = "say less, or say it in the language of the model's training, whose words are a token each"
            raise MonoError(found, f"at least {_LEAST_ROOM} left for a reasoning after it", do)
        return words

    def _drafts(
        self, observations: Sequence[Observation], beginnings: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Per row the words that are read along with the prompt, and those that are written whatever is seen."""
        nothing: list[list[int]] = [[] for _ in observations]
        if not self.reasoning:
            return nothing, nothing
        stamps_ns = [observation.stamp_ns for observation in observations]
        return drafts_and_forced(self._draft, self._pace, stamps_ns, beginnings)

    def _plans(
        self,
        observations: Sequence[Observation],
        beginnings: Sequence[Sequence[int]],
        tokens: Sequence[Sequence[int]],
        poses: np.ndarray,  # (B, samples, 64, 3)
        passes: int,
        clock: StageClock,
    ) -> list[Plan]:
        """Plans of what a pass gave; what was said is remembered."""
        stamps_ns = [observation.stamp_ns for observation in observations]
        ages_s = self._pace.said(stamps_ns, tokens, beginnings) if tokens else [0.0] * len(observations)
        if self._draft and tokens:
            self._draft.learn(tokens)
        reasonings = [self.processor.decode_reasoning(words) for words in tokens] or [""] * len(observations)
        driven = [draws[medoid(draws)] for draws in poses]
        clock.lap("action")
        times_ns = clock.began_ns, time.monotonic_ns()
        return [
            Plan(stamp_ns, path, reasoning, dict(clock.laps_ms), age_s, *times_ns, passes)
            for stamp_ns, path, reasoning, age_s in zip(stamps_ns, driven, reasonings, ages_s, strict=True)
        ]

    def _noise(self, observations: Sequence[Observation], draws: int) -> Tensor:
        """(B, samples + draws, 64, 2), see :func:`finetune.alpamayo.sampling.initial_noise`."""
        stamps_ns = [observation.stamp_ns for observation in observations]
        return initial_noise(self.seed, stamps_ns, self.samples, self.noise_temperature, draws)

    def _poses(self, observations: Sequence[Observation], actions: Tensor) -> np.ndarray:
        """Poses (B, 64, 3); the wheel speed at t0, where known, replaces the estimate from poses."""
        space = self.model.action_space
        history = torch.as_tensor(np.stack([o.history for o in observations]))
        # What needs no actions first: a GPU may still be at work on them.
        v0 = space.estimate_v0(history)
        given = [np.nan if o.speed_mps is None else o.speed_mps for o in observations]
        speeds = torch.tensor(given, dtype=v0.dtype)
        v0 = torch.where(speeds.isfinite(), speeds, v0)
        return np.asarray(space.action_to_traj(history, actions.cpu().double(), v0=v0).numpy())
