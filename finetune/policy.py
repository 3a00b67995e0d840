"""What a driver sees and what it answers: the contract between model, node, rollout and evaluation.

Pure numpy, so that nodes and tests can speak of plans without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from collector.geometry import constants

CameraMode = Literal["mono", "mono-4frames", "four", "mono-padded"]
FrontMode = Literal["mono", "mono-4frames", "mono-padded"]  # what one front camera can give
CAMERA_MODES: tuple[str, ...] = get_args(CameraMode)

# The order in which Alpamayo-R1 sees its cameras (its indices 0, 1, 2, 6; camera-major, oldest frame first).
CAMERA_ORDER = ("cross_left", "front", "cross_right", "front_tele")
FRAMES_PER_CAMERA = constants.FRAME_STEPS
HISTORY_STEPS, FUTURE_STEPS, STEP_S = constants.HISTORY_STEPS, constants.FUTURE_STEPS, constants.STEP_S


@dataclass(frozen=True)
class PolicySettings:
    """How Alpamayo plans unless told otherwise; see :class:`finetune.alpamayo_policy.AlpamayoPolicy`."""

    cameras: FrontMode = "mono"
    flow_steps: int = 10
    noise_temperature: float = 0.0
    reasoning: bool = True
    device: str = "cpu"


@dataclass(frozen=True)
class Observation:
    """Everything a policy may look at, at one instant t0.

    Attributes:
        stamp_ns: t0, the moment the newest front frame shows: its header stamp minus the camera's lag.
        frames: camera name -> (n, H, W, 3) uint8 RGB, oldest to newest, 10 Hz, the last one at t0.
        history: (16, 3) ego poses at t0-1.5 s ... t0, 10 Hz; the last row is the origin.
        speed_mps: wheel speed at t0 where known.
    """

    stamp_ns: int
    frames: Mapping[str, NDArray[np.uint8]]
    history: NDArray[np.float64]
    speed_mps: float | None = None

    def __post_init__(self) -> None:
        if np.shape(self.history) != (HISTORY_STEPS, 3):
            raise MonoError(
                f"a history of shape {np.shape(self.history)}",
                f"({HISTORY_STEPS}, 3) poses at 10 Hz",
                "cut the history with collector.geometry.poses.to_ego on interpolated poses",
            )
        if not np.isfinite(self.history).all():
            raise MonoError("a history with non-finite poses", "metres and radians", "drop this frame")


@dataclass(frozen=True)
class Plan:
    """Where to be over the next 6.4 s, and why.

    Attributes:
        stamp_ns: t0, the stamp of the observation (never the time of arrival).
        poses: (64, 3) ego poses at t0+0.1 ... t0+6.4 s.
        reasoning: the reasoning as text, empty when skipped.
        timings_ms: milliseconds per stage, e.g. ``{"vision": .., "prefill": .., "decode": .., "action": ..}``.
    """

    stamp_ns: int
    poses: NDArray[np.float64]
    reasoning: str = ""
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """A driver. ``plan_many`` exists so that several karts can share one forward pass."""

    def plan(self, observation: Observation) -> Plan:
        """The plan of one kart."""
        ...

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        """A plan per observation, in order."""
        ...


def cameras_of(mode: str) -> tuple[str, ...]:
    """Names of the cameras a mode reads from an observation.

    Raises:
        MonoError: unknown mode.
    """
    if mode not in CAMERA_MODES:
        raise MonoError(f"camera mode {mode!r}", "one of " + ", ".join(CAMERA_MODES), "choose one of these")
    return CAMERA_ORDER if mode == "four" else ("front",)


def frames_of(mode: str) -> int:
    """Frames of each camera a mode looks at: the newest alone, or four at 10 Hz."""
    return 1 if mode == "mono" else FRAMES_PER_CAMERA


def camera_of_each_image(mode: str) -> list[str]:
    """The camera each image of :func:`select_images` is from, or stands for."""
    cameras = CAMERA_ORDER if mode == "mono-padded" else cameras_of(mode)
    return [camera for camera in cameras for _ in range(frames_of(mode))]


def select_images(observation: Observation, mode: str) -> list[NDArray[np.uint8]]:
    """The images of a camera mode, in the model's order (camera-major, oldest to newest).

    ``mono`` is the newest front frame alone; ``mono-4frames`` the front camera at its native rhythm;
    ``four`` all cameras; ``mono-padded`` all cameras with the three absent ones black.
    A drive that has just begun repeats its oldest frame until four exist.

    Raises:
        MonoError: a camera of the mode has no frame in the observation.
    """
    needed = cameras_of(mode)
    for camera in needed:
        if camera not in observation.frames or len(observation.frames[camera]) == 0:
            raise MonoError(
                f"an observation without frames of {camera!r} (it has: {sorted(observation.frames)})",
                f"the cameras of mode {mode!r}: {', '.join(needed)}",
                "choose another --cameras mode or supply that camera",
            )
    if mode == "mono":
        return [observation.frames["front"][-1]]

    def last_frames(camera: str) -> list[NDArray[np.uint8]]:
        recent = list(observation.frames[camera][-FRAMES_PER_CAMERA:])
        return [recent[0]] * (FRAMES_PER_CAMERA - len(recent)) + recent

    if mode == "mono-4frames":
        return last_frames("front")
    if mode == "mono-padded":
        black = np.zeros_like(observation.frames["front"][-1])
        return [
            image
            for camera in CAMERA_ORDER
            for image in (last_frames("front") if camera == "front" else [black] * FRAMES_PER_CAMERA)
        ]
    return [image for camera in CAMERA_ORDER for image in last_frames(camera)]
