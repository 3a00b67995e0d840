"""Images, history and reasoning to what the model eats; ids back to text.

The words around them are the interface the released model was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from collector.common.errors import MonoError
from finetune.alpamayo.configuration import ALPAMAYO_1_5, AlpamayoConfig, HistoryTokenizerConfig
from finetune.processing.images import ImageSettings, preprocess, read_image_settings, write_image_settings
from finetune.processing.tokenizer import Tokenizer

SYSTEM = "You are a driving assistant that generates safe and accurate actions."
ASK_REASONING = "output the chain-of-thought reasoning of the driving process"
ASK_FUTURE = "output the future trajectory"

HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
TURN = "<|im_end|>\n<|im_start|>assistant\n"

# What Alpamayo 1.5 calls its cameras, by our names of them.
DISPLAY_NAMES = {
    "cross_left": "Front left camera",
    "front": "Front camera",
    "cross_right": "Front right camera",
    "rear_left": "Rear left camera",
    "rear_tele": "Rear camera",
    "rear_right": "Rear right camera",
    "front_tele": "Front telephoto camera",
}


@dataclass(frozen=True)
class Encoded:
    """One prompt."""

    input_ids: Tensor  # (L,) int64, history bins inserted
    label_mask: Tensor  # (L,) bool, true on reasoning, its end and the trajectory's start
    pixel_values: Tensor  # (P, 1536) float32 patches of all images
    grid_thw: Tensor  # (n, 3) int64 patch grids


class Processor:
    """Encoder and decoder of one model; the tokenizer is extended where its words are missing.

    Raises:
        MonoError: tokenizer and configuration disagree.
    """

    def __init__(self, config: AlpamayoConfig, tokenizer: Tokenizer, images: ImageSettings | None = None) -> None:
        self.config = config
        self.tokenizer = tokenizer.extend(config.traj_vocab_size, config.model_type)
        self.images = images or ImageSettings(config.min_pixels, config.max_pixels)
        self._check_ids()
        self.pad_id = tokenizer.id_of("<|endoftext|>")
        self.cot_start_id = tokenizer.id_of("<|cot_start|>")
        self.cot_end_id = tokenizer.id_of("<|cot_end|>")
        self._image_id = tokenizer.id_of("<|image_pad|>")
        self._history_id = tokenizer.id_of("<|traj_history|>")

    @classmethod
    def from_folder(cls, folder: Path | str, config: AlpamayoConfig) -> Processor:
        """Processor of a model folder."""
        images = read_image_settings(folder, config.min_pixels, config.max_pixels)
        backbone = str(config.raw.get("vlm_name_or_path", ""))
        return cls(config, Tokenizer.from_folder(folder, backbone), images)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer and, where it differs from the official way, the image settings."""
        self.tokenizer.save(folder)
        if self.images != ImageSettings(self.config.min_pixels, self.config.max_pixels):
            write_image_settings(self.images, folder)

    def encode(
        self,
        images: Sequence[NDArray[np.uint8]],  # (H, W, 3) uint8 RGB, camera-major, oldest to newest
        history: ArrayLike,  # (16, 3) poses [x_m, y_m, yaw_rad] ending at the origin
        reasoning: str | None = None,  # see prompt_text
        # Camera of each image, see finetune.policy.camera_of_each_image. Alpamayo 1.5 names them in its prompt and
        # needs them; Alpamayo 1 does not look at them.
        cameras: Sequence[str] | None = None,
    ) -> Encoded:
        """One prompt.

        Raises:
            MonoError: unusable images, history, text or cameras.
        """
        patches, grids = preprocess(images, self.images)
        ids, mask = self.tokens(grids, history, reasoning, cameras)
        return Encoded(ids, mask, torch.from_numpy(patches), torch.from_numpy(grids))

    def tokens(
        self,
        grid_thw: ArrayLike,
        history: ArrayLike,
        reasoning: str | None = None,
        cameras: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Ids (L,) and label mask (L,) of a prompt whose images have these patch grids (n, 3); see :meth:`encode`."""
        counts = (np.asarray(grid_thw).prod(axis=1) // self.images.merge_size**2).tolist()
        before = self._before_images(cameras, len(counts))
        ids, learned = self.prompt_ids(counts, self.history_ids(history), reasoning, before)
        mask = torch.zeros(len(ids), dtype=torch.bool)
        if learned:
            mask[-learned:] = True
        return torch.tensor(ids), mask

    def prompt_ids(
        self,
        image_tokens: Sequence[int],
        history_ids: Sequence[int],
        reasoning: str | None,
        before_images: Sequence[str] | None = None,
    ) -> tuple[list[int], int]:
        """Ids of a prompt with the history inserted, see :func:`prompt_text`, and how many of the last are learned.

        These are the reasoning, its end, and the trajectory's start.
        """
        learned = len(self.tokenizer.encode_plain(reasoning)) + 2 if reasoning else 0
        counts = iter(image_tokens)
        ids: list[int] = []
        # Placeholders are repeated as ids: as words, those of sixteen images take milliseconds to tokenise.
        for index in self.tokenizer.encode(prompt_text([1] * len(image_tokens), 1, reasoning, before_images)):
            if index == self._image_id:
                ids += [index] * next(counts)
            elif index == self._history_id:
                ids += history_ids
            else:
                ids.append(index)
        return ids, learned

    def _before_images(self, cameras: Sequence[str] | None, images: int) -> list[str] | None:
        """Alpamayo 1.5's words before each image; None for Alpamayo 1, which has none."""
        if self.config.model_type != ALPAMAYO_1_5:
            return None
        if cameras is None or len(cameras) != images or not set(cameras) <= set(DISPLAY_NAMES):
            found = f"{images} images for Alpamayo 1.5 from the cameras {cameras if cameras is None else list(cameras)}"
            expected = "the camera of each image, of " + ", ".join(DISPLAY_NAMES)
            raise MonoError(found, expected, "pass cameras=camera_of_each_image(mode), since its prompt names them")
        return captions(cameras)

    def history_ids(self, history: ArrayLike) -> list[int]:
        """48 vocabulary ids of a history (16, 3): three bins of each step, the road flat.

        The path is prefixed by the origin before differencing, so the first triple is the oldest ABSOLUTE position; it
        saturates above about 2.7 m/s. The released model was trained with that, so it stays.
        """
        poses = np.asarray(history, dtype=np.float64)
        if poses.ndim != 2 or poses.shape[1] != 3 or len(poses) * 3 != self.config.tokens_per_history_traj:
            raise MonoError(f"a history of shape {poses.shape}", f"({self.config.tokens_per_history_traj // 3}, 3)")
        xyz = torch.tensor(poses, dtype=torch.float32)
        xyz[:, 2] = 0.0
        return (history_bins(xyz, self.config.history_tokenizer) + self.config.history_token_start_idx).tolist()

    def decode_reasoning(self, ids: Sequence[int]) -> str:
        """The reasoning in generated ids: what stands before the first ``<|cot_end|>``; "" where there is none."""
        ids = list(ids)
        if self.cot_end_id not in ids:
            return ""
        reasoning = ids[: ids.index(self.cot_end_id)]
        if self.cot_start_id in reasoning:
            reasoning = reasoning[len(reasoning) - reasoning[::-1].index(self.cot_start_id) :]
        return self.tokenizer.decode(reasoning).strip()

    def _check_ids(self) -> None:
        expected = {
            "traj_token_start_idx": (self.config.traj_token_start_idx, self.tokenizer.id_of("<i0>")),
            "traj_token_ids": (self.config.token_ids, self.tokenizer.trajectory_token_ids()),
            "image_token_id": (self.config.vlm["image_token_id"], self.tokenizer.id_of("<|image_pad|>")),
        }
        for name, (configured, found) in expected.items():
            if configured != found:
                what = f"config.json says {name} {configured}, the tokenizer {found}"
                raise MonoError(what, "one and the same vocabulary", "use the tokenizer that belongs to this model")
        if len(self.tokenizer) > self.config.vocab_size:
            what = f"a tokenizer of {len(self.tokenizer)} words"
            raise MonoError(what, f"at most vocab_size {self.config.vocab_size}")


def request(with_reasoning: bool) -> str:
    """The sentence that asks for reasoning and trajectory, or for the trajectory alone."""
    wanted = [ASK_REASONING, ASK_FUTURE] if with_reasoning else [ASK_FUTURE]
    return ", then ".join(wanted) + "."


def captions(cameras: Sequence[str]) -> list[str]:
    """Alpamayo 1.5's words before each image: the camera before its first frame, and the frame's number before each."""
    texts: list[str] = []
    frame = 0
    for camera, previous in zip(cameras, [None, *cameras], strict=False):
        frame = frame + 1 if camera == previous else 0
        texts.append(("" if frame else f"{DISPLAY_NAMES[camera]}: ") + f"frame {frame} ")
    return texts


def prompt_text(
    image_tokens: Sequence[int],  # language-model tokens of each image
    history_tokens: int = 48,  # placeholders of the history
    # None ends at ``<|cot_start|>``; "" asks for the trajectory alone and ends at ``<|traj_future_start|>``; a text is
    # written out, followed by ``<|cot_end|><|traj_future_start|>``.
    reasoning: str | None = None,
    before_images: Sequence[str] | None = None,  # the words before each image, see `captions`; None writes none
) -> str:
    """The prompt as one string, placeholders included."""
    images = "".join(
        f"{words}<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
        for words, count in zip(before_images or [""] * len(image_tokens), image_tokens, strict=False)
    )
    history = f"<|traj_history_start|>{'<|traj_history|>' * history_tokens}<|traj_history_end|>"
    if reasoning == "":
        answer = "<|traj_future_start|>"
    else:
        answer = "<|cot_start|>" + (f"{reasoning}<|cot_end|><|traj_future_start|>" if reasoning else "")
    return HEAD + images + history + request(reasoning != "") + TURN + answer


def history_bins(xyz: Tensor, config: HistoryTokenizerConfig) -> Tensor:
    """Bins (..., 48) in 0..num_bins-1 of history positions (..., 16, 3), metres in the ego frame at t0."""
    low, high = xyz.new_tensor(config.ego_xyz_min), xyz.new_tensor(config.ego_xyz_max)
    steps = torch.diff(torch.cat([torch.zeros_like(xyz[..., :1, :]), xyz], dim=-2), dim=-2)
    scaled = (steps - low) / (high - low) * (config.num_bins - 1)
    return scaled.round().long().clamp(0, config.num_bins - 1).flatten(-2)


def pad_right(rows: Sequence[Tensor], fill: float, multiple: int = 1) -> Tensor:
    """Rows (L,) of different lengths side by side, (B, L'), filled up to a multiple of so many words."""
    length = -(-max(len(row) for row in rows) // multiple) * multiple
    out = torch.full((len(rows), length), fill, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out
