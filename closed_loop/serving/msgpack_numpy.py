"""msgpack with numpy arrays as ``openpi-client`` writes them: what may travel between node and policy.

msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md) without extension types. An array is a map of the byte
keys ``__ndarray__`` (true), ``data`` (its bytes), ``dtype`` (numpy's short name, as ``<f8``) and ``shape``; a numpy
number one of ``__npgeneric__``, ``data`` and ``dtype``. Nothing here can carry objects or code. Written out because
neither end may need a library for it: the node runs in the competition's image, the policy in any environment with its
model, and what comes from strangers is to be measured before memory is given to it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError

_DTYPE = re.compile(r"[<>|=]?(b1|[ui][1248]|f[248])")
_DEEPEST, _MOST_ITEMS, _MOST_AXES = 8, 10_000, 8
_NDARRAY, _NUMBER, _DATA, _DTYPE_KEY, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"

Buffer: TypeAlias = "bytes | memoryview"


def pack(value: object) -> list[Buffer]:
    """A value as msgpack, in pieces: those of arrays and long bytes are the caller's own memory, not copied.

    Raises:
        MonoError: of a kind that does not travel (an object, an array of objects, a whole number beyond 64 bits).
    """
    pieces: list[Buffer] = []
    small = bytearray()
    for piece in _pieces(value, 0):
        if len(piece) < 1024:
            small += piece
            continue
        pieces += [bytes(small), piece]
        small.clear()
    return [piece for piece in (*pieces, bytes(small)) if len(piece)]


def unpack(data: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - whatever was packed
    """The value of a message; its arrays are views into ``data``, (n,) uint8.

    Raises:
        MonoError: not one whole msgpack value, too deep, too many items, an extension type, or no sound array.
    """
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except (struct.error, ValueError, OverflowError) as error:
        raise _not_msgpack(f"a message that breaks off or is damaged ({error})") from error
    if reader.at != len(data):
        raise _not_msgpack(f"a message with {len(data) - reader.at} bytes behind its end")
    return value


def _pieces(value: object, depth: int) -> Iterator[Buffer]:  # noqa: C901, PLR0912 - a branch per kind
    if depth > _DEEPEST:
        raise MonoError("a message nested too deeply", f"at most {_DEEPEST} levels", "flatten it")
    if value is None:
        yield b"\xc0"
    elif isinstance(value, (bool, np.bool_)):
        yield b"\xc3" if value else b"\xc2"
    elif isinstance(value, (int, np.integer)):
        if not -(1 << 63) <= value < 1 << 64:
            raise MonoError("a whole number of more than 64 bits in a message", "a smaller one", "correct the sender")
        yield struct.pack(">Bq", 0xD3, value) if value < 1 << 63 else struct.pack(">BQ", 0xCF, value)
    elif isinstance(value, (float, np.floating)):
        yield struct.pack(">Bd", 0xCB, value)
    elif isinstance(value, str):
        text = value.encode(errors="replace")
        yield struct.pack(">BI", 0xDB, len(text))
        yield text
    elif isinstance(value, (bytes, bytearray, memoryview)):
        yield struct.pack(">BI", 0xC6, len(value))
        yield bytes(value) if isinstance(value, bytearray) else value
    elif isinstance(value, np.ndarray):
        if not _DTYPE.fullmatch(value.dtype.str):
            raise MonoError(f"an array of type {value.dtype} in a message", "numbers", "convert it")
        yield struct.pack(">BI", 0xDF, 4)
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        for key, item in ((_NDARRAY, True), (_DATA, None), (_DTYPE_KEY, value.dtype.str), (_SHAPE, value.shape)):
            yield from _pieces(key, depth)
            if key == _DATA:
                yield struct.pack(">BI", 0xC6, len(flat))
                yield flat
            else:
                yield from _pieces(item, depth + 1)
    elif isinstance(value, Mapping):
        yield struct.pack(">BI", 0xDF, len(value))
        for key, item in value.items():
            yield from _pieces(key, depth + 1)
            yield from _pieces(item, depth + 1)
    elif isinstance(value, Sequence):
        yield struct.pack(">BI", 0xDD, len(value))
        for item in value:
            yield from _pieces(item, depth + 1)
    else:
        raise MonoError(f"a value of type {type(value).__name__} in a message", "numbers, texts, arrays", "convert it")


# By first byte: struct's letter of the number, or the kind of value and the letter of the length that follows.
_NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
_LENGTHS = {
    first + size: (kind, letter)
    for first, kind, letters in (
        (0xC4, "bytes", "BHI"),
        (0xD9, "text", "BHI"),
        (0xDC, "list", "HI"),
        (0xDE, "map", "HI"),
    )
    for size, letter in enumerate(letters)
}
_WORDS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Reader:
    """Reads values off a buffer from front to back; ``at`` is where it stands."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.at = 0
        self._view, self._items = data.data, 0

    def value(self, depth: int) -> Any:  # noqa: ANN401
        self._items += 1
        if depth > _DEEPEST or self._items > _MOST_ITEMS:
            raise _not_msgpack(f"a message of more than {_DEEPEST} levels or {_MOST_ITEMS} items")
        first = self._number("B")
        if first in _WORDS:
            return _WORDS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 0x100
        if first < 0xC0:  # short ones carry their length in the first byte
            kind, length = ("text", first & 31) if first >= 0xA0 else (("map", "list")[first >= 0x90], first & 15)
        elif first in _LENGTHS:
            kind, letter = _LENGTHS[first]
            length = int(self._number(letter))
        else:
            raise _not_msgpack(f"an extension type (first byte 0x{first:02x})")
        if kind in ("bytes", "text"):
            taken = self._take(length)
            return bytes(taken).decode() if kind == "text" else taken
        if kind == "list":
            return [self.value(depth + 1) for _ in range(length)]
        return self._map(length, depth)

    def _map(self, length: int, depth: int) -> Any:  # noqa: ANN401
        made: dict[Any, Any] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if isinstance(key, memoryview):
                key = bytes(key[:64])
            if not isinstance(key, (str, bytes)):
                raise _not_msgpack(f"a map with a key of type {type(key).__name__}")
            made[key] = self.value(depth + 1)
        if _NDARRAY in made or _NUMBER in made:
            return _numeric(made)
        return made

    def _number(self, letter: str) -> Any:  # noqa: ANN401
        (number,) = struct.unpack_from(f">{letter}", self._view, self.at)
        self.at += struct.calcsize(f">{letter}")
        return number

    def _take(self, length: int) -> memoryview:
        if length > len(self._view) - self.at:
            raise _not_msgpack(f"a message that ends {length - len(self._view) + self.at} bytes early")
        self.at += length
        return self._view[self.at - length : self.at]


def _numeric(made: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - an array, or one of numpy's numbers
    dtype, data = made.get(_DTYPE_KEY), made.get(_DATA)
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _not_msgpack(f"an array of type {str(dtype)[:40]!r}")
    if _NUMBER in made:
        if not isinstance(data, (bool, int, float)):
            raise _not_msgpack(f"a numpy number made of {type(data).__name__}")
        return data
    shape = made.get(_SHAPE)
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise _not_msgpack(f"an array of shape {str(shape)[:80]}")
    size = np.dtype(dtype).itemsize
    for n in shape:  # Python's numbers: no product overflows
        size *= n
    if not isinstance(data, memoryview) or len(data) != size:
        raise _not_msgpack(f"an array of shape {tuple(shape)} and type {dtype} that is not {size} bytes long")
    if not size:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape)


def _not_msgpack(found: str) -> MonoError:
    return MonoError(found, "msgpack with arrays as openpi-client writes them", "check who sent it")
