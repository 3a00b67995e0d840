"""The expert's input: noisy actions and flow time as embeddings, one per waypoint.

Module and buffer names follow the official checkpoint (``sinus.0.freqs``, ``encoder.trunk.3.weight`` ...).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from finetune.alpamayo.configuration import ActionInProjConfig

_NORM_EPS = 1e-5


def fourier_frequencies(features: int, max_freq: float) -> Tensor:
    """(1, features/2) frequencies from 1 to ``max_freq``, evenly spaced in logarithm, rounded to bfloat16.

    The released model runs with rounded frequencies; unrounded ones change its embeddings beyond recognition.
    """
    exact = torch.logspace(0.0, math.log10(max_freq), features // 2, dtype=torch.float32)
    return exact.to(torch.bfloat16).float()[None]


def fourier_features(values: Tensor, freqs: Tensor) -> Tensor:
    """Values (...,) to sines and cosines (..., features) of frequencies (features/2,), or of others for each value."""
    # Order matters at the last float32 digit: the highest frequency amplifies it.
    angle = values.float().unsqueeze(-1) * freqs.float() * (2.0 * math.pi)
    return math.sqrt(2.0) * torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


class FourierEncoder(nn.Module):
    """Scalars (...,) to (..., features): sqrt(2) [sin(2 pi f u), cos(2 pi f u)]."""

    freqs: Tensor

    def __init__(self, features: int, max_freq: float) -> None:
        super().__init__()
        self.register_buffer("freqs", fourier_frequencies(features, max_freq))

    def forward(self, values: Tensor) -> Tensor:
        """Values (...,) to sines and cosines (..., features)."""
        return fourier_features(values, self.freqs[0])


class WaypointTrunk(nn.Module):
    """Linear, SiLU, RMSNorm, repeated ``depth`` times, then Linear to the output width."""

    def __init__(self, width_in: int, hidden: int, width_out: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width_in, hidden), nn.SiLU(), nn.RMSNorm(hidden, eps=_NORM_EPS)]
            width_in = hidden
        self.trunk = nn.Sequential(*layers, nn.Linear(width_in, width_out))

    def forward(self, features: Tensor) -> Tensor:
        """(..., width_in) to (..., width_out)."""
        out: Tensor = self.trunk(features)
        return out


class ActionInProjection(nn.Module):
    """Noisy actions (B, n, 2) and times (B,) to embeddings (B, n, width).

    Fourier features are computed in float32 whatever the weights' precision.
    """

    def __init__(self, config: ActionInProjConfig, width_out: int) -> None:
        super().__init__()
        features = config.num_fourier_feats
        self.sinus = nn.ModuleList(FourierEncoder(features, config.max_freq) for _ in range(2))
        self.timestep_fourier_encoder = FourierEncoder(features, config.max_freq)
        self.encoder = WaypointTrunk(3 * features, config.hidden_size, width_out, config.num_enc_layers)
        self.norm = nn.LayerNorm(width_out, eps=1e-5)

    def forward(self, actions: Tensor, t: Tensor) -> Tensor:
        """Embeddings (B, n, width) of actions (B, n, 2) at flow times (B,)."""
        return self.embed(actions, self.timestep_fourier_encoder(t))

    def embed(self, actions: Tensor, time_features: Tensor) -> Tensor:
        """The same from the times' Fourier features (B, f), which are known beforehand when a path is integrated."""
        with torch.autocast(actions.device.type, enabled=False):
            time = time_features[:, None].expand(-1, actions.shape[1], -1)
            # Both axes at once, each by its own frequencies.
            waves = fourier_features(actions, torch.cat([encoder.get_buffer("freqs") for encoder in self.sinus]))
            features = torch.cat([waves.flatten(-2), time], dim=-1)
        embeds: Tensor = self.norm(self.encoder(features.to(self.norm.weight.dtype)))
        return embeds
