"""Four-camera training data of the tiny base: shards of rendered frames, and batches cut from them.

A shard is one course as an uncompressed ``.npz``: ``frames`` (F, 4, H, W, 3) uint8 already cropped and resized by
the one preprocessing path, cameras in :data:`finetune.policy.CAMERA_ORDER`; ``frame_index`` (N,) the frame at
t0 of each sample, whose three predecessors are the frames at 10 Hz before it; ``history`` (N, 16, 3) and ``future``
(N, 64, 3) ego poses; ``speed_mps`` (N,).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from collector.common.errors import MonoError
from collector.geometry.poses import mirror_poses
from collector.reasoning.consistency import measure_motion
from collector.reasoning.writing import write_reasoning
from finetune.policy import CAMERA_ORDER, FRAMES_PER_CAMERA

# Which camera stands in each place when left and right are exchanged.
MIRRORED_CAMERAS = [CAMERA_ORDER.index(name) for name in ("cross_right", "front", "cross_left", "front_tele")]
SHARD_KEYS = ("frames", "frame_index", "history", "future")


class Rig(NamedTuple):
    """Cameras in the order of CAMERA_ORDER, and the newest frames of each that are shown."""

    cameras: tuple[str, ...]
    frames: int = FRAMES_PER_CAMERA

    @property
    def images(self) -> int:
        """Images of one sample."""
        return len(self.cameras) * self.frames


# The released model was trained on several sensor configurations. Ours are these; a camera's place in the prompt is
# all that names it, so every rig keeps the order of CAMERA_ORDER, and none is the front camera alone.
FULL_RIG = Rig(CAMERA_ORDER)
_WITH_TELE = (("cross_left", "front", "front_tele"), ("front", "cross_right", "front_tele"), ("front", "front_tele"))
_WITHOUT_TELE = (("cross_left", "front"), ("front", "cross_right"))
# A small rig is drawn from these, one without the tele once in 125 draws: where those are common, the front camera
# alone drives at once, and nothing is left for finetuning to mend.
SMALL_RIGS = 165 * tuple(Rig(cameras, frames) for cameras in _WITH_TELE for frames in (1, FRAMES_PER_CAMERA))
SMALL_RIGS += 2 * tuple(Rig(cameras, frames) for cameras in _WITHOUT_TELE for frames in (1, FRAMES_PER_CAMERA))


def patchify(images: Tensor, patch: int = 16, merge: int = 2, temporal: int = 2) -> Tensor:
    """Cropped frames to the flattened patches of Qwen's processor, on any device.

    Args:
        images: (n, H, W, 3) uint8, H and W multiples of ``patch * merge``.

    Returns:
        (n * H/patch * W/patch, 3 * temporal * patch * patch) float32 in [-1, 1], merge block by merge block,
        the still image repeated over the temporal axis.
    """
    count, height, width, _ = images.shape
    rows, columns = height // patch, width // patch
    scaled = images.float() / 127.5 - 1.0
    blocks = scaled.view(count, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    patches = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6)
    return (
        patches.unsqueeze(6)
        .expand(-1, -1, -1, -1, -1, -1, temporal, -1, -1)
        .reshape(count * rows * columns, 3 * temporal * patch * patch)
    )


@dataclass
class Shards:
    """All samples of a folder of shards and their mirror images, frames on the training device.

    Attributes:
        frames: (F, 4, H, W, 3) uint8.
        frame_index: (N,) int64.
        history, future: (N, 16, 3) and (N, 64, 3) float64.
        course: (N,) int64, which shard a sample is of.
        mirrored: (N,) bool, the sample is seen in a mirror: left and right change places.
        reasoning: N texts, written from the future by the one writer.
    """

    frames: Tensor
    frame_index: Tensor
    course: Tensor
    mirrored: Tensor
    history: NDArray[np.float64]
    future: NDArray[np.float64]
    reasoning: list[str]

    def __len__(self) -> int:
        return len(self.reasoning)

    def images(self, chosen: Tensor, rig: Rig = FULL_RIG) -> Tensor:
        """(B * rig.images, H, W, 3) frames of samples as a rig shows them, camera-major, oldest to newest."""
        offsets = torch.arange(1 - rig.frames, 1, device=self.frames.device)
        index = self.frame_index[chosen][:, None] + offsets
        frames = self.frames[index]  # (B, times, 4 cameras, H, W, 3)
        flip = self.mirrored[chosen]
        frames[flip] = frames[flip][:, :, MIRRORED_CAMERAS].flip(-2)
        if rig.cameras != CAMERA_ORDER:
            frames = frames[:, :, [CAMERA_ORDER.index(name) for name in rig.cameras]]
        return frames.transpose(1, 2).reshape(-1, *self.frames.shape[2:])


def load_shards(folder: Path, device: torch.device, seed: int) -> Shards:
    """Read every shard of a folder.

    Raises:
        MonoError: no shard, or one that is not of this form.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise MonoError(
            f"no .npz shard in {folder}", "shards of rendered courses", "run `python -m benchmarks.tiny_base.render`"
        )
    parts: dict[str, list[Any]] = {key: [] for key in SHARD_KEYS}
    count = 0
    for path in tqdm(paths, desc="load shards", unit="course", dynamic_ncols=True):
        with np.load(path) as shard:
            missing = [key for key in SHARD_KEYS if key not in shard]
            if missing:
                raise MonoError(f"{path} lacks {', '.join(missing)}", ", ".join(SHARD_KEYS), "render it again")
            frames = torch.from_numpy(shard["frames"])
            if frames.shape[1] != len(CAMERA_ORDER):
                raise MonoError(f"{path} has {frames.shape[1]} cameras", f"{len(CAMERA_ORDER)}", "render it again")
            parts["frames"].append(frames)
            parts["frame_index"].append(torch.from_numpy(shard["frame_index"].astype(np.int64)) + count)
            parts["history"].append(shard["history"])
            parts["future"].append(shard["future"])
            count += len(frames)
    history, future = np.concatenate(parts["history"]), np.concatenate(parts["future"])
    history, future = (np.concatenate([poses, mirror_poses(poses)]) for poses in (history, future))
    course = torch.cat(
        [torch.full((len(part),), number, dtype=torch.int64) for number, part in enumerate(parts["frame_index"])]
    )
    return Shards(
        frames=torch.cat(parts["frames"]).to(device),
        frame_index=torch.cat(parts["frame_index"]).to(device).repeat(2),
        course=course.repeat(2),
        mirrored=torch.arange(2 * len(course), device=device) >= len(course),
        history=history,
        future=future,
        reasoning=[write_reasoning(measure_motion(path), seed + index) for index, path in enumerate(future)],
    )
