"""The policy server: one policy, planning in a thread of its own, and a thread for each client that asks it.

openpi's protocol (``openpi_client.websocket_client_policy``): at the handshake the server sends its metadata, then one
binary message in is one out, msgpack both; a text is an error, in a sentence. ``/healthz`` answers 503 while the model
loads and 200 from then on. Frames of several clients are planned in the order in which they came, one of each client
at a time; what a client does or fails to do holds up nobody but itself.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closed_loop.serving.handshake import Request, accept, answer, read_request
from closed_loop.serving.messages import MOST_OBSERVATION_BYTES, Message, plan_message, read_observation
from closed_loop.serving.msgpack_numpy import Buffer, pack, unpack
from closed_loop.serving.websocket import (
    BINARY,
    GOING_AWAY,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    ConnectionLostError,
    WebSocket,
    readable,
)
from collector.common.errors import MonoError
from finetune.policy import NO_INSTRUCTIONS, TAKES_INSTRUCTIONS, Observation, Policy, takes_instructions

_MOST_CLIENTS, _MOST_CONNECTIONS = 16, 64
_HANDSHAKE_S, _TAKE_S = 5.0, 10.0  # a client that is slower is dropped: in its request, in a message either way
_LINGER_S = 3.0  # for one that is refused while it sends


@dataclass(eq=False)
class _Client:
    """A client, between its own thread and that of the policy."""

    websocket: WebSocket
    name: str
    bell: socket.socket  # rung when `reply` is there, or when the server's state has changed
    ringer: socket.socket
    observation: Observation | None = None
    began_s: float = 0.0  # steady clock, when its message was there
    decode_ms: float = 0.0
    previous_ms: float | None = None  # of the answer before, sending included
    reply: tuple[int, list[Buffer]] | None = None
    gone: bool = False

    def ring(self) -> None:
        with suppress(OSError):
            self.ringer.send(b"!")


@dataclass(eq=False)
class PolicyServer:
    """Serves what ``make`` makes, on a socket that listens; :meth:`run` until :meth:`end`."""

    listener: socket.socket
    make: Callable[[], Policy]  # called in the policy's thread; may take minutes
    metadata: Message
    token: str = ""  # asked of every client, empty for none
    say: Callable[[str], None] = lambda line: _print(line)  # noqa: PLW0108 - defined below
    failed: str = ""  # why there is no policy
    _clients: set[_Client] = field(default_factory=set)
    _jobs: deque[_Client] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ready: bool = False
    _closing: bool = False
    _connections: int = 0

    def run(self) -> None:
        """Load and serve; returns when closed.

        Raises:
            MonoError: there is no policy.
        """
        # A policy that forks must not keep our connections open when we are gone.
        os.register_at_fork(after_in_child=self._let_go)
        threads = [threading.Thread(target=target, daemon=True) for target in (self._plan, self._accept)]
        for thread in threads:
            thread.start()
        with self._changed:
            # In slices: a signal's handler runs in this thread, between them.
            while not self._closing and not self.failed:
                self._changed.wait(0.2)
        self.close()
        if self.failed:
            raise MonoError(self.failed)

    def end(self) -> None:
        """Have :meth:`run` return; safe to call from a signal's handler."""
        self._closing = True

    def close(self) -> None:
        """Tell every client that the server goes away. Safe to call twice."""
        self._closing = True
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in [*self._clients]:
            client.ring()
        deadline_s = time.monotonic() + 0.5
        while self._clients and time.monotonic() < deadline_s:
            time.sleep(0.01)

    # The policy's thread.

    def _plan(self) -> None:
        began_s, process = time.monotonic(), os.getpid()
        try:
            policy = self.make()
            # What is made for the first plan is made before anybody waits for it.
            getattr(policy, "warm_up", lambda: None)()
        except BaseException as error:  # noqa: BLE001 -- whatever stops the model from loading is the server's answer
            with self._changed:
                self.failed = _sentence(error)
                self._changed.notify_all()
            return
        with self._changed:
            heeds = takes_instructions(policy)
            load_s = round(time.monotonic() - began_s, 3)
            self.metadata = {**self.metadata, "load_s": load_s, "instructions": heeds}
            self._ready = True
            clients = [*self._clients]
        self.say(f"policy ready after {self.metadata['load_s']:.1f} s")
        for client in clients:
            client.ring()
        last: _Client | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                client = self._jobs.popleft()
            observation, client.observation = client.observation, None
            if client.gone or observation is None:
                continue
            start_s = time.monotonic()
            try:
                if last is not client:  # another kart: what was said to the one before is not said to it
                    getattr(policy, "forget", lambda: None)()
                    last = client
                if observation.instruction and not heeds:
                    raise MonoError(NO_INSTRUCTIONS, TAKES_INSTRUCTIONS, "leave out the prompt")  # noqa: TRY301
                message = plan_message(policy.plan(observation), observation.stamp_ns)
                done_s = time.monotonic()
                timing_ms = {
                    "infer_ms": (done_s - start_s) * 1e3,
                    "decode_ms": client.decode_ms,
                    "queue_ms": max(0.0, (start_s - client.began_s) * 1e3 - client.decode_ms),
                }
                if client.previous_ms is not None:
                    timing_ms["prev_total_ms"] = client.previous_ms
                reply = BINARY, pack({**message, "server_timing": timing_ms})
            except BaseException as error:  # noqa: BLE001 -- a policy may raise anything, and the next frame is another
                reply = TEXT, [_sentence(error).encode(errors="replace")]
            if os.getpid() != process:
                os._exit(0)  # the policy forked, and this is the copy: only one of the two may answer
            client.reply = reply
            client.ring()

    # The clients' threads.

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, where = self.listener.accept()
            except OSError:
                time.sleep(0.05)  # closing, or no file numbers left
                continue
            with self._changed:
                self._connections += 1
                crowded = self._connections > _MOST_CONNECTIONS
            if crowded:
                self._end(connection)
                continue
            name = f"{where[0]}:{where[1]}"
            threading.Thread(target=self._welcome, args=(connection, name), daemon=True).start()

    def _end(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections -= 1
        connection.close()

    def _welcome(self, connection: socket.socket, name: str) -> None:
        try:
            request = read_request(connection, _HANDSHAKE_S)
            if request.path == "/healthz":
                answer(connection, *(("200 OK", "OK\n") if self._ready else ("503 Service Unavailable", "loading\n")))
            elif "origin" in request.headers:
                answer(connection, "403 Forbidden", "web pages are not served\n")
            elif not self._is_known(request):
                answer(connection, "401 Unauthorized", "the token is wrong or missing\n", ["WWW-Authenticate: Api-Key"])
            elif len(self._clients) >= _MOST_CLIENTS:
                answer(connection, "503 Service Unavailable", f"there are {_MOST_CLIENTS} clients already\n")
            else:
                self._converse(accept(connection, request), name)
        except MonoError as error:
            with suppress(ConnectionLostError):
                answer(connection, "426 Upgrade Required", f"{error}\n", ["Upgrade: websocket"])
        except ConnectionLostError:
            pass  # before it was a client
        except Exception:  # noqa: BLE001 -- a stranger must not end anything, and what it was should be seen
            self.say(traceback.format_exc())
        finally:
            self._end(connection)

    def _is_known(self, request: Request) -> bool:
        """openpi-client sends ``Api-Key``; others like ``Bearer`` better."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() in ("api-key", "bearer") else ""
        return not self.token or hmac.compare_digest(given.encode("latin-1", "replace"), self.token.encode())

    def _converse(self, websocket: WebSocket, name: str) -> None:
        bell, ringer = socket.socketpair()
        ringer.setblocking(False)
        client = _Client(websocket, name, bell, ringer)
        with self._changed:
            self._clients.add(client)
        self.say(f"client {name} has come")
        why, code = "closed", GOING_AWAY
        try:
            self._attend(client)
        except ConnectionLostError as error:
            why, code = str(error), error.code
        finally:
            client.gone = True
            with self._changed:
                self._clients.discard(client)
            refused = code in (PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG)
            with suppress(ConnectionLostError):
                if refused:
                    websocket.send(TEXT, [why.encode()], 0.2)
            websocket.close(code, why, _LINGER_S if refused else 0.0)
            bell.close()
            ringer.close()
            self.say(f"client {name} has left: {why}")

    def _attend(self, client: _Client) -> None:
        greeted = asked = False
        while not self._closing:
            if self._ready and not greeted:
                client.websocket.send(BINARY, pack(self.metadata), _TAKE_S)
                greeted = True
            ends = readable(client.websocket, client.bell, within_s=None)
            if client.bell in ends:
                client.bell.recv(64)
            if client.reply is not None:
                kind, pieces = client.reply
                client.reply, asked = None, False
                client.websocket.send(kind, pieces, _TAKE_S)
                client.previous_ms = (time.monotonic() - client.began_s) * 1e3
            if client.websocket not in ends:
                continue
            message = client.websocket.receive(MOST_OBSERVATION_BYTES + 65536, _TAKE_S)
            if message is None:
                continue
            if asked or not greeted:
                why = "one frame at a time: wait for the answer" if greeted else "wait for the metadata before asking"
                raise ConnectionLostError(why, POLICY_VIOLATION)
            asked = self._take(client, *message)
        raise ConnectionLostError("the server has ended", GOING_AWAY)

    def _take(self, client: _Client, kind: int, data: NDArray[np.uint8]) -> bool:
        """Queue what a client asks; False where it was refused, in a sentence, and the client may ask again."""
        client.began_s = time.monotonic()
        try:
            if kind != BINARY:
                raise MonoError("a text", "a binary message of msgpack", "correct the sender")  # noqa: TRY301
            observation = read_observation(unpack(data))
        except Exception as error:  # noqa: BLE001 -- what strangers send raises what it likes
            client.websocket.send(TEXT, [_sentence(error).encode(errors="replace")], _TAKE_S)
            return False
        client.decode_ms = (time.monotonic() - client.began_s) * 1e3
        with self._changed:
            client.observation = observation
            self._jobs.append(client)
            self._changed.notify_all()
        return True

    def _let_go(self) -> None:
        """In a process that the policy forked: what is open here is not its own."""
        for number in [self.listener.fileno(), *(client.websocket.fileno() for client in self._clients)]:
            with suppress(OSError):
                os.close(number)


def _sentence(error: BaseException) -> str:
    """An error as its client reads it; what is no sentence of ours is shown in full on stderr."""
    if isinstance(error, MonoError):
        return str(error)
    _print("".join(traceback.format_exception(error)))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text[:1500]


def _print(text: str) -> None:
    """On stderr, where there still is one: whoever reads it may have left, and a policy may have closed it."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
