"""Trajectories as accelerations and curvatures of a unicycle, and back.

The action of a step is (acceleration, curvature), normalised. Going from poses to actions is a chain of small
regularised least-squares problems (yaw, speed, acceleration, curvature); going back integrates the unicycle.
Everything runs in float32 (float64 for float64 input) with autocast off, since the third-difference smoother
is badly conditioned. Poses here are planar: (..., 3) = [x_m, y_m, yaw_rad] in the ego frame at t0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.alpamayo.configuration import ActionSpaceConfig

_KAPPA_ATTEMPTS = 8


def _difference_gram(size: int, order: int, like: Tensor) -> Tensor:
    """Gram matrix (size, size) of the ``order``-th finite difference."""
    difference = torch.diff(torch.eye(size, dtype=like.dtype, device=like.device), n=order, dim=0)
    return difference.transpose(0, 1) @ difference


def _solve(matrix: Tensor, rhs: Tensor) -> Tensor:
    """Cholesky solution of (..., n, n) x = (..., n)."""
    return torch.cholesky_solve(rhs.unsqueeze(-1), torch.linalg.cholesky(matrix)).squeeze(-1)


def _unwrap(yaw_rad: Tensor, start_rad: Tensor) -> Tensor:
    """Continuous yaw (..., n) following ``start_rad`` (...,): cumulative wrapped differences."""
    step = torch.diff(torch.cat([start_rad.unsqueeze(-1), yaw_rad], dim=-1), dim=-1)
    return start_rad.unsqueeze(-1) + torch.atan2(torch.sin(step), torch.cos(step)).cumsum(-1)


class ActionSpace(nn.Module):
    """Normalised (acceleration, curvature) actions over 64 steps.

    The four normalisation constants are buffers because the official checkpoint stores them.

    Args:
        config: constants, step and smoothing weights.
        dtype: precision of the stored constants; float64 keeps them exact.
    """

    accel_mean: Tensor
    accel_std: Tensor
    curvature_mean: Tensor
    curvature_std: Tensor

    def __init__(self, config: ActionSpaceConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        for name in ("accel_mean", "accel_std", "curvature_mean", "curvature_std"):
            self.register_buffer(name, torch.tensor(getattr(config, name), dtype=dtype))

    def estimate_v0(self, history: Tensor) -> Tensor:
        """Speed at t0 in m/s, shape (...,), from history poses (..., n, 3) ending at t0.

        A trapezoidal unicycle is fitted to the position increments; positional noise of centimetres shows up in it.
        """
        history = self._widen(history)
        with torch.autocast(history.device.type, enabled=False):
            yaw = _unwrap(history[..., 1:, 2], history[..., 0, 2])
            heading = self._heading(torch.cat([history[..., :1, 2], yaw], dim=-1))
            matrix, rhs = self._speed_normal_equations(heading, torch.diff(history[..., :2], dim=-2))
            ridge = self.config.v_ridge * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            return _solve(matrix + ridge, rhs)[..., -1]

    def traj_to_action(self, history: Tensor, future: Tensor, v0: Tensor | None = None) -> Tensor:
        """Normalised actions (..., 64, 2) that drive along a future.

        Args:
            history: (..., 16, 3) poses ending at the origin with yaw 0.
            future: (..., 64, 3) poses at t0+dt ...
            v0: (...,) speed at t0 in m/s; None estimates it from the history.
        """
        future = self._widen(future)
        c, dt, n = self.config, self.config.dt, future.shape[-2]
        with torch.autocast(future.device.type, enabled=False):
            v0 = self.estimate_v0(history.to(future.dtype)) if v0 is None else v0.to(future)
            eye = torch.eye(n, dtype=future.dtype, device=future.device)
            zero = torch.zeros_like(future[..., 0, 0])
            third = _difference_gram(n + 1, 3, future)
            second = _difference_gram(n, 2, future)

            yaw = _unwrap(future[..., 2], zero)
            theta = _solve((1 + c.theta_ridge) * eye + c.theta_lambda / dt**6 * third[1:, 1:], yaw)
            theta = torch.cat([zero.unsqueeze(-1), theta], dim=-1)

            positions = torch.cat([torch.zeros_like(future[..., :1, :2]), future[..., :2]], dim=-2)
            matrix, rhs = self._speed_normal_equations(self._heading(theta), torch.diff(positions, dim=-2))
            rhs = rhs[..., 1:] - matrix[..., 1:, 0] * v0.unsqueeze(-1)
            speed = torch.cat([v0.unsqueeze(-1), _solve(matrix[..., 1:, 1:] + c.v_ridge * eye, rhs)], dim=-1)

            accel = _solve((1 + c.a_ridge) * eye + c.a_lambda / dt**4 * second, torch.diff(speed, dim=-1) / dt)
            way = dt * speed[..., :-1] + 0.5 * dt**2 * accel
            kappa = self._solve_curvature(way, torch.diff(theta, dim=-1), second, eye)
            return torch.stack(
                [
                    (accel - self.accel_mean.to(accel)) / self.accel_std.to(accel),
                    (kappa - self.curvature_mean.to(accel)) / self.curvature_std.to(accel),
                ],
                dim=-1,
            )

    def action_to_traj(self, history: Tensor, actions: Tensor, v0: Tensor | None = None) -> Tensor:
        """Poses (..., 64, 3) reached by normalised actions (..., 64, 2).

        Args:
            history: (..., 16, 3), used to estimate the speed at t0 where ``v0`` is None.
            actions: normalised (acceleration, curvature).
            v0: (...,) speed at t0, m/s.
        """
        actions = self._widen(actions)
        dt = self.config.dt
        with torch.autocast(actions.device.type, enabled=False):
            v0 = self.estimate_v0(history.to(actions.dtype)) if v0 is None else v0.to(actions)
            accel, kappa = self.denormalise(actions).unbind(-1)
            speed = torch.cat([v0.unsqueeze(-1), v0.unsqueeze(-1) + dt * accel.cumsum(-1)], dim=-1)
            theta = (kappa * (dt * speed[..., :-1] + 0.5 * dt**2 * accel)).cumsum(-1)
            heading = self._heading(torch.cat([torch.zeros_like(theta[..., :1]), theta], dim=-1))
            velocity = speed.unsqueeze(-1) * heading
            xy = (0.5 * dt * (velocity[..., :-1, :] + velocity[..., 1:, :])).cumsum(-2)
            return torch.cat([xy, theta.unsqueeze(-1)], dim=-1)

    def denormalise(self, actions: Tensor) -> Tensor:
        """Normalised actions to (acceleration m/s^2, curvature 1/m), same shape."""
        scale = torch.stack([self.accel_std, self.curvature_std]).to(actions)
        return actions * scale + torch.stack([self.accel_mean, self.curvature_mean]).to(actions)

    def is_within_bounds(self, actions: Tensor) -> Tensor:
        """Whether (...,) all steps of normalised actions (..., 64, 2) keep the vehicle's bounds."""
        physical = self.denormalise(self._widen(actions))
        low = physical.new_tensor([self.config.accel_bounds[0], self.config.curvature_bounds[0]])
        high = physical.new_tensor([self.config.accel_bounds[1], self.config.curvature_bounds[1]])
        return ((physical >= low) & (physical <= high)).flatten(-2).all(-1)

    @staticmethod
    def _widen(values: Tensor) -> Tensor:
        return values if values.dtype == torch.float64 else values.float()

    @staticmethod
    def _heading(yaw_rad: Tensor) -> Tensor:
        return torch.stack([torch.cos(yaw_rad), torch.sin(yaw_rad)], dim=-1)

    def _speed_normal_equations(self, heading: Tensor, increments: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix (..., n, n) and right side (..., n) of u_t v_t + u_t+1 v_t+1 = 2 dp_t / dt, smoothed.

        The trapezoid rows touch neighbours only, so their Gram matrix is tridiagonal and written down directly.
        """
        size = heading.shape[-2]
        target = 2.0 * increments / self.config.dt
        inner = torch.full_like(heading[..., 0], 2.0)
        inner[..., 0] = inner[..., -1] = 1.0
        beside = (heading[..., :-1, :] * heading[..., 1:, :]).sum(-1)
        matrix = torch.diag_embed(inner) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        matrix = matrix + self.config.v_lambda / self.config.dt**6 * _difference_gram(size, 3, heading)
        pad = torch.zeros_like(target[..., :1, :])
        rhs = (heading * (torch.cat([target, pad], dim=-2) + torch.cat([pad, target], dim=-2))).sum(-1)
        return matrix, rhs

    def _solve_curvature(self, way_m: Tensor, turn_rad: Tensor, second: Tensor, eye: Tensor) -> Tensor:
        """Curvature from turn per way. At standstill the system is nearly singular: its ridge grows until it solves."""
        c = self.config
        matrix = torch.diag_embed(way_m**2) + c.kappa_lambda / c.dt**4 * second
        ridge = torch.full_like(way_m[..., :1, None], c.kappa_ridge)
        for _ in range(_KAPPA_ATTEMPTS):
            factor, failed = torch.linalg.cholesky_ex(matrix + ridge * eye)
            if not bool(failed.any()):
                break
            ridge = torch.where((failed > 0)[..., None, None], ridge * 10, ridge)
        return torch.cholesky_solve((way_m * turn_rad).unsqueeze(-1), factor).squeeze(-1)
