"""msgpack as openpi-client writes it, both ways, and what is none of it is a sentence."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from closed_loop.serving.msgpack_numpy import pack, unpack
from collector.common.errors import MonoError

VALUE = {
    "none": None,
    "yes": True,
    "numbers": [0, 127, 128, -1, -32, -33, 65535, -(1 << 63), (1 << 64) - 1, 1.5],
    "text": "曲がる" * 100,
    "bytes": b"x" * 70000,
    "long": list(range(300)),
    "map": {str(n): n for n in range(20)},
}


def packed(value: object) -> bytes:
    return b"".join(bytes(piece) for piece in pack(value))


def read(data: bytes) -> Any:
    return unpack(np.frombuffer(data, np.uint8))


def plain(value: Any) -> Any:
    """Bytes arrive as views."""
    if isinstance(value, memoryview):
        return bytes(value)
    return {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def test_values_survive() -> None:
    assert plain(read(packed(VALUE))) == VALUE


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float32", ">i4", "int64", "bool"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3), (), (5000,)])
def test_arrays_survive(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(dtype)
    back = read(packed({"a": array[..., ::-1] if array.ndim else array}))["a"]
    np.testing.assert_array_equal(back, array[..., ::-1] if array.ndim else array)
    assert back.dtype == array.dtype and back.shape == shape


def test_large_arrays_are_not_copied() -> None:
    array = np.zeros(5000, np.uint8)
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pack({"a": array}))


def test_the_bytes_are_those_of_openpi_client() -> None:
    """An array of one float64 as that client packs it, and numpy's number beside it, byte by byte."""
    array = b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x08" + struct.pack("<d", 2.5)
    array += b"\xc4\x05dtype\xa3<f8\xc4\x05shape\x91\x01"
    number = b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xcb" + struct.pack(">d", 0.5) + b"\xc4\x05dtype\xa3<f4"
    value = read(b"\x82\xa1a" + array + b"\xa1n" + number)
    assert value["n"] == 0.5 and value["a"].tolist() == [2.5]


def test_the_library_reads_and_writes_the_same() -> None:
    msgpack = pytest.importorskip("msgpack")
    assert msgpack.unpackb(packed(VALUE)) == VALUE
    assert plain(read(msgpack.packb(VALUE))) == VALUE


def an_array(dtype: str = "<f8", shape: object = (1,), data: object = bytes(8)) -> bytes:
    return packed({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"Loading checkpoint shards...\n",
        b"\xc1",
        b"\x81\xa1a",  # breaks off
        b"\xdb\xff\xff\xff\xffabc",  # a text of four gigabytes
        b"\xdd\xff\xff\xff\xff",  # a list of four billion
        b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 20000,
        b"\x91" * 100 + b"\xc0",
        b"\xc0\xc0",
        b"\xa2\xff\xfe",  # no UTF-8
        b"\x81\x01\x01",  # a key that is a number
        b"\x81\x90\x01",
        b"\xd4\x01\x00",  # extension types: fixed, of a length, a timestamp
        b"\xc7\x01\x05\x00",
        b"\xd6\xff\x00\x00\x00\x00",
        an_array(dtype="|O"),
        an_array(dtype="|V8"),
        an_array(dtype="<c16"),
        an_array(dtype="<M8[ns]"),
        an_array(dtype="<f8,<f8"),
        an_array(shape=(2,)),
        an_array(shape=(-1,)),
        an_array(shape=(1 << 40, 1 << 40)),
        an_array(shape=(0, 1 << 62, 1 << 62), data=b""),
        an_array(shape=[1.0]),
        an_array(shape="1"),
        an_array(data="text"),
        an_array(shape=[1] * 40),
        packed({b"__ndarray__": True}),
        packed({b"__npgeneric__": True, b"data": b"12345678", b"dtype": "<f8"}),
    ],
)
def test_rubbish_is_a_sentence(rubbish: bytes) -> None:
    with pytest.raises(MonoError, match="msgpack"):
        read(rubbish)


def test_damage_of_any_kind_is_a_sentence_or_a_value() -> None:
    """Every cut of a message, and a thousand with a byte changed."""
    sound = packed({"history": np.zeros((4, 3)), "frames": {"front": [b"abc"]}, "stamp_ns": 1 << 40, "text": "möglich"})
    for length in range(len(sound)):
        with pytest.raises(MonoError):
            read(sound[:length])
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        data = bytearray(sound)
        data[random.integers(len(data))] = random.integers(256)
        try:
            read(bytes(data))
        except MonoError:
            refused += 1
    assert 100 < refused < 1000


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.array([1j]), 1 << 64, {1, 2}])
def test_what_does_not_travel_is_refused(value: object) -> None:
    with pytest.raises(MonoError):
        pack(value)
