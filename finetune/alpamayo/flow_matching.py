"""Flow matching: a straight path from noise to action, and the integration of the learned velocity.

x_t = t * x + (1 - t) * noise; the network learns the velocity x - noise; sampling integrates it from t = 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from collector.geometry.constants import FUTURE_STEPS, STEP_S

_LATEST_TIME = 0.999
_BETA_SHAPE = 1.5


def sample_times(shape: tuple[int, ...], generator: torch.Generator | None = None, device: str = "cpu") -> Tensor:
    """Training times: 0.999 (1 - b) with b ~ Beta(1.5, 1), so that noisy inputs are seen most.

    Beta(a, 1) has the distribution function b**a, hence b is a uniform number to the power 1/a.
    """
    uniform = torch.rand(shape, generator=generator, device=device)
    return _LATEST_TIME - _LATEST_TIME * uniform.pow(1.0 / _BETA_SHAPE)


def interpolate(actions: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Noisy actions at time t; ``t`` (...,) against (..., 64, 2)."""
    t = t[..., None, None]
    return t * actions + (1.0 - t) * noise


def target_velocity(actions: Tensor, noise: Tensor) -> Tensor:
    """What the network should say, everywhere on the path."""
    return actions - noise


def horizon_weights(horizon_s: float, waypoints: int = FUTURE_STEPS, step_s: float = STEP_S) -> Tensor | None:
    """Weights (64,) of the waypoints' errors that fade with time, mean 1; None for 0, all alike.

    What lies behind the next bend cannot be seen, yet in a plain mean that unpredictable far curvature outweighs the
    next two seconds, which decide where the kart really goes.

    Args:
        horizon_s: time constant of the exponential fading; 0 is the released loss.
    """
    if horizon_s == 0.0:
        return None
    weights = torch.exp(-step_s * torch.arange(waypoints) / horizon_s)
    return weights / weights.mean()


def euler_times(steps: int) -> list[float]:
    """The times at which :func:`integrate` asks for a velocity."""
    times: list[float] = torch.linspace(0.0, 1.0, steps + 1)[:-1].tolist()
    return times


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], x0: Tensor, steps: int) -> Tensor:
    """Euler from noise to actions in uniform steps.

    Args:
        velocity: (x (B, 64, 2), t (B,)) -> (B, 64, 2).
        x0: initial noise, float32.
        steps: number of steps; the last one starts at t = 1 - 1/steps.
    """
    x = x0.float()
    for t in euler_times(steps):
        x = x + velocity(x, x.new_full((x.shape[0],), t)).float() / steps
    return x
