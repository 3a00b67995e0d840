"""What is said between the node and its policy: an observation there, a plan back, as maps that msgpack carries.

An observation is ``stamp_ns``, ``history`` (16, 3), ``speed_mps`` (or nil) and ``frames``: camera -> (n, H, W, 3) uint8
RGB, (H, W, 3) for a single one, or a list of JPEGs; where an operator asks for something also ``prompt``, in words. A
plan is ``poses`` (64, 3) and what else :class:`finetune.policy.Plan` holds, with ``server_timing`` in milliseconds
beside it. Whoever writes is not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closed_loop.serving import jpeg
from closed_loop.serving.settings import FrameCoding
from collector.common.errors import MonoError
from collector.reasoning.instructions import read_instruction
from finetune.policy import FUTURE_STEPS, HISTORY_STEPS, Observation, Plan

# Of an observation, its JPEGs decoded: four cameras of four raw frames at 1920 x 1080 are 100 MB.
MOST_OBSERVATION_BYTES = 128 << 20
MOST_PLAN_BYTES = 1 << 20
_FRAMES_A_CAMERA, _CAMERAS, _MOST_REASONING = 16, 8, 1 << 16
_OBSERVATION = ("stamp_ns", "frames", "history", "speed_mps", "prompt")

Message = dict[str, Any]


def observation_message(observation: Observation, coding: FrameCoding) -> Message:
    """An observation to send, its frames raw or as JPEG."""
    frames: dict[str, Any] = dict(observation.frames)
    if coding == "jpeg":
        frames = {camera: [jpeg.encode(image) for image in images] for camera, images in frames.items()}
        frames = {camera: [each.data for each in images] for camera, images in frames.items()}
    message = {
        "stamp_ns": int(observation.stamp_ns),
        "frames": frames,
        "history": np.asarray(observation.history, np.float64),
        "speed_mps": None if observation.speed_mps is None else float(observation.speed_mps),
    }
    # Servers before protocol 1.1 know no such key.
    return {**message, "prompt": observation.instruction} if observation.instruction else message


def read_observation(message: object) -> Observation:
    """The observation of a message.

    Raises:
        MonoError: a key that is unknown or missing, a value of another kind, shape or size, or not finite, or a prompt
            that is not understood.
    """
    if not isinstance(message, dict):
        raise _wrong(f"a message that is a {type(message).__name__}", "a map of " + ", ".join(_OBSERVATION))
    unknown = sorted(str(key)[:40] for key in message.keys() - set(_OBSERVATION))
    missing = [key for key in _OBSERVATION[:3] if key not in message]
    if unknown or missing:
        found = "unknown keys: " + ", ".join(unknown[:5]) if unknown else "no " + ", ".join(missing)
        raise _wrong(f"an observation with {found}", "the keys " + ", ".join(_OBSERVATION))
    stamp_ns, speed_mps = message["stamp_ns"], message.get("speed_mps")
    if type(stamp_ns) is not int or not 0 <= stamp_ns < 1 << 63:
        raise _wrong(f"the stamp_ns {_short(stamp_ns)}", "nanoseconds as a whole number")
    if speed_mps is not None and (type(speed_mps) not in (int, float) or not abs(speed_mps) <= 1e3):
        raise _wrong(f"the speed_mps {_short(speed_mps)}", "metres per second, or nil where it is not known")
    history, prompt = _numbers(message["history"], "history", (HISTORY_STEPS, 3)), message.get("prompt", "")
    if not isinstance(prompt, str):
        raise _wrong(f"the prompt {_short(prompt)}", "a text")
    read_instruction(prompt)  # refused before anybody plans with it
    speed_mps = None if speed_mps is None else float(speed_mps)
    return Observation(stamp_ns, _frames(message["frames"]), history, speed_mps, prompt)


def plan_message(plan: object, stamp_ns: int) -> Message:
    """A policy's answer to the observation of ``stamp_ns`` as a message; whatever a policy may have returned.

    Raises:
        MonoError: no plan, poses of another shape, no text for reasoning, or one of more than 65536 characters.
    """
    if not isinstance(plan, Plan):
        raise MonoError(f"plan() returned {_short(plan)}", "a finetune.policy.Plan", "correct the policy")
    reasoning = "" if plan.reasoning is None else plan.reasoning
    if not isinstance(reasoning, str) or len(reasoning) > _MOST_REASONING:
        found = f"plan() returned a reasoning of {len(reasoning)} characters" if isinstance(reasoning, str) else ""
        found = found or f"plan() returned the reasoning {_short(reasoning)}"
        raise MonoError(found, f"a text of at most {_MOST_REASONING} characters", "correct the policy")
    try:
        poses = np.asarray(plan.poses)
    except ValueError:  # rows of different lengths
        poses = np.empty(0)
    if poses.shape != (FUTURE_STEPS, 3) or poses.dtype.kind not in "fiu":
        found = f"plan() returned poses of shape {poses.shape} and type {poses.dtype}"
        raise MonoError(found, f"({FUTURE_STEPS}, 3) numbers", "correct the policy")
    try:
        timings_ms = {str(name): float(value) for name, value in dict(plan.timings_ms).items()}
        numbers = {
            "reasoning_age_s": float(plan.reasoning_age_s),
            **{name: int(getattr(plan, name)) for name in ("started_ns", "ended_ns", "passes")},
        }
    except (TypeError, ValueError, OverflowError) as error:
        found = f"plan() returned timings that are no numbers ({error})"
        raise MonoError(found, "numbers as in finetune.policy.Plan", "correct the policy") from error
    message = {"stamp_ns": stamp_ns, "poses": poses.astype(np.float64), "reasoning": reasoning}
    return {**message, "timings_ms": timings_ms, **numbers}


def read_plan(message: object, stamp_ns: int) -> tuple[Plan, Mapping[str, float]]:
    """The plan of an answer to the observation of ``stamp_ns``, and the server's own times in milliseconds.

    Its poses may hold anything that numbers can be: they are the safety monitor's to judge.

    Raises:
        MonoError: no such message, or the answer to another observation.
    """
    if not isinstance(message, dict):
        raise _wrong(f"an answer that is a {type(message).__name__}", "a map with a plan")
    if message.get("stamp_ns") != stamp_ns:
        found = f"the answer to another frame (stamp {_short(message.get('stamp_ns'))})"
        raise _wrong(found, f"that to {stamp_ns}")
    reasoning = message.get("reasoning", "")
    if not isinstance(reasoning, str):
        raise _wrong(f"the reasoning {_short(reasoning)}", "a text")
    poses = _numbers(message.get("poses"), "poses", (FUTURE_STEPS, 3))
    timings_ms, server_ms = (_times(message.get(name), name) for name in ("timings_ms", "server_timing"))
    numbers = {name: message.get(name, 0) for name in ("reasoning_age_s", "started_ns", "ended_ns", "passes")}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _wrong(f"{name} {_short(value)}", "a number")
    return Plan(stamp_ns, poses, reasoning, timings_ms, **numbers), server_ms


def _times(value: object, name: str) -> dict[str, float]:
    if value is None:
        return {}
    sound = isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())
    if not isinstance(value, dict) or not sound:
        raise _wrong(f"the {name} {_short(value)}", "milliseconds by name")
    return {str(key): float(each) for key, each in value.items()}


def _numbers(value: object, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0)
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise _wrong(f"{name} of shape {array.shape} and type {array.dtype}", f"{shape} numbers")
    return array.astype(np.float64)


def _frames(value: object) -> dict[str, NDArray[np.uint8]]:
    if not isinstance(value, dict) or not 0 < len(value) <= _CAMERAS:
        raise _wrong(f"frames {_short(value)}", f"1 to {_CAMERAS} cameras by name")
    frames: dict[str, NDArray[np.uint8]] = {}
    size = 0
    for camera, images in value.items():
        name = f"frames of {_short(camera)}"
        array = _decoded(images, name, MOST_OBSERVATION_BYTES - size) if isinstance(images, list) else images
        kind = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else _short(array)
        expected = f"uint8 of shape (n, height, width, 3), n up to {_FRAMES_A_CAMERA}, or so many JPEGs in a list"
        if not isinstance(camera, str) or not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            raise _wrong(f"{name} that are {kind}", expected)
        frames[camera] = several = array[None] if array.ndim == 3 else array
        if several.ndim != 4 or several.shape[3] != 3 or not several.size or len(several) > _FRAMES_A_CAMERA:
            raise _wrong(f"{name} that are {kind}", expected)
        size += several.nbytes
    return frames


def _decoded(images: list[Any], name: str, most_bytes: int) -> NDArray[np.uint8]:
    if not 0 < len(images) <= _FRAMES_A_CAMERA or not all(isinstance(each, memoryview) for each in images):
        raise _wrong(f"{name} in a list of {len(images)}", f"1 to {_FRAMES_A_CAMERA} JPEGs")
    data = [np.frombuffer(each, np.uint8) for each in images]
    sizes = {jpeg.size_of(each) for each in data}
    (width, height), *others = sizes
    if others:
        raise _wrong(f"{name} of sizes {_short(sorted(sizes))}", "frames of one size")
    if width * height * 3 * len(data) > most_bytes or not width * height:
        found = f"{name} of {width} x {height} pixels"
        raise _wrong(found, f"all frames together at most {MOST_OBSERVATION_BYTES >> 20} MiB")
    return np.stack([jpeg.decode(each) for each in data])


def _short(value: object) -> str:
    """What a stranger sent, as far as a sentence may show it."""
    try:
        large = isinstance(value, (dict, np.ndarray, memoryview)) or (
            isinstance(value, (str, bytes, list)) and value[80:]
        )
        text = f"a {type(value).__name__}" if large else repr(value)
    except Exception:  # noqa: BLE001 - a policy's own class may fail at this too
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:80] + "..."


def _wrong(found: str, expected: str) -> MonoError:
    return MonoError(found, expected, "correct the sender, see docs/serve.md")
