"""How a websocket begins (RFC 6455, section 4): a request of HTTP, and its answer or a refusal."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from closed_loop.serving.websocket import GOING_AWAY, ConnectionLostError, WebSocket, deadline
from collector.common.errors import MonoError

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the RFC
_MOST_HEAD_BYTES = 8192


class RefusedError(ConnectionLostError):
    """The other end answered the handshake with an HTTP status of its own."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a client asks for in its handshake."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case


def connect(host: str, port: int, within_s: float, token: str = "") -> WebSocket:
    """Open a websocket as a client.

    Raises:
        ConnectionLostError: nobody listens there, or no websocket answers within so many seconds.
        RefusedError: it answered with an HTTP status of its own (401, 503).
    """
    deadline_s = time.monotonic() + within_s
    try:
        connection = socket.create_connection((host, port), within_s)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise ConnectionLostError(f"nobody answers at {host}:{port} ({why})") from error
    try:
        return _opened(connection, f"{host}:{port}", deadline_s, token)
    except BaseException:
        connection.close()
        raise


def _opened(connection: socket.socket, name: str, deadline_s: float, token: str) -> WebSocket:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ["GET / HTTP/1.1", f"Host: {name}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    lines += [f"Authorization: Api-Key {token}"] if token else []
    with deadline(connection, deadline_s):
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    first, headers = _head(connection, deadline_s)
    words = first.split(" ", 2)
    status = int(words[1]) if first.startswith("HTTP/") and words[1:] and words[1].isdecimal() else 0
    if status not in (0, 101):
        raise RefusedError(status, f"{name} answers {' '.join(words[1:])!r}")
    if not status or headers.get("sec-websocket-accept") != _accept_key(key):
        raise ConnectionLostError(f"what answers at {name} is no websocket")
    return WebSocket(connection, is_client=True)


def read_request(connection: socket.socket, within_s: float) -> Request:
    """The head of what a client asks for.

    Raises:
        ConnectionLostError: gone, silent for so many seconds, or no HTTP.
    """
    first, headers = _head(connection, time.monotonic() + within_s)
    method, _, rest = first.partition(" ")
    path, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ConnectionLostError("no HTTP request")
    return Request(method, path, headers)


def answer(connection: socket.socket, status: str, body: str, headers: Sequence[str] = ()) -> None:
    """Answer a request with a plain page, as ``"200 OK"``; the connection ends with it."""
    text = body.encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(text)}"]
    head = "\r\n".join([*lines, "Connection: close", *headers]) + "\r\n\r\n"
    with deadline(connection, time.monotonic() + 1.0):
        connection.sendall(head.encode() + text)


def accept(connection: socket.socket, request: Request) -> WebSocket:
    """Answer a request with an open websocket; MonoError where it does not ask for one."""
    key = request.headers.get("sec-websocket-key", "")
    if request.method != "GET" or request.headers.get("upgrade", "").lower() != "websocket" or not key:
        raise MonoError(f"a request {request.method} {request.path}", "a websocket, or GET /healthz")
    if request.headers.get("sec-websocket-version") != "13":
        raise MonoError("a websocket of another version", "version 13 (RFC 6455)")
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {_accept_key(key)}")
    with deadline(connection, time.monotonic() + 1.0):
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return WebSocket(connection, is_client=False)


def _head(connection: socket.socket, deadline_s: float) -> tuple[str, dict[str, str]]:
    """First line and headers of a request or an answer, read byte by byte: what follows is the websocket's."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if len(head) > _MOST_HEAD_BYTES:
            raise ConnectionLostError("a handshake that does not end")
        with deadline(connection, deadline_s):
            byte = connection.recv(1)
        if not byte:
            raise ConnectionLostError("the other end has gone", GOING_AWAY)
        head += byte
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): text.strip() for name, _, text in pairs}


def _accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
