"""The server: every policy that breaks its contract, every client that does, and none of them in another's way."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from closed_loop.serving.handshake import RefusedError, connect
from closed_loop.serving.messages import observation_message
from closed_loop.serving.msgpack_numpy import pack, unpack
from closed_loop.serving.server import PolicyServer
from closed_loop.serving.websocket import BINARY, PING, TEXT, ConnectionLostError, WebSocket
from collector.common.files import PROJECT_ROOT
from collector.common.start import module_command
from finetune.policy import Observation, Plan
from tests.helpers.constant_curvature import ConstantCurvature
from tests.helpers.hostile_policies import Odd, serving

FRAMES = np.arange(36 * 64 * 3, dtype=np.int64).astype(np.uint8).reshape(1, 36, 64, 3)


def message(stamp_ns: int = 1, **changes: Any) -> dict[str, Any]:
    return observation_message(Observation(stamp_ns, {"front": FRAMES}, np.zeros((16, 3)), 2.5), "raw") | changes


def reply(websocket: WebSocket, within_s: float = 10.0) -> Any:
    """The next answer: a map, or the sentence of an error."""
    while (received := websocket.receive(1 << 20, within_s)) is None:
        pass
    kind, data = received
    return bytes(data).decode() if kind == TEXT else unpack(data)


def ask(websocket: WebSocket, value: object) -> Any:
    websocket.send(BINARY, pack(value), 10.0)
    return reply(websocket)


@contextmanager
def client(server: PolicyServer, token: str = "") -> Iterator[WebSocket]:
    websocket = connect("127.0.0.1", server.port, 5.0, token)  # type: ignore[attr-defined]
    assert reply(websocket)["protocol"] == "1.1"
    yield websocket
    websocket.close()


def health(server: PolicyServer, headers: dict[str, str] | None = None, path: str = "/healthz") -> tuple[int, str]:
    asked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)  # type: ignore[attr-defined]
    asked.request("GET", path, headers=headers or {})
    answer = asked.getresponse()
    return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def sound() -> Iterator[PolicyServer]:
    with serving(ConstantCurvature) as server:
        yield server


def test_a_plan_and_its_times(sound: PolicyServer) -> None:
    with client(sound) as websocket:
        first, second = ask(websocket, message(5)), ask(websocket, message(6, speed_mps=None))
    assert first["poses"].shape == (64, 3) and first["reasoning"] == "Hold the wheel still."
    assert (first["stamp_ns"], second["stamp_ns"]) == (5, 6)
    assert first["server_timing"].keys() == {"infer_ms", "decode_ms", "queue_ms"}
    assert second["server_timing"]["prev_total_ms"] >= second["server_timing"]["infer_ms"] >= 0.0


class Heeding(ConstantCurvature):
    """Says what it was asked."""

    takes_instructions = True

    def plan(self, observation: Observation) -> Plan:
        return replace(super().plan(observation), reasoning=observation.instruction)


def test_instructions_reach_a_policy_that_takes_them(sound: PolicyServer) -> None:
    assert "prompt" not in message()  # which no server before protocol 1.1 knows
    with serving(Heeding) as server:
        websocket = connect("127.0.0.1", server.port, 5.0)  # type: ignore[attr-defined]
        assert reply(websocket)["instructions"] is True
        seen = Observation(7, {"front": FRAMES}, np.zeros((16, 3)), 2.5, "keep left")
        assert ask(websocket, observation_message(seen, "raw"))["reasoning"] == "keep left"
        assert ask(websocket, message(8))["reasoning"] == ""
        assert "'moon' is not understood" in ask(websocket, message(9, prompt="to the moon"))
        assert "the prompt 7" in ask(websocket, message(9, prompt=7))
        assert ask(websocket, message(9, prompt="左に寄って"))["stamp_ns"] == 9
        websocket.close()
    with client(sound) as websocket:
        assert "takes none" in ask(websocket, message(5, prompt="keep left"))
        assert ask(websocket, message(6, prompt=""))["stamp_ns"] == 6


def test_health_and_metadata_while_loading() -> None:
    loaded = threading.Event()

    def make() -> ConstantCurvature:
        loaded.wait(10.0)
        return ConstantCurvature()

    with serving(make) as server:
        assert health(server) == (503, "loading\n")
        early = connect("127.0.0.1", server.port, 5.0)  # type: ignore[attr-defined]
        early.send(PING, [b"?"], 1.0)
        assert early.receive(10, 5.0) is None, "a server that loads answers pings"
        loaded.set()
        metadata = reply(early)
        assert metadata["load_s"] > 0.0 and metadata["cameras"] == {"front": 1} and metadata["waypoints"] == 64
        assert health(server) == (200, "OK\n")
        assert health(server, path="/")[0] == 426
        early.close()


def test_who_may_ask() -> None:
    with serving(ConstantCurvature, token="secret word".replace(" ", "-")) as server:
        port = server.port  # type: ignore[attr-defined]
        for token in ("", "secret", "secret-wort", "secret-word "[:0]):
            with pytest.raises(RefusedError, match="401"):
                connect("127.0.0.1", port, 5.0, token)
        with client(server, "secret-word") as websocket:
            assert ask(websocket, message())["stamp_ns"] == 1
        assert health(server)[0] in (200, 503), "needs no token"
        upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
        assert health(server, upgrade | {"Authorization": "Bearer secret"}, "/")[0] == 401
        assert health(server, upgrade | {"Authorization": "Bearer secret-word", "Origin": "http://a"}, "/")[0] == 403


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("none", "plan() returned None"),
        ("a_list", "plan() returned [array"),
        ("short", "(10, 3)"),
        ("objects", "type object"),
        ("ragged", "poses of shape"),
        ("no_timings", "timings"),
        ("long_reasoning", "268435456 characters"),
        ("numbered_reasoning", "the reasoning 7"),
        ("exits", "SystemExit: enough"),
        ("interrupts", "KeyboardInterrupt"),
        ("missing", "AttributeError"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_an_error_and_goes_on(how: str, says: str) -> None:
    with serving(lambda: Odd(how)) as server, client(server) as websocket:
        assert says in ask(websocket, message(1))
        assert ask(websocket, message(2))["reasoning"] == "sound"


@pytest.mark.parametrize("how", ["lists", "no_reasoning", "not_finite", "wrong_stamp", "forks"])
def test_what_a_policy_may_do(how: str) -> None:
    with serving(lambda: Odd(how)) as server, client(server) as websocket:
        plan = ask(websocket, message(7))
        assert plan["stamp_ns"] == 7 and plan["poses"].dtype == np.float64 and plan["reasoning"] == ""
        assert np.isnan(plan["poses"]).all() == (how == "not_finite")
        assert ask(websocket, message(8))["reasoning"] == "sound"


def jpeg(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def claiming(width: int, height: int) -> bytes:
    """A small JPEG that says it is a large one."""
    data = bytearray(jpeg(16, 16))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def hiding(marker: int) -> bytes:
    """A JPEG of 2000 x 2000 that says 16 x 16 to whoever takes what follows this marker for its length."""
    data = jpeg(2000, 2000)
    skipped = int.from_bytes(data[2:4], "big")
    small = bytes(skipped - 22) + b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03"
    return data[:2] + bytes([0xFF, marker]) + data[2:20] + b"\xff\xfe\xff\xfd" + small.ljust(65531, b"\0") + data[20:]


BAD = {
    "a list": [1, 2],
    "a number": 7,
    "another key": message(prompt="drive"),
    "no stamp": {"frames": {"front": FRAMES}, "history": np.zeros((16, 3))},
    "a stamp with a point": message() | {"stamp_ns": 1.0},
    "a stamp below zero": message() | {"stamp_ns": -1},
    "a true stamp": message() | {"stamp_ns": True},
    "a speed that is no number": message(speed_mps=float("nan")),
    "a speed in words": message(speed_mps="fast"),
    "a short history": message(history=np.zeros((15, 3))),
    "a history not finite": message(history=np.full((16, 3), np.inf)),
    "a history of words": message(history=[["a", "b", "c"]] * 16),
    "ragged history": message(history=[[1.0, 2.0], [3.0]]),
    "no frames": message(frames={}),
    "frames without a camera": message(frames=FRAMES),
    "empty frames": message(frames={"front": FRAMES[:0]}),
    "frames of floats": message(frames={"front": FRAMES.astype(np.float32)}),
    "frames with four channels": message(frames={"front": np.zeros((1, 4, 4, 4), np.uint8)}),
    "flat frames": message(frames={"front": np.zeros(100, np.uint8)}),
    "too many frames": message(frames={"front": np.zeros((17, 4, 4, 3), np.uint8)}),
    "too many cameras": message(frames={str(n): FRAMES for n in range(9)}),
    "no JPEG": message(frames={"front": [b"\x89PNG\r\n"]}),
    "half a JPEG": message(frames={"front": [jpeg(64, 64)[:30]]}),
    "a torn header": message(frames={"front": [b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10]}),
    "JPEGs of two sizes": message(frames={"front": [jpeg(16, 16), jpeg(16, 32)]}),
    "a JPEG of 4 gigapixels": message(frames={"front": [claiming(65535, 65535)]}),
    "many large JPEGs": message(frames={"front": [claiming(4000, 4000)] * 16}),
    "a JPEG that hides its size": message(frames={"front": [hiding(0x01)]}),
    "a JPEG that hides its size behind a restart": message(frames={"front": [hiding(0xD0)]}),
    "a JPEG that hides its size behind nothing": message(frames={"front": [hiding(0x00)]}),
    "a JPEG without pixels": message(frames={"front": [claiming(0, 16)]}),
    "no JPEGs": message(frames={"front": []}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_message_is_a_sentence_and_the_client_may_go_on(sound: PolicyServer, what: str) -> None:
    with client(sound) as websocket:
        said = ask(websocket, BAD[what])
        assert isinstance(said, str) and "Expected: " in said and "Traceback" not in said
        assert ask(websocket, message(3))["stamp_ns"] == 3


def test_other_bad_messages(sound: PolicyServer) -> None:
    with client(sound) as websocket:
        websocket.send(BINARY, [b"Loading checkpoint shards"], 1.0)
        assert "msgpack" in reply(websocket)
        websocket.send(TEXT, [b"plan, please"], 1.0)
        assert "a text" in reply(websocket)
    with client(sound) as websocket:
        websocket.send(BINARY, [bytes(200 << 20)], 10.0)
        assert "209715200 bytes" in reply(websocket)
    assert health(sound)[0] == 200


def test_a_damaged_jpeg_that_decodes_is_a_plan_and_a_sound_one_is_nearly_the_frame(sound: PolicyServer) -> None:
    observation = Observation(1, {"front": FRAMES}, np.zeros((16, 3)))
    with client(sound) as websocket:
        assert ask(websocket, observation_message(observation, "jpeg"))["stamp_ns"] == 1


def test_one_frame_at_a_time() -> None:
    with serving(lambda: ConstantCurvature(delay_s=0.3)) as server, client(server) as websocket:
        websocket.send(BINARY, pack(message(1)), 1.0)
        websocket.send(BINARY, pack(message(2)), 1.0)
        assert "one frame at a time" in reply(websocket)
        with pytest.raises(ConnectionLostError, match="one frame at a time"):
            reply(websocket)
        assert health(server)[0] == 200


def test_several_clients_are_served_in_turn_and_forgotten_between() -> None:
    class Remembering(ConstantCurvature):
        forgot = 0

        def forget(self) -> None:
            Remembering.forgot += 1

    with serving(lambda: Remembering(delay_s=0.05)) as server, client(server) as one, client(server) as other:
        for stamp_ns in (1, 2):
            assert [ask(each, message(stamp_ns))["stamp_ns"] for each in (one, other)] == [stamp_ns] * 2
        assert Remembering.forgot == 4
        for each in (one, other):
            each.send(BINARY, pack(message(3)), 1.0)
        assert [reply(each)["stamp_ns"] for each in (other, one)] == [3, 3]
        Remembering.forgot = 4
        ask(one, message(3))
        Remembering.forgot = 4
        assert [ask(one, message(stamp_ns))["stamp_ns"] for stamp_ns in (4, 5)] == [4, 5]
        assert Remembering.forgot == 4, "the same kart goes on"


def test_slow_silent_and_vanished_clients_hold_up_nobody(sound: PolicyServer) -> None:
    port = sound.port  # type: ignore[attr-defined]
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    with client(sound) as slow, client(sound) as gone, client(sound) as quick:
        whole = b"".join(bytes(piece) for piece in pack(message(1)))
        slow._socket.sendall(b"\x82\xfe" + len(whole).to_bytes(2, "big") + b"abcd" + whole[:100])  # and no more
        gone.send(BINARY, pack(message(1)), 1.0)
        gone._socket.close()
        began_s = time.monotonic()
        assert ask(quick, message(9))["stamp_ns"] == 9
        assert time.monotonic() - began_s < 2.0
    for each in silent:
        each.close()


def test_seventeen_clients() -> None:
    with serving(ConstantCurvature) as server:
        port = server.port  # type: ignore[attr-defined]
        clients = [connect("127.0.0.1", port, 5.0) for _ in range(16)]
        assert all(reply(each)["protocol"] for each in clients)
        with pytest.raises(RefusedError, match="503"):
            connect("127.0.0.1", port, 5.0)
        clients[0].close()
        time.sleep(0.3)
        connect("127.0.0.1", port, 5.0).close()
        for each in clients:
            each.close()


def test_serve_plans_in_one_thread_like_the_process_that_a_node_starts() -> None:
    code = """
import os, sys
from closed_loop.serving import command
command._listen = lambda *_: sys.exit(f"{os.environ['OMP_NUM_THREADS']} {'torch' in sys.modules}")
command.main([])
"""
    for given, threads in (({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | given
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True, cwd=PROJECT_ROOT
        )
        assert done.stderr.strip() == f"{threads} False"  # set before torch is there to read it


def start_serve(*words: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """Verb ``serve`` as a process, and its port."""
    command = [*module_command("closed_loop.cli"), "serve", "--port", "0", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving on 127.0.0.1:"), line
    return process, int(line.split(":")[1].split()[0])


def test_the_verb(tmp_path: Any) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    words = ["--policy", "tests.helpers.constant_curvature:ConstantCurvature", "--cameras", "mono-4frames"]
    process, port = start_serve(*words, "--token-file", str(tmp_path / "token"), ALPAMAYO_MONO_TOKEN="another")
    websocket = connect("127.0.0.1", port, 5.0, "from-a-file")
    metadata = reply(websocket, 20.0)
    assert metadata["cameras"] == {"front": 4} and metadata["policy"].endswith("ConstantCurvature")
    assert ask(websocket, message(4))["stamp_ns"] == 4
    process.send_signal(signal.SIGTERM)
    with pytest.raises(ConnectionLostError, match="server has ended"):
        reply(websocket)
    said = process.communicate(timeout=10)[0]
    assert process.returncode == 0 and "serve ended: SIGTERM" in said and "from-a-file" not in said


def test_the_verb_ends_though_its_policy_hangs() -> None:
    process, port = start_serve("--policy", "tests.helpers.hostile_policies:Hanging")
    websocket = connect("127.0.0.1", port, 5.0)
    assert reply(websocket)["policy"].endswith("Hanging")
    websocket.send(BINARY, pack(message()), 1.0)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert "serve ended: SIGINT" in process.communicate(timeout=10)[0]
    with pytest.raises(ConnectionLostError, match="nobody answers"):
        connect("127.0.0.1", port, 1.0)


CLIENT = """
import sys, numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
frames = {"front": np.zeros((1, 36, 64, 3), np.uint8)}
plan = policy.infer({"stamp_ns": 3, "frames": frames, "history": np.zeros((16, 3)), "speed_mps": np.float32(2.0)})
print(policy.get_server_metadata()["protocol"], plan["poses"].shape, plan["server_timing"]["infer_ms"] > 0)
"""


def test_openpi_client(sound: PolicyServer) -> None:
    pytest.importorskip("openpi_client")
    pytest.importorskip("typing_extensions")  # which it needs and does not ask for
    port = str(sound.port)  # type: ignore[attr-defined]
    said = subprocess.check_output([sys.executable, "-c", CLIENT, port], text=True, timeout=60)
    assert said.split() == ["1.1", "(64,", "3)", "True"]
