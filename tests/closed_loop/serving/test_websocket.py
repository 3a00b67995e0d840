"""The websocket against bytes written out by hand from RFC 6455."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from closed_loop.serving.handshake import accept, connect, read_request
from closed_loop.serving.websocket import BINARY, PING, TEXT, ConnectionLostError, WebSocket
from collector.common.errors import MonoError

KEY = b"\x37\xfa\x21\x3d"  # of the RFC's examples
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # "Hello", masked


@pytest.fixture
def ends() -> Iterator[tuple[WebSocket, socket.socket]]:
    """A server's websocket, and the bare other end."""
    listener = socket.create_server(("127.0.0.1", 0))
    bare = socket.create_connection(listener.getsockname())
    connection, _ = listener.accept()
    bare.settimeout(5.0)
    yield WebSocket(connection, is_client=False), bare
    for each in (listener, bare, connection):
        each.close()


def masked(first: int, payload: bytes) -> bytes:
    size = len(payload)
    head = struct.pack(">BB", first, 0x80 | size) if size < 126 else struct.pack(">BBH", first, 0x80 | 126, size)
    return head + KEY + bytes(byte ^ KEY[at % 4] for at, byte in enumerate(payload))


def test_the_examples_of_the_rfc(ends: tuple[WebSocket, socket.socket]) -> None:
    websocket, bare = ends
    bare.sendall(HELLO)
    kind, data = websocket.receive(100, 1.0) or (0, np.empty(0))
    assert (kind, bytes(data)) == (TEXT, b"Hello")
    websocket.send(TEXT, [b"Hel", b"lo"], 1.0)
    assert bare.recv(100) == bytes.fromhex("810548656c6c6f")
    websocket.send(BINARY, [bytes(256)], 1.0)
    assert bare.recv(1000)[:4] == bytes.fromhex("827e0100")


def test_fragments_with_a_ping_between(ends: tuple[WebSocket, socket.socket]) -> None:
    websocket, bare = ends
    bare.sendall(masked(0x02, b"ab") + masked(0x89, b"?") + masked(0x00, b"") + masked(0x80, b"cde"))
    kind, data = websocket.receive(100, 1.0) or (0, np.empty(0))
    assert (kind, bytes(data)) == (BINARY, b"abcde")
    assert bare.recv(100) == b"\x8a\x01?", "the ping was answered"


@pytest.mark.parametrize(
    ("data", "says", "code"),
    [
        (b"GET / HTTP/1.1\r\n", "no websocket", 1002),
        (b"\x81\x05Hello", "masked", 1002),
        (masked(0xC2, b"a"), "no websocket", 1002),  # of an extension
        (masked(0x83, b"a"), "no websocket", 1002),
        (masked(0x80, b"a"), "out of order", 1002),
        (masked(0x02, b"a") + masked(0x82, b"a"), "out of order", 1002),
        (masked(0x09, b"a"), "control", 1002),
        (masked(0x89, b"a" * 126), "control", 1002),
        (masked(0x82, b"a" * 101), "limit 100", 1009),
        (masked(0x02, b"a" * 60) + masked(0x80, b"a" * 60), "limit 40", 1009),
        (b"\x82\xff" + b"\x7f" + b"\xff" * 7, "limit 100", 1009),
        (masked(0x02, b"") + masked(0x00, b"") * 1001, "1000 fragments", 1002),
        (masked(0x88, b"\x03\xe8bye"), "bye", 1000),
    ],
)
def test_what_breaks_the_protocol(ends: tuple[WebSocket, socket.socket], data: bytes, says: str, code: int) -> None:
    websocket, bare = ends
    bare.sendall(data)
    with pytest.raises(ConnectionLostError, match=says) as lost:
        websocket.receive(100, 2.0)
    assert lost.value.code == code


def test_silence_and_an_end_have_a_deadline(ends: tuple[WebSocket, socket.socket]) -> None:
    websocket, bare = ends
    bare.sendall(HELLO[:7])
    began_s = time.monotonic()
    with pytest.raises(ConnectionLostError, match="silent"):
        websocket.receive(100, 0.2)
    with pytest.raises(ConnectionLostError, match="silent"):
        websocket.send(BINARY, [bytes(1 << 25)], 0.2)  # nobody reads it
    assert time.monotonic() - began_s < 5.0
    bare.close()
    with pytest.raises(ConnectionLostError, match="gone"):
        websocket.receive(100, 2.0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 21])
def test_both_ends_of_ours(size: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    payload = np.arange(size, dtype=np.int64).astype(np.uint8)

    def echo() -> None:
        connection, _ = listener.accept()
        websocket = accept(connection, read_request(connection, 5.0))
        _, data = websocket.receive(size, 5.0) or (0, np.empty(0, np.uint8))
        websocket.send(BINARY, [data.data], 5.0)
        websocket.receive(size, 5.0)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    websocket = connect(*listener.getsockname(), 5.0)
    websocket.send(BINARY, [payload[: size // 3].data, payload[size // 3 :].data], 5.0)
    _, data = websocket.receive(size, 5.0) or (0, np.empty(0))
    np.testing.assert_array_equal(data, payload)
    websocket.send(PING, [b"?"], 1.0)
    assert websocket.receive(10, 5.0) is None
    websocket.close()
    websocket.close()
    listener.close()


def test_the_key_of_the_rfc() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    connection, _ = listener.accept()
    client.sendall(
        b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    accept(connection, read_request(connection, 1.0))
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.recv(1000)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(MonoError, match="websocket"):
        accept(connection, read_request(connection, 1.0))
    client.sendall(b"x" * 9000)
    with pytest.raises(ConnectionLostError, match="does not end"):
        read_request(connection, 1.0)


def test_an_end_whose_cable_was_pulled_is_noticed(ends: tuple[WebSocket, socket.socket]) -> None:
    """Sixteen of them would keep every other client away for ever."""
    with socket.socket(fileno=os.dup(ends[0].fileno())) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked = [
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
    assert asked[0] + asked[1] * asked[2] <= 30
