"""A websocket (RFC 6455) over a TCP socket: whole messages, a deadline on every wait, and a limit on every size.

Both ends of ours use it, and any other websocket speaks with it: no extensions, fragments are joined, pings answered.
Written out for the same reasons as :mod:`closed_loop.serving.msgpack_numpy`, and because libraries copy a picture of
six megabytes many times on its way.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from closed_loop.serving.msgpack_numpy import Buffer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# Reasons of a close frame.
GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1001, 1002, 1008, 1009, 1011

Message = tuple[int, NDArray[np.uint8]]  # TEXT or BINARY, and its bytes
# Seconds of silence until the system asks the other end's, between two such questions, and how many go unanswered.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class ConnectionLostError(Exception):
    """The other end is gone, silent beyond the deadline, or breaks the protocol; the connection is of no use any more.

    ``code`` is what to tell it in a close frame.
    """

    def __init__(self, why: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(why)
        self.code = code


class WebSocket:
    """One end of an open websocket. One thread may receive while another closes; sending is one thread's."""

    def __init__(self, connection: socket.socket, is_client: bool) -> None:
        self._socket, self._is_client = connection, is_client
        # A plan is small and waited for: not to be held back until more comes.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Whoever waits without a deadline would wait for ever for an end whose cable was pulled.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        """For ``select``; nothing is ever read ahead, so what it says is so."""
        return self._socket.fileno()

    def send(self, kind: int, pieces: Sequence[Buffer], within_s: float) -> None:
        """Send a message in one frame.

        Raises:
            ConnectionLostError: the other end is gone, or has not taken it within so many seconds.
        """
        size = sum(len(piece) for piece in pieces)
        length = size if size < 126 else 126 if size < 1 << 16 else 127
        head = struct.pack(">BB", 0x80 | kind, length | (0x80 if self._is_client else 0))
        head += struct.pack(">H" if length == 126 else ">Q", size) if length > 125 else b""
        if self._is_client:
            key = os.urandom(4)
            head += key
            body = np.empty(size, np.uint8)
            at = 0
            for piece in pieces:
                body[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
            _mask(body, key)
            pieces = [body.data]
        # What is small goes out in one packet.
        if size < 1 << 16:
            pieces = [head + b"".join(bytes(piece) for piece in pieces)]
            head = b""
        deadline_s = time.monotonic() + within_s
        for piece in (head, *pieces):
            self._send_all(memoryview(piece), deadline_s)

    def receive(self, most_bytes: int, within_s: float, answer_pings: bool = True) -> Message | None:
        """The next message, or None for a ping or pong.

        Raises:
            ConnectionLostError: closed, gone, silent for so many seconds, larger than ``most_bytes``, or no websocket.
        """
        deadline_s = time.monotonic() + within_s
        parts: list[NDArray[np.uint8]] = []
        first, size = CONTINUATION, 0
        while True:
            kind, last, part = self._frame(most_bytes - size, deadline_s)
            if kind == CLOSE:
                why = bytes(part[2:]).decode(errors="replace")
                raise ConnectionLostError("the other end closed the connection" + (f" ({why})" if why else ""), 1000)
            if kind == PING and answer_pings:
                self.send(PONG, [part.data], max(0.1, deadline_s - time.monotonic()))
            if kind in (PING, PONG):
                if not parts:
                    return None
                continue
            if (kind == CONTINUATION) != bool(parts):
                raise ConnectionLostError("fragments out of order")
            first = first or kind
            parts.append(part)
            size += len(part)
            if len(parts) > 1000:
                raise ConnectionLostError("a message in more than 1000 fragments")
            if last:
                return first, parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self, code: int = 1000, why: str = "", linger_s: float = 0.0) -> None:
        """Say goodbye where the other end still listens, and let go of the socket. Safe to call twice.

        One that is still sending would be reset before it has read why: for ``linger_s`` what comes is thrown away.
        """
        with suppress(ConnectionLostError):
            self.send(CLOSE, [struct.pack(">H", code) + why.encode()[:120]], 0.2)
        deadline_s = time.monotonic() + linger_s
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left_s := deadline_s - time.monotonic()) > 0:
                self._socket.settimeout(left_s)
                if not self._socket.recv(1 << 16):
                    break
        self.cut()
        self._socket.close()

    def cut(self) -> None:
        """End the connection at once, also for a thread that waits for it now; any thread may do so."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _frame(self, most_bytes: int, deadline_s: float) -> tuple[int, bool, NDArray[np.uint8]]:
        first, second = self._read(2, deadline_s).tolist()
        kind, size, masked = first & 15, second & 127, bool(second & 128)
        if first & 0x70 or kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ConnectionLostError(f"no websocket frame (first byte 0x{first:02x})")
        if masked == self._is_client:
            raise ConnectionLostError("a frame that is masked though it must not be, or not though it must")
        if kind >= CLOSE and (size > 125 or not first & 128):
            raise ConnectionLostError("a control frame that is long or fragmented")
        if size > 125:
            (size,) = struct.unpack(">H" if size == 126 else ">Q", self._read(2 if size == 126 else 8, deadline_s).data)
        if kind < CLOSE and size > most_bytes:
            raise ConnectionLostError(f"a message of {size} bytes or more, limit {most_bytes}", TOO_BIG)
        key = self._read(4, deadline_s).tobytes() if masked else b""
        body = self._read(size, deadline_s)
        if key:
            _mask(body, key)
        return kind, bool(first & 128), body

    def _read(self, size: int, deadline_s: float) -> NDArray[np.uint8]:
        # numpy asks the system for memory without touching it: what is announced and never sent costs none.
        data = np.empty(size, np.uint8)
        view, at = data.data, 0
        while at < size:
            with deadline(self._socket, deadline_s):
                count = self._socket.recv_into(view[at:])
            if not count:
                raise ConnectionLostError("the other end has gone", GOING_AWAY)
            at += count
        return data

    def _send_all(self, view: memoryview, deadline_s: float) -> None:
        at = 0
        while at < len(view):
            with deadline(self._socket, deadline_s):
                at += self._socket.send(view[at:])


class deadline:  # noqa: N801 - a block, as contextlib's
    """Within it a socket waits until the deadline; what goes wrong is a ConnectionLostError."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._socket, self._deadline_s = connection, deadline_s

    def __enter__(self) -> None:
        with suppress(OSError):
            self._socket.settimeout(max(1e-3, self._deadline_s - time.monotonic()))

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise ConnectionLostError("the other end is silent", GOING_AWAY) from error
        if isinstance(error, (OSError, ValueError)):
            why = getattr(error, "strerror", None) or str(error)
            raise ConnectionLostError(f"the other end has gone ({why})", GOING_AWAY) from error


def readable(*ends: WebSocket | socket.socket, within_s: float | None) -> list[WebSocket | socket.socket]:
    """Those of the ends that have something to read, after so many seconds none; None waits on.

    Raises:
        ConnectionLostError: one of them was closed meanwhile.
    """
    try:
        # Not select.select, which knows no file number beyond 1023.
        poll = select.poll()
        for end in ends:
            poll.register(end, select.POLLIN)
        found = {number for number, _ in poll.poll(None if within_s is None else max(0.0, within_s) * 1e3)}
        return [end for end in ends if end.fileno() in found]
    except (OSError, ValueError) as error:
        raise ConnectionLostError("the connection was closed", GOING_AWAY) from error


def _mask(data: NDArray[np.uint8], key: bytes) -> None:
    """XOR with the four bytes, in place."""
    whole = len(data) & ~3
    words = data[:whole].view(np.uint32)
    words ^= np.frombuffer(key, np.uint32)[0]
    data[whole:] ^= np.frombuffer(key, np.uint8)[: len(data) - whole]
