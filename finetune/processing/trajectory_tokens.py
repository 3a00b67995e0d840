"""Trajectories as words: history differences and future actions in bins.

The history's 48 words are part of every prompt. The future's 128 words serve language-only training; driving uses
the action expert instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from collector.common.errors import MonoError
from finetune.alpamayo.action_space import ActionSpace
from finetune.alpamayo.configuration import FutureTokenizerConfig, HistoryTokenizerConfig


def _to_bins(values: Tensor, low: Tensor, high: Tensor, num_bins: int) -> Tensor:
    scaled = (values - low) / (high - low) * (num_bins - 1)
    return scaled.round().long().clamp(0, num_bins - 1)


def _from_bins(bins: Tensor, low: Tensor, high: Tensor, num_bins: int) -> Tensor:
    return bins.to(low) / (num_bins - 1) * (high - low) + low


class HistoryTokenizer:
    """16 positions as 48 bins.

    The path is prefixed by the origin before differencing, so the first triple is the oldest ABSOLUTE position; it
    saturates above about 2.7 m/s. The released model was trained with that, so it stays.
    """

    def __init__(self, config: HistoryTokenizerConfig) -> None:
        self.config = config

    def encode(self, xyz: Tensor) -> Tensor:
        """Bins (..., 48) in 0..num_bins-1 of history positions (..., 16, 3), metres in the ego frame at t0."""
        low, high = self._limits(xyz)
        steps = torch.diff(torch.cat([torch.zeros_like(xyz[..., :1, :]), xyz], dim=-2), dim=-2)
        return _to_bins(steps, low, high, self.config.num_bins).flatten(-2)

    def decode(self, bins: Tensor) -> Tensor:
        """Positions (..., 16, 3) of bins (..., 48), up to rounding and saturation."""
        low, high = self._limits(torch.empty(0, device=bins.device))
        return _from_bins(bins.unflatten(-1, (-1, 3)), low, high, self.config.num_bins).cumsum(-2)

    def _limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.config.ego_xyz_min), like.new_tensor(self.config.ego_xyz_max)


class FutureTokenizer:
    """64 actions as 128 bins, acceleration and curvature alternating."""

    def __init__(self, config: FutureTokenizerConfig) -> None:
        self.config = config
        self.action_space = ActionSpace(config.action_space_cfg, dtype=torch.float64)

    def encode(self, history: Tensor, future: Tensor) -> Tensor:
        """Bins (..., 128) of a future (..., 64, 3), given the history (..., 16, 3)."""
        actions = self.action_space.traj_to_action(history, future)
        low, high = self._limits(actions)
        return _to_bins(actions, low, high, self.config.num_bins).flatten(-2)

    def decode(self, history: Tensor, bins: Tensor) -> Tensor:
        """Poses (..., 64, 3) of bins (..., 128).

        Raises:
            MonoError: words are missing or are no bins. A missing word taken as bin 0 would be full braking.
        """
        words = 2 * self.config.action_space_cfg.n_waypoints
        if bins.shape[-1] != words or bool(((bins < 0) | (bins >= self.config.num_bins)).any()):
            raise MonoError(
                f"a trajectory of {bins.shape[-1]} words in {int(bins.min()) if bins.numel() else 0}.."
                f"{int(bins.max()) if bins.numel() else 0}",
                f"{words} words in 0..{self.config.num_bins - 1}",
                "let the model finish its trajectory, or drive with the action expert",
            )
        low, high = self._limits(history)
        actions = _from_bins(bins.unflatten(-1, (-1, 2)), low, high, self.config.num_bins)
        return self.action_space.action_to_traj(history, actions)

    def _limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.config.dims_min), like.new_tensor(self.config.dims_max)
