"""What a driver sees and what it answers: the contract between model, node, rollout and evaluation.

Pure numpy, so that nodes and tests can speak of plans without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError
from collector.geometry import constants

# The order in which Alpamayo-R1 sees its cameras (its indices 0, 1, 2, 6; camera-major, oldest frame first).
CAMERA_ORDER = ("cross_left", "front", "cross_right", "front_tele")
FRAMES_PER_CAMERA = constants.FRAME_STEPS
# Width and height of the frames of the Challenge's camera.
CHALLENGE_FRAME_PX = (1920, 1080)
HISTORY_STEPS, FUTURE_STEPS, STEP_S = constants.HISTORY_STEPS, constants.FUTURE_STEPS, constants.STEP_S


@dataclass(frozen=True)
class Mode:
    """What the model is shown of an observation."""

    cameras: tuple[str, ...]  # read from the observation
    shown: tuple[str, ...]  # cameras of the model's images, in its order; those that are not read are black
    frames: int = FRAMES_PER_CAMERA  # of each camera, at 10 Hz, the last one at t0


# Every camera mode, whatever asks for one.
MODES: Mapping[str, Mode] = {
    "mono": Mode(("front",), ("front",), frames=1),
    "mono-4frames": Mode(("front",), ("front",), frames=4),
    "four": Mode(CAMERA_ORDER, CAMERA_ORDER),
    "mono-padded": Mode(("front",), CAMERA_ORDER),
}
if TYPE_CHECKING:
    CameraMode: TypeAlias = str
    FrontMode: TypeAlias = str
    Engine: TypeAlias = str
    Pack: TypeAlias = str
else:
    CameraMode = Literal[tuple(MODES)]
    FrontMode = Literal[tuple(name for name, mode in MODES.items() if mode.cameras == ("front",))]
    # How a plan is computed. ``eager`` reads and writes word by word, operation by operation: the reference. ``fast``
    # says the same, but reads along what the reasoning will probably say.
    Engine = Literal["fast", "eager"]
    # How the language model's matrices are held: as stored, or in four bits (NF4) and computed in the precision of the
    # rest, its vocabulary in the computer's memory.
    Pack = Literal["none", "nf4"]


# The engine whose figures depend on nothing that was planned before: what is read along changes the last digits.
REFERENCE = "eager"


@dataclass(frozen=True)
class PolicySettings(Arguments):
    """How Alpamayo plans unless told otherwise; see :class:`finetune.alpamayo_policy.AlpamayoPolicy`."""

    cameras: FrontMode = "mono"
    flow_steps: int = argument(10, "Euler steps of the action expert", 1, 100)
    noise_temperature: float = argument(
        0.0,
        "spread of the noise the trajectory is drawn from: 0 always gives the same plan for the same frame, 1 is the "
        "trained spread",
        0.0,
        2.0,
    )
    reasoning: bool = True
    device: str = "cpu"
    engine: Engine = "fast"
    quantised: Pack = "none"
    samples: int = argument(
        1,
        "trajectories drawn for each plan, at noise_temperature or 1 where that is 0; of several the one driven is "
        "nearest to all others",
        1,
        64,
    )
    reasoning_hz: float = argument(
        0.0, "reasonings written anew per second of the frames' stamps; 0 writes one with every plan", 0.0, 100.0
    )


@dataclass(frozen=True)
class Observation:
    """Everything a policy may look at, at one instant t0."""

    stamp_ns: int  # t0, the moment the newest front frame shows: its header stamp minus the camera's lag
    frames: Mapping[str, NDArray[np.uint8]]  # camera -> (n, H, W, 3) uint8 RGB, oldest to newest, 10 Hz, the last at t0
    history: NDArray[np.float64]  # (16, 3) ego poses at t0-1.5 s ... t0, 10 Hz; the last row is the origin.
    speed_mps: float | None = None  # wheel speed at t0 where known
    # What an operator asks for, as `collector.reasoning.instructions` reads it, empty for nothing. Only a policy that
    # says `takes_instructions` is given one.
    instruction: str = ""

    def __post_init__(self) -> None:
        if np.shape(self.history) != (HISTORY_STEPS, 3):
            found = f"a history of shape {np.shape(self.history)}"
            do = "cut the history with collector.geometry.poses.to_ego on interpolated poses"
            raise MonoError(found, f"({HISTORY_STEPS}, 3) poses at 10 Hz", do)
        if not np.isfinite(self.history).all():
            raise MonoError("a history with non-finite poses", "metres and radians", "drop this frame")


@dataclass(frozen=True)
class Plan:
    """Where to be over the next 6.4 s, and why."""

    stamp_ns: int  # t0, the stamp of the observation (never the time of arrival)
    poses: NDArray[np.float64]  # (64, 3) ego poses at t0+0.1 ... t0+6.4 s.
    reasoning: str = ""  # the reasoning as text, empty when skipped
    timings_ms: Mapping[str, float] = field(default_factory=dict)  # per stage: vision, prefill, decode, action
    reasoning_age_s: float = 0.0  # from the frame that the reasoning was written for to this plan's
    started_ns: int = 0  # steady clock of the machine that planned (time.monotonic_ns)
    ended_ns: int = 0  # the same, when the plan was there
    passes: int = 0  # of the language model behind its prompt, to write the reasoning; 0: read along whole


@runtime_checkable
class Policy(Protocol):
    """A driver. ``plan_many`` exists so that several karts can share one forward pass.

    One that heeds :attr:`Observation.instruction` says so in an attribute ``takes_instructions``.
    """

    def plan(self, observation: Observation) -> Plan:
        """The plan of one kart."""
        ...

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        """A plan per observation, in order."""
        ...


# What to say where one is given to another.
NO_INSTRUCTIONS = "an instruction to a policy that takes none"
TAKES_INSTRUCTIONS = "one with takes_instructions = True, as Alpamayo's has while it reasons"


def takes_instructions(policy: object) -> bool:
    """Whether a policy says that it heeds instructions."""
    return getattr(policy, "takes_instructions", False) is True


def mode_of(name: str) -> Mode:
    """The camera mode of a name (MonoError: there is none)."""
    if name not in MODES:
        raise MonoError(f"camera mode {name!r}", "one of " + ", ".join(MODES), "choose one of these")
    return MODES[name]


def cameras_of(mode: str) -> tuple[str, ...]:
    """Names of the cameras a mode reads from an observation."""
    return mode_of(mode).cameras


def frames_of(mode: str) -> int:
    """Frames of each camera a mode looks at: the newest alone, or several at 10 Hz."""
    return mode_of(mode).frames


def camera_of_each_image(mode: str) -> list[str]:
    """The camera each image of :func:`select_images` is from, or stands for."""
    return [camera for camera in mode_of(mode).shown for _ in range(frames_of(mode))]


def select_images(observation: Observation, mode: str) -> list[NDArray[np.uint8]]:
    """The images of a camera mode, in the model's order (camera-major, oldest to newest).

    A drive that has just begun repeats its oldest frame until there are enough.

    Raises:
        MonoError: a camera of the mode has no frame in the observation.
    """
    wanted = mode_of(mode)
    for camera in wanted.cameras:
        if camera not in observation.frames or len(observation.frames[camera]) == 0:
            found = f"an observation without frames of {camera!r} (it has: {sorted(observation.frames)})"
            expected = f"the cameras of mode {mode!r}: {', '.join(wanted.cameras)}"
            raise MonoError(found, expected, "choose another --cameras mode or supply that camera")
    black = np.zeros_like(observation.frames[wanted.cameras[0]][-1])
    images: list[NDArray[np.uint8]] = []
    for camera in wanted.shown:
        recent = list(observation.frames[camera][-wanted.frames :]) if camera in wanted.cameras else [black]
        images += [recent[0]] * (wanted.frames - len(recent)) + recent
    return images
