"""The node's end of a policy server: newest frame in, plans out, and never a wait in the caller.

Inference takes from milliseconds to seconds, and what does it may hang, die, or live on a machine whose cable was
pulled; the control loop must notice nothing of the waiting, and all of the rest. So one thread here does the waiting.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closed_loop.serving.handshake import RefusedError, connect
from closed_loop.serving.messages import MOST_PLAN_BYTES, observation_message, read_plan
from closed_loop.serving.metadata import check_metadata, description, says_instructions
from closed_loop.serving.msgpack_numpy import pack, unpack
from closed_loop.serving.settings import FrameCoding, PolicyParameters, PolicyPlace
from closed_loop.serving.websocket import BINARY, PING, TEXT, ConnectionLostError, WebSocket, readable
from collector.common.errors import MonoError
from finetune.policy import Observation, Plan

_CONNECT_S, _PING_S = 2.0, 2.0
_SOONEST_S, _LATEST_S = 0.1, 1.0  # between two attempts to connect
CLOSE_S = 2.0  # the longest that a node waits for its policy to end
_LOADING = 503  # of HTTP: ask again
DEFAULT_PLACE = PolicyPlace()


@dataclass(frozen=True)
class PlanReply:
    """A plan, and what it cost inside the policy and from handing the frame over to having it."""

    plan: Plan
    compute_ms: float
    round_trip_ms: float


@dataclass(frozen=True)
class Answers:
    """Whom the client tells what; called in its thread. They must be short and take their own locks."""

    on_ready: Callable[[float], None]  # the policy may be asked; with the seconds that loading took. Again after a loss
    on_plan: Callable[[PlanReply], None]
    on_error: Callable[[str], None]  # a request that failed, or a connection that was lost; it goes on
    on_death: Callable[[str], None]  # once, with the reason: there will be no plans any more
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr)


class PolicyClient:
    """Asks one policy server, over and over; one frame is in flight at a time and only the newest waits.

    A connection that is lost is made again, with a back-off; what waited is dropped then, since a newer frame is asked
    for by ``on_ready``. After ``give_up_s`` without any answer there is no hope left (``on_death``).
    """

    pid = 0  # of the server's process, where that is a child of ours

    def __init__(
        self,
        server: tuple[str, int],
        answers: Answers,
        token: str = "",
        mode: str = PolicyParameters.cameras,
        coding: FrameCoding = DEFAULT_PLACE.frames,
        timeout_s: float = DEFAULT_PLACE.policy_timeout_s,
        give_up_s: float = 30.0,
    ) -> None:
        self._server, self._answers, self._token = server, answers, token
        self._mode, self._coding, self._timeout_s, self._give_up_s = mode, coding, timeout_s, give_up_s
        self._condition = threading.Condition()
        self._waiting: Observation | None = None
        self._idle = self._closing = self._dead = self._in_flight = False  # idle from the first "ready" on
        self._socket: WebSocket | None = None
        self._bell, self._ringer = socket.socketpair()
        self._ringer.setblocking(False)
        self._away_s: float | None = None  # steady clock, since when nobody can be reached
        self._unanswered_s = 0.0  # waited in vain, since the last answer
        self.metadata: Mapping[str, Any] | None = None  # what the server said of itself
        self.skipped = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="policy client")

    @property
    def name(self) -> str:
        """The policy as a log may call it."""
        return f"policy server {self._server[0]}:{self._server[1]}"

    @property
    def idle(self) -> bool:
        """Loaded, and neither working nor about to."""
        with self._condition:
            return self._idle and self._waiting is None

    @property
    def takes_instructions(self) -> bool:
        """Whether the policy has said so; False before it is there."""
        return says_instructions(self.metadata)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def submit(self, observation: Observation) -> None:
        """Offer a frame and return at once. A frame still waiting is replaced: the newest wins."""
        with self._condition:
            self.skipped += self._waiting is not None
            self._waiting = observation
        self._ring()

    def close(self, within_s: float = CLOSE_S) -> None:
        """Let go of the server. Safe to call twice, and quick whatever the server does."""
        with self._condition:
            self._closing = True
            if self._socket is not None:
                self._socket.cut()
        self._ring()
        if self._thread.is_alive():
            self._thread.join(within_s)

    def _where(self) -> tuple[str, int, str]:
        """Host, port and token of the server (MonoError: there will be none)."""
        return (*self._server, self._token)

    def _lost(self, why: str) -> None:
        """The connection is gone, and will be made again."""
        self._tell(self._answers.on_error, f"{self.name}: {why}")

    def _die(self, why: str) -> None:
        with self._condition:
            if self._closing or self._dead:
                return
            self._dead, self._idle = True, False
        self._tell(self._answers.on_death, why)

    def _ring(self) -> None:
        with suppress(OSError):
            self._ringer.send(b"!")

    def _tell(self, callback: Callable[[Any], None], what: object) -> None:
        """Call back; what the one called does wrong is said, and is not the end of this thread."""
        try:
            callback(what)
        except Exception as error:  # noqa: BLE001 -- as it says
            self._answers.log(f"what came from the {self.name} could not be dealt with: {error!r}")
            if callback not in (self._answers.on_error, self._answers.on_death):
                self._tell(self._answers.on_error, f"not dealt with here: {error!r}")

    def _run(self) -> None:
        wait_s, said = _SOONEST_S, ""
        while not self._closing and not self._dead:
            try:
                self._converse(self._greet())
            except MonoError as error:
                self._die(str(error))
            except ConnectionLostError as error:
                connected = self._idle or self._in_flight
                with self._condition:
                    self._waiting, self._idle, self._in_flight, self._socket = None, False, False, None
                if self._closing:
                    break
                now_s = time.monotonic()
                self._away_s = self._away_s or now_s
                silent_s = max(now_s - self._away_s, self._unanswered_s)
                if silent_s > self._give_up_s:
                    self._die(f"{self.name}: {error}, for {silent_s:.0f} s")
                elif connected or str(error) != said:
                    said = str(error)
                    self._lost(said)
                wait_s = _SOONEST_S if connected else min(2 * wait_s, _LATEST_S)
                time.sleep(wait_s)
            except Exception as error:  # noqa: BLE001 -- a thread that ends unheard leaves the kart waiting for ever
                self._die(f"{self.name}: {error!r}")

    def _greet(self) -> WebSocket:
        """A connection over which the server has said that it is ready."""
        host, port, token = self._where()
        try:
            websocket = connect(host, port, _CONNECT_S, token)
        except RefusedError as error:
            if error.status == _LOADING:
                raise
            found = f"the {self.name} refuses this node ({error})"
            do = "give its token by policy_token_file" if error.status == 401 else "name a policy server"
            raise MonoError(found, "alpamayo-mono serve", do) from error
        with self._condition:
            self._socket = websocket
            if self._closing:
                websocket.cut()
        try:
            data = self._metadata(websocket)
            metadata = check_metadata(data, self._mode, self.metadata)
        except BaseException:
            websocket.close()
            raise
        if self.metadata is None:
            self._answers.log(f"{self.name}: {description(metadata)}")
        self.metadata = metadata
        return websocket

    def _metadata(self, websocket: WebSocket) -> object:
        """What the server says when it is ready; while it loads it only answers pings."""
        pinged_s = heard_s = time.monotonic()
        while True:
            if readable(websocket, within_s=_PING_S):
                message = websocket.receive(MOST_PLAN_BYTES, _CONNECT_S)
                heard_s = time.monotonic()
                if message is not None:
                    return _unpacked(*message)
            if time.monotonic() - heard_s > max(self._give_up_s, 2 * _PING_S):
                raise ConnectionLostError(f"silent for {time.monotonic() - heard_s:.0f} s while its model loads")
            if time.monotonic() - pinged_s > _PING_S:
                pinged_s = time.monotonic()
                websocket.send(PING, [b"loading"], _CONNECT_S)

    def _converse(self, websocket: WebSocket) -> None:
        with self._condition:
            self._waiting, self._idle, self._away_s = None, True, None  # what waited is old by now
        try:
            load_s = self.metadata.get("load_s", 0.0) if self.metadata else 0.0
            self._tell(self._answers.on_ready, float(load_s) if isinstance(load_s, (int, float)) else 0.0)
            while (observation := self._next(websocket)) is not None:
                self._in_flight = True
                self._ask(websocket, observation)
                self._unanswered_s = 0.0
                with self._condition:
                    self._idle, self._in_flight = True, False
        finally:
            websocket.close()

    def _next(self, websocket: WebSocket) -> Observation | None:
        """The frame to ask about, when there is one; None when this end closes."""
        while True:
            with self._condition:
                if self._closing:
                    return None
                if self._waiting is not None:
                    observation, self._waiting, self._idle = self._waiting, None, False
                    return observation
            ends = readable(websocket, self._bell, within_s=None)
            if self._bell in ends:
                self._bell.recv(64)
            if websocket in ends and websocket.receive(MOST_PLAN_BYTES, self._timeout_s) is not None:
                raise ConnectionLostError("it answered what nobody asked")

    def _ask(self, websocket: WebSocket, observation: Observation) -> None:
        """Send a frame, wait for its answer, and tell of it."""
        sent_s = time.monotonic()
        deadline_s = sent_s + self._timeout_s
        websocket.send(BINARY, pack(observation_message(observation, self._coding)), self._timeout_s)
        message = None
        while message is None:
            if not readable(websocket, within_s=deadline_s - time.monotonic()):
                self._unanswered_s += self._timeout_s
                raise ConnectionLostError(f"no answer within {self._timeout_s:g} s")
            message = websocket.receive(MOST_PLAN_BYTES, max(0.1, deadline_s - time.monotonic()))
        try:
            plan, server_ms = read_plan(_unpacked(*message), observation.stamp_ns)
        except MonoError as error:
            self._tell(self._answers.on_error, str(error) if message[0] == BINARY else error.found)
            return
        round_trip_ms = (time.monotonic() - sent_s) * 1e3
        reply = PlanReply(plan, server_ms.get("infer_ms", round_trip_ms), round_trip_ms)
        self._tell(self._answers.on_plan, reply)


def _unpacked(kind: int, data: NDArray[np.uint8]) -> object:
    """What a message holds (MonoError: it is an error, of which a text tells, or no msgpack)."""
    if kind == TEXT:
        raise MonoError(bytes(data).decode(errors="replace"))
    return unpack(data)
