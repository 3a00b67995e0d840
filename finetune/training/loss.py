"""The joint loss: what the model says and where it drives, through one prefix pass.

Four terms, kept apart row by row:

- text: cross-entropy over the reasoning's tokens.
- flow: mean squared error of the predicted vector field in the normalised action space (acceleration and curvature
  over their standard deviations), the loss Alpamayo-R1's expert was trained with. Sampling integrates exactly this
  field, and in these units an error of the pedal and one of the wheel weigh alike at any speed.
- xy: mean squared error, in square metres, of the path decoded from a one-step estimate of the clean actions. Off by
  default.
- contrast: a hinge on what the flow loss is under the text of another future of the same frame, from the same noise: it
  has to be worse than under the own text by a margin. What the picture alone allows is alike under both, so only the
  text can make the difference. Off by default, and nothing where no other text of the frame is in the pass.

A flow error is no xy error. With e_a, e_k the errors of acceleration and curvature in standard deviations s_a, s_k, a
kart at speed v is off by about s_a e_a t^2 / 2 along the path and s_k e_k v^2 t^2 / 2 across it after t seconds of a
constant error: an error early in the horizon moves every later waypoint and one at its end none, where the flow loss
counts both alike. The xy term says so, but its gradient comes through a double integration, is dominated by the far
end, and at an early flow time judges an estimate that cannot be good yet. ADE and FDE are the evaluation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from collector.common.errors import MonoError
from finetune.alpamayo import flow_matching
from finetune.alpamayo.cache import PrefixCache
from finetune.training.batches import Batch
from finetune.training.settings import LoopSettings


@dataclass(frozen=True)
class RowLosses:
    """Losses of each row of a batch."""

    text: Tensor  # (B,), zero for a silent row
    flow: Tensor  # (B,)
    xy: Tensor  # (B,) in m^2, zero where it was not asked for
    contrast: Tensor  # (B,), zero where it was not asked for or has nothing to be held against
    speaks: Tensor  # (B,) bool, whether the row has text to learn

    def table(self) -> Tensor:
        """(B, 4): text, flow, xy, contrast."""
        return torch.stack([self.text, self.flow, self.xy, self.contrast], dim=1)


class JointLoss(nn.Module):
    """Text and trajectory losses of a batch, by an ``AlpamayoR1`` with or without adapters.

    ``horizon_s`` fades the flow loss along the path, see :func:`finetune.alpamayo.flow_matching.horizon_weights`; with
    ``expert_gradient`` the trajectory losses reach the language model through its keys and values; ``contrast_margin``
    above 0 adds the contrast.
    """

    def __init__(
        self,
        model: Any,
        horizon_s: float = 0.0,
        expert_gradient: bool = True,
        with_xy: bool = False,
        contrast_margin: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.expert_gradient = expert_gradient
        self.with_xy = with_xy
        self.contrast_margin = contrast_margin
        # No buffer: moving the loss would move the model, parts of which may rest beside the card on purpose.
        self._weights = flow_matching.horizon_weights(horizon_s)

    def forward(self, batch: Batch, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean text loss over rows that speak, and mean flow loss over all rows; arguments as in :meth:`rows`."""
        losses = self.rows(batch, noise, times)
        return losses.text.sum() / losses.speaks.sum().clamp(min=1), losses.flow.mean()

    def rows(self, batch: Batch, noise: Tensor, times: Tensor) -> RowLosses:
        """Losses row by row of a batch on the model's device; noise (B, K, 64, 2) and flow times (B, K) in [0, 1)."""
        vision = batch.vision
        if vision is None:
            vision = self.model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = self.model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw, batch.packing)
        speaks = batch.label_mask.any(dim=1)
        text = self.model.text_loss(prefix, batch.label_mask)
        text = torch.where(speaks, text, torch.zeros_like(text))
        if not self.expert_gradient:
            prefix = prefix.detach()
        weights = None if self._weights is None else self._weights.to(noise.device)
        flow, estimate = self.model.flow_loss_and_estimate(prefix, batch.actions, noise, times, weights)
        xy = torch.zeros_like(flow)
        if self.with_xy:
            if batch.history is None:
                raise MonoError("rows without history", "rows of `encode_row`, which the xy loss needs")
            xy = xy_errors(self.model.action_space, batch.history, estimate, batch.actions)
        contrast = self._contrast(prefix, batch, noise, times, weights, flow)
        return RowLosses(text, flow, xy, contrast, speaks)

    def _contrast(
        self, prefix: PrefixCache, batch: Batch, noise: Tensor, times: Tensor, weights: Tensor | None, flow: Tensor
    ) -> Tensor:
        contrast = torch.zeros_like(flow)
        if self.contrast_margin == 0.0 or batch.partner is None:
            return contrast
        at = (batch.partner != torch.arange(len(batch), device=flow.device)).nonzero()[:, 0]
        if not len(at):
            return contrast
        other = batch.partner[at]
        wrong = self.model.flow_loss(prefix.rows(other), batch.actions[at], noise[at], times[at], weights)
        apart = (batch.actions[at] - batch.actions[other]).square()
        apart = (apart if weights is None else apart * weights[:, None]).mean(dim=(1, 2))
        hinge = functional.relu(apart.clamp(max=self.contrast_margin) + flow[at] - wrong)
        return contrast.index_add(0, at, hinge)


def xy_errors(space: Any, history: Tensor, estimate: Tensor, actions: Tensor) -> Tensor:
    """Mean squared xy error (B,) in m^2 of estimated actions (B, K, 64, 2) against the true ones (B, 64, 2).

    Both are decoded from the same speed, that of the history (B, 16, 3), so the error is zero where the flow loss is.
    """
    truth = space.action_to_traj(history, actions)[:, None, :, :2]
    paths = space.action_to_traj(history[:, None].expand(-1, estimate.shape[1], -1, -1), estimate)[..., :2]
    error: Tensor = (paths - truth).square().mean(dim=(1, 2, 3))
    return error


def draws(batch_size: int, settings: LoopSettings, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flow noise (B, K, 64, 2) and times (B, K) of a step, the same on every machine."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    noise = torch.randn(batch_size, settings.noise_draws, 64, 2, generator=generator)
    times = flow_matching.sample_times((batch_size, settings.noise_draws), generator=generator)
    return noise.to(device), times.to(device)
