"""One kart's plan on fixed shapes: see, read the prompt with its draft, read what is missing, drive.

Every prompt of a drive has the same length and the same images, so each stage is recorded once
(:mod:`finetune.engine.recorded`) and replayed. The memory holds a column per word; the expert's waypoints take the
columns behind the last word, and the next pass writes over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.alpamayo.cache import VisionFeatures
from finetune.alpamayo.flow_matching import euler_times, integrate
from finetune.alpamayo.generation import WORDS_PER_PASS, Expectation, ReasoningRules, WrittenRow, likeliest
from finetune.alpamayo.model import AlpamayoR1
from finetune.alpamayo.placement import HostEmbedding
from finetune.alpamayo.rope import prefix_positions
from finetune.alpamayo.vision import encode_equal_images
from finetune.engine.fixed_decoder import FixedDecoder, UnsuitableError
from finetune.engine.frames import FramePatches
from finetune.engine.operations import Operations
from finetune.engine.recorded import Recorded, shared_pool

# Drafts are padded to the next of these lengths; more words than the last are verified by later passes.
DRAFT_LENGTHS = (0, 16, 32, 48, 64)
# A memory's length is a multiple of this, since attention may read it in blocks of so many columns.
_COLUMN_BLOCK = 128


@dataclass(frozen=True)
class PromptShape:
    """What all prompts of a drive have in common.

    Attributes:
        image_places: which of its words are an image's.
        grids: patches (frames, rows, columns) of each image, all alike.
    """

    image_places: tuple[int, ...]
    length: int
    grids: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, input_ids: Tensor, grid_thw: Tensor, image_token_id: int) -> PromptShape:
        """The shape of a prompt (L,) with images of these grids (n, 3)."""
        places = (input_ids == image_token_id).nonzero()[:, 0]
        return cls(tuple(places.tolist()), len(input_ids), tuple(map(tuple, grid_thw.tolist())))


@dataclass(frozen=True)
class EngineAnswer:
    """What one plan is made of: the reasoning's ids, the passes they took, and actions (K, 64, 2), float32."""

    tokens: list[int]
    passes: int
    actions: Tensor


class Engine:
    """Plans of one kart, for prompts of one shape.

    Args:
        model: on the device where it runs; its decoders' matrices packed.
        shape: of the prompts.
        frames: what makes patches of the frames.
        room: words of a reasoning at most; 0 for prompts that ask for none.
        flow_steps: Euler steps.
        cot_end_id: id of ``<|cot_end|>``.

    Raises:
        UnsuitableError: weights that are no plain matrices, or images that are not all alike.
    """

    def __init__(
        self,
        model: AlpamayoR1,
        shape: PromptShape,
        frames: FramePatches,
        *,
        room: int,
        flow_steps: int,
        cot_end_id: int,
    ) -> None:
        if len(set(shape.grids)) != 1 or shape.grids[0][0] != 1:
            raise UnsuitableError("images of different sizes")
        self.shape, self._model, self._frames, self._steps = shape, model, frames, flow_steps
        self._rules = ReasoningRules(room, cot_end_id, model.settings.token_ids.future_start)
        self._language = model.vlm.model.language_model
        device = model.device
        operations = _operations(device, model)
        self._reader = FixedDecoder(self._language, operations)
        self._driver = FixedDecoder(model.expert, operations)
        self._operations = operations

        longest = max(length for length in DRAFT_LENGTHS if length < room + DRAFT_LENGTHS[1])
        waypoints = model.settings.action_space.n_waypoints
        columns = -(-(shape.length + room + WORDS_PER_PASS + waypoints) // _COLUMN_BLOCK) * _COLUMN_BLOCK
        text, like = self._language.config, self._language.norm.weight
        memory = like.new_zeros(
            (text.num_hidden_layers, 2, text.num_key_value_heads, columns, text.head_dim), dtype=like.dtype
        )
        self._memory = [(keys, values) for keys, values in memory]
        self._grids = torch.tensor(shape.grids)
        self._rotary = self._tables(columns)

        # What the recorded stages read: written into before each replay.
        width = text.hidden_size
        self._rows = like.new_zeros(shape.length + longest, width)
        self._words = like.new_zeros(WORDS_PER_PASS, width)
        self._filled = torch.full((1,), shape.length, dtype=torch.int64, device=device)
        self._noise = torch.zeros(1, waypoints, 2, device=device)
        with torch.no_grad():
            times = torch.tensor(euler_times(flow_steps), device=device)
            self._time_features = model.action_in_proj.timestep_fourier_encoder(times).split(1)
        self._image_places = torch.tensor(shape.image_places, device=device)
        self._vision: VisionFeatures | None = None
        pool = shared_pool(device)

        def recorded(work: Callable[[], Any]) -> Recorded:
            return Recorded(work, device, pool)

        with torch.inference_mode():
            self._see_stage = recorded(self._see)
            self._vision = self._see_stage()
            lengths = [length for length in DRAFT_LENGTHS if length <= longest]
            self._prefill_stages = {length: recorded(partial(self._prefill, length)) for length in lengths}
            self._read_stage = recorded(self._read) if room else None
            self._drive_stage = recorded(self._drive)

    @torch.inference_mode()
    def see(self, images: Sequence[NDArray[np.uint8]]) -> None:
        """Look at the images (H, W, 3), RGB."""
        self._frames.put(images)
        self._vision = self._see_stage()

    @torch.inference_mode()
    def prefill(self, input_ids: Tensor, draft: Sequence[int]) -> list[int]:
        """Read the prompt (L,) and the draft behind it: the model's word after each, from the prompt's last one on."""
        size = next(
            (length for length in sorted(self._prefill_stages) if length >= len(draft)), max(self._prefill_stages)
        )
        draft = draft[:size]
        self._look_up(torch.cat([input_ids, torch.tensor(draft, dtype=torch.int64)]), self._rows)
        self._filled.fill_(self.shape.length)
        chosen: list[int] = self._prefill_stages[size]().tolist()
        return chosen[: len(draft) + 1]

    @torch.inference_mode()
    def write(
        self, draft: Sequence[int], choices: Sequence[int], expect: Expectation | None, forced: Sequence[int] = ()
    ) -> tuple[list[int], int]:
        """The reasoning, from what :meth:`prefill` answered to a draft; its ids, and the passes it took."""
        row, passes = WrittenRow(self._rules, forced), 0
        filled = self.shape.length + row.take(draft[: len(choices) - 1], choices)
        while row.unread is not None and self._read_stage is not None:
            words = row.to_read(expect)
            self._look_up(torch.tensor(words), self._words)
            self._filled.fill_(filled)
            filled += row.has_read(words, self._read_stage().tolist())
            passes += 1
        self._filled.fill_(filled)
        return row.words, passes

    @torch.inference_mode()
    def drive(self, noise: Tensor) -> Tensor:
        """Actions (1, 64, 2), where the model is, from noise of that shape; a GPU may still be at work on them."""
        self._noise.copy_(noise, non_blocking=True)
        actions: Tensor = self._drive_stage().clone()
        return actions

    def _look_up(self, ids: Tensor, rows: Tensor) -> None:
        """The words' embeddings into the first rows; not recorded, since the table may lie beside the card."""
        table = self._language.embed_tokens
        rows[: len(ids)].copy_(table(ids if isinstance(table, HostEmbedding) else ids.to(rows.device)))

    # -- the stages as they are recorded ---------------------------------------------------------------------------

    def _see(self) -> VisionFeatures:
        visual, turn = self._model.vlm.model.visual, self._operations.turn
        return VisionFeatures(*encode_equal_images(visual, self._frames.patches(), self._grids, turn))

    def _prefill(self, drafted: int) -> Tensor:
        if self._vision is None:
            raise ValueError("nothing was seen")
        count, length = self.shape.length + drafted, self.shape.length
        places = torch.arange(count, device=self._rows.device)
        hidden = self._rows[:count].clone()
        hidden.index_copy_(0, self._image_places, self._vision.embeds.to(hidden.dtype))
        deepstack = [layer.to(hidden.dtype) for layer in self._vision.deepstack]
        last = self._reader.run(
            hidden,
            self._rotary,
            places,
            self._memory,
            image_places=self._image_places,
            deepstack=deepstack,
            wanted=slice(length - 1, count),
        )
        return self._choose(last)

    def _read(self) -> Tensor:
        places = self._filled + torch.arange(WORDS_PER_PASS, device=self._filled.device)
        limits = (places + 1).to(torch.int32)
        hidden = self._words.clone()
        return self._choose(self._reader.run(hidden, self._rotary, places, self._memory, limits))

    def _drive(self) -> Tensor:
        model, waypoints, project = self._model, self._noise.shape[1], self._model.action_in_proj
        places = self._filled + torch.arange(waypoints, device=self._filled.device)
        limits = (self._filled + waypoints).to(torch.int32).expand(waypoints).contiguous()
        like = model.expert.norm.weight

        features = iter(self._time_features)

        def velocity(x: Tensor, _: Tensor) -> Tensor:
            hidden = project.embed(x, next(features)).to(like.dtype)[0]
            hidden = self._driver.run(hidden, self._rotary, places, self._memory, limits)
            predicted: Tensor = model.action_out_proj(hidden.to(model.action_out_proj.weight.dtype)).float()[None]
            return predicted

        return integrate(velocity, self._noise, self._steps)

    def _choose(self, hidden: Tensor) -> Tensor:
        """The model's next word after each row; words of trajectories are forbidden."""
        parts = [self._operations.product(few, self._model.vlm.lm_head.weight) for few in hidden.split(64)]
        # Rounded as the head's own output is, so that words that are equally likely there are so here.
        logits = torch.cat([part.sum(0) for part in parts]).to(hidden.dtype)
        return likeliest(logits, self._model.settings)

    def _tables(self, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (C, d / 2) of every column: the prompt's words, then text that counts on."""
        settings, shape = self._model.settings, self.shape
        image_id = settings.vlm["image_token_id"]
        ids = torch.zeros(1, columns, dtype=torch.int64)
        ids[0, list(shape.image_places)] = image_id
        merge = settings.vlm["vision_config"]["spatial_merge_size"]
        positions, _ = prefix_positions(ids, torch.ones_like(ids), self._grids, image_id, merge)
        like = self._language.norm.weight
        with torch.no_grad():
            cos, sin = self._language.rotary_emb(like, positions.to(like.device))
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def _operations(device: torch.device, model: AlpamayoR1) -> Operations:
    """Kernels where there is a GPU and Triton, plain PyTorch elsewhere."""
    if device.type != "cuda" or model.expert.norm.weight.dtype == torch.float32:
        return Operations()
    try:
        from finetune.engine.triton_operations import TritonOperations
    except ImportError:
        return Operations()
    return TritonOperations(device)
