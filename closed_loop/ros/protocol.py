"""How the driver and its policy process talk: a JSON header and raw arrays through a pipe, nothing executable.

One message: 4 bytes big-endian length of the header, the header (JSON object), then the bytes of the arrays that the
header lists under ``"arrays"`` as ``[name, dtype, shape]``, in that order. Plain numpy on both sides, so the
two ends may run different Python versions in different environments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from finetune.policy import Observation, Plan

MAX_HEADER_BYTES = 1 << 20
MAX_ARRAY_BYTES = 1 << 30
ALLOWED_DTYPES = ("uint8", "float32", "float64", "int64")

Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def write_message(stream: IO[bytes], header: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Send one message and flush. Raises OSError when the other end is gone."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    listing = [[name, array.dtype.name, list(array.shape)] for name, array in contiguous.items()]
    text = json.dumps({**header, "arrays": listing}).encode()
    stream.write(len(text).to_bytes(4, "big") + text)
    stream.writelines(array.data.cast("B") for array in contiguous.values() if array.size)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[Header, Arrays] | None:
    """Receive one message, blocking; None when the other end closed the pipe between messages.

    Raises:
        MonoError: what came is not a message of this protocol, or it ends in the middle.
    """
    prefix = stream.read(4)
    if not prefix:
        return None
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise _not_a_message(f"a header of {length} bytes")
    try:
        header = json.loads(stream.read(length))
        listing = [(str(name), str(dtype), tuple(int(n) for n in shape)) for name, dtype, shape in header.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_a_message(f"a header that is not the expected JSON ({error})") from error
    arrays: Arrays = {}
    for name, dtype, shape in listing:
        size = int(np.prod(shape, dtype=np.int64)) if shape else 1
        if dtype not in ALLOWED_DTYPES or size < 0 or size * np.dtype(dtype).itemsize > MAX_ARRAY_BYTES:
            raise _not_a_message(f"an array {name!r} of type {dtype} and shape {shape}")
        arrays[name] = np.empty(shape, dtype)  # filled in place: writable, and copied only once
        missing = arrays[name].nbytes - stream.readinto(arrays[name].reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
        if missing:
            raise _not_a_message(f"a message that ends {missing} bytes early")
    return header, arrays


# What a plan says of itself beside its path and its text.
_PLAN_NUMBERS = ("reasoning_age_s", "started_ns", "ended_ns", "passes")


def pack_observation(observation: Observation) -> tuple[Header, Arrays]:
    """An observation as a message."""
    header: Header = {
        "stamp_ns": int(observation.stamp_ns),
        "speed_mps": observation.speed_mps,
        "cameras": list(observation.frames),
    }
    arrays: Arrays = {f"frames/{name}": frames for name, frames in observation.frames.items()}
    arrays["history"] = np.asarray(observation.history, np.float64)
    return header, arrays


def unpack_observation(header: Header, arrays: Arrays) -> Observation:
    """The observation of a message."""
    frames = {name: arrays[f"frames/{name}"] for name in header["cameras"]}
    return Observation(header["stamp_ns"], frames, arrays["history"], header["speed_mps"])


def pack_plan(plan: Plan) -> tuple[Header, Arrays]:
    """A plan as a message."""
    header: Header = {
        "stamp_ns": int(plan.stamp_ns),
        "reasoning": plan.reasoning,
        "timings_ms": {name: float(value) for name, value in plan.timings_ms.items()},
        **{name: getattr(plan, name) for name in _PLAN_NUMBERS},
    }
    return header, {"poses": np.asarray(plan.poses, np.float64)}


def unpack_plan(header: Header, arrays: Arrays) -> Plan:
    """The plan of a message."""
    return Plan(
        header["stamp_ns"],
        arrays["poses"],
        header["reasoning"],
        header["timings_ms"],
        **{k: header[k] for k in _PLAN_NUMBERS},
    )


def _not_a_message(found: str) -> MonoError:
    do = "check that both ends run the same version of alpamayo_mono, and that nothing else writes to this pipe"
    return MonoError(f"{found} on the pipe to the policy process", "a message of closed_loop.ros.protocol", do)
