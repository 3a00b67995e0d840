"""The node's end: servers that die, hang, come back, come back as another, or answer nonsense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from closed_loop.ros.config import DriveParameters
from closed_loop.serving.child import open_policy
from closed_loop.serving.client import Answers, PlanReply, PolicyClient
from closed_loop.serving.handshake import accept, read_request
from closed_loop.serving.metadata import check_metadata, metadata_of
from closed_loop.serving.msgpack_numpy import pack
from closed_loop.serving.settings import PolicySpec
from closed_loop.serving.websocket import BINARY, TEXT, WebSocket
from collector.common.errors import MonoError
from collector.common.start import module_command
from finetune.policy import Observation
from tests.helpers.constant_curvature import ConstantCurvature
from tests.helpers.hostile_policies import serving
from tests.helpers.told import Told, observation, until

SPEC = PolicySpec("tests:Policy", {"cameras": "mono"})


Connect = Callable[..., tuple[PolicyClient, Told]]


@pytest.fixture
def to() -> Iterator[Connect]:
    clients: list[PolicyClient] = []

    def begin(port: int, answers: Answers | None = None, **settings: Any) -> tuple[PolicyClient, Told]:
        told = Told()
        clients.append(PolicyClient(("127.0.0.1", port), answers or told.answers, **settings))
        clients[-1].start()
        return clients[-1], told

    yield begin
    for client in clients:
        client.close()


def test_a_server_that_restarts_is_gone_on_with(to: Connect) -> None:
    with serving(ConstantCurvature) as server:
        port = server.port  # type: ignore[attr-defined]
        client, told = to(port)
        until(lambda: told.ready)
        client.submit(observation(1))
        until(lambda: told.plans)
    until(lambda: told.errors)
    assert "server has ended" in told.errors[0]
    client.submit(observation(2))  # of before the restart: too old when the server is back
    time.sleep(0.5)
    with serving(ConstantCurvature, port=port):
        until(lambda: len(told.ready) == 2)
        client.submit(observation(3))
        until(lambda: len(told.plans) == 2)
    assert [reply.plan.stamp_ns for reply in told.plans] == [1, 3] and not told.deaths


def test_other_settings_are_named() -> None:
    before, now = (metadata_of(PolicySpec("a:B", {"flow_steps": steps, "device": "cpu"})) for steps in (10, 9))
    with pytest.raises(MonoError, match=r"its settings now flow_steps 9\. Expected: flow_steps 10, as"):
        check_metadata(now, "mono", before)


def test_another_adapter_after_a_restart_is_the_end(to: Connect) -> None:
    with serving(ConstantCurvature, adapter={"name": "a", "sha256": "1" * 64}) as server:
        port = server.port  # type: ignore[attr-defined]
        _, told = to(port)
        until(lambda: told.ready)
    with serving(ConstantCurvature, port=port, adapter={"name": "b", "sha256": "2" * 64}):
        until(lambda: told.deaths)
    assert "came back as another, its adapter now b (sha256 222222222222)" in told.deaths[0]
    assert "Expected: a (sha256 111111111111), as when the drive began" in told.deaths[0]
    assert len(told.ready) == len(told.deaths) == 1


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"protocol": "2.0"}, "speaks protocol 2.0. Expected: protocol 1.x"),
        ({"protocol": None}, "none of alpamayo_mono"),
        ({"waypoints": 10}, "10 waypoints"),
        ({"cameras": {"front": 4}}, "looks at 4 of front, and this node sends 1 of front"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_at_the_start(to: Connect, metadata: dict[str, Any], says: str) -> None:
    with serving(ConstantCurvature, **metadata) as server:
        _, told = to(server.port)  # type: ignore[attr-defined]
        until(lambda: told.deaths)
        assert says in told.deaths[0] and not told.ready


def test_a_newer_minor_protocol_is_driven_by(to: Connect) -> None:
    with serving(ConstantCurvature, protocol="1.7", news="of a later version") as server:
        _, told = to(server.port)  # type: ignore[attr-defined]
        until(lambda: told.ready)


def test_a_wrong_token_is_the_end(to: Connect) -> None:
    with serving(ConstantCurvature, token="right") as server:
        _, told = to(server.port, token="wrong")  # type: ignore[attr-defined]
        until(lambda: told.deaths)
        assert "401" in told.deaths[0] and "wrong" not in told.deaths[0].replace("is wrong", "")


def test_nobody_there_is_said_and_given_up(to: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    _, told = to(port, give_up_s=0.5)
    until(lambda: told.deaths)
    assert "nobody answers" in told.errors[0] and "nobody answers" in told.deaths[0]
    assert len(told.errors) == 1, "said once, tried often"


def test_an_answer_that_takes_too_long_and_one_that_never_comes(to: Connect) -> None:
    with serving(lambda: ConstantCurvature(delay_s=1.0)) as server:
        client, told = to(server.port, timeout_s=0.2, give_up_s=0.5)  # type: ignore[attr-defined]
        for stamp_ns in (1, 2, 3):
            until(lambda n=stamp_ns: len(told.ready) == n)
            client.submit(observation(stamp_ns))
        until(lambda: told.deaths)
    assert ["no answer within 0.2 s" in each for each in told.errors] == [True, True]
    assert "for 1 s" in told.deaths[0] and not told.plans


def test_a_server_that_is_stopped_and_continued(to: Connect) -> None:
    command = [*module_command("closed_loop.cli"), "serve", "--port", "0"]
    command += ["--policy", "tests.helpers.constant_curvature:ConstantCurvature"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    client, told = to(int(process.stdout.readline().split(":")[1].split()[0]), timeout_s=0.3)
    until(lambda: told.ready)
    process.send_signal(signal.SIGSTOP)
    # On a busy machine a thread of the server may go on, and answer, until the signal has reached another one.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    client.submit(observation(1))
    until(lambda: told.errors)
    process.send_signal(signal.SIGCONT)
    until(lambda: len(told.ready) == 2)
    client.submit(observation(2))
    until(lambda: told.plans)
    assert told.plans[-1].plan.stamp_ns == 2
    process.kill()
    until(lambda: len(told.errors) == 2)
    process.communicate()


def plan_of(stamp_ns: int, **changes: Any) -> dict[str, Any]:
    return {"stamp_ns": stamp_ns, "poses": np.zeros((64, 3)), "reasoning": "", **changes}


ANSWERS: dict[str, tuple[int, Any]] = {
    "no msgpack": (BINARY, b"\xc1"),
    "a list": (BINARY, [1]),
    "another frame's": (BINARY, plan_of(8)),
    "no poses": (BINARY, {"stamp_ns": 1}),
    "short poses": (BINARY, plan_of(1, poses=np.zeros((10, 3)))),
    "texts": (BINARY, plan_of(1, poses=[["a"] * 3] * 64)),
    "reasoning nil": (BINARY, plan_of(1, reasoning=None)),
    "passes without end": (BINARY, plan_of(1, passes=float("inf"))),
    "times in words": (BINARY, plan_of(1, server_timing={"infer_ms": "long"})),
    "times in a list": (BINARY, plan_of(1, timings_ms=[1.0])),
    "an error": (TEXT, b"the model is tired"),
    "2 MB": (BINARY, bytes(2 << 20)),
    "an end": (8, b""),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_nonsense_is_an_error_and_the_next_answer_a_plan(to: Connect, what: str) -> None:
    kind, value = ANSWERS[what]
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(websocket: WebSocket, nonsense: bool) -> None:
        websocket.send(BINARY, pack(metadata_of(SPEC)), 5.0)
        while websocket.receive(1 << 20, 20.0):
            data = value if isinstance(value, bytes) else b"".join(map(bytes, pack(value)))
            websocket.send(kind if nonsense else BINARY, [data] if nonsense else pack(plan_of(2)), 5.0)
            nonsense = False

    def serve() -> None:
        nonsense = True
        while True:
            try:
                connection, _ = listener.accept()
                answer(accept(connection, read_request(connection, 5.0)), nonsense)
            except Exception:  # noqa: BLE001 -- the client has left
                nonsense = False
            if listener.fileno() < 0:
                return

    threading.Thread(target=serve, daemon=True).start()
    client, told = to(listener.getsockname()[1])
    until(lambda: told.ready)
    client.submit(observation(1))
    until(lambda: told.errors)
    until(lambda: client.idle)
    client.submit(observation(2))
    until(lambda: told.plans)
    assert not told.deaths and told.plans[0].plan.stamp_ns == 2
    listener.close()


def test_what_its_owner_does_wrong_is_said_and_no_end(to: Connect) -> None:
    told = Told()

    def full(_reply: PlanReply) -> None:
        told.plans.append(_reply)
        raise OSError(28, "No space left on device")

    answers = Answers(told.ready.append, full, told.errors.append, told.deaths.append, told.log.append)
    with serving(ConstantCurvature) as server:
        client, _ = to(server.port, answers)  # type: ignore[attr-defined]
        until(lambda: told.ready)
        for stamp_ns in (1, 2):
            client.submit(observation(stamp_ns))
            until(lambda n=stamp_ns: len(told.plans) == n and client.idle)
    assert "No space left on device" in told.log[-1] and "No space left" in told.errors[0] and not told.deaths


def test_jpeg_is_smaller_and_nearly_the_same(to: Connect) -> None:
    seen: list[np.ndarray] = []

    class Looking(ConstantCurvature):
        def plan(self, observed: Observation) -> Any:
            seen.append(observed.frames["front"].copy())
            return super().plan(observed)

    y, x = np.mgrid[0:96, 0:128]
    frame = np.stack([x, y, 100 + (x + y) // 4], -1).astype(np.uint8)[None]
    with serving(Looking) as server:
        for coding in ("raw", "jpeg"):
            client, told = to(server.port, coding=coding)  # type: ignore[attr-defined]
            until(lambda told=told: told.ready)
            client.submit(Observation(1, {"front": frame}, np.zeros((16, 3))))
            until(lambda told=told: told.plans)
    np.testing.assert_array_equal(seen[0], frame)
    difference = np.abs(seen[1].astype(int) - frame)
    assert difference.max() > 0 and difference.mean() < 2.0, "red is still red"


def test_a_node_is_told_one_thing_or_the_other() -> None:
    with pytest.raises(MonoError, match="adapter, samples, policy_python together with policy_server"):
        DriveParameters(policy_server="x:1", adapter="a", samples=4, policy_python="p")
    with pytest.raises(MonoError, match="host:port"):
        DriveParameters(policy_server="x")
    place = DriveParameters(policy_server="127.0.0.1:9", cameras="mono-4frames", frames="jpeg")
    told = Told()
    client = open_policy(place, told.answers, 0.2)
    until(lambda: told.deaths)
    assert client.name == "policy server 127.0.0.1:9"
    client.close()
