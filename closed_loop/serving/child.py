"""The policy as a child of the node: a server of its own, with any Python interpreter, that ends with the node."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from closed_loop.serving.client import CLOSE_S, Answers, PolicyClient
from closed_loop.serving.settings import TOKEN_VARIABLE, PolicyPlace, PolicySpec, address, read_token
from collector.common.cpu import plan_in_one_thread
from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT
from collector.common.start import module_command
from collector.ros.transport import WHEELS_GUARD

# Environments are told apart by these; a child with another interpreter must not inherit ours.
FOREIGN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", WHEELS_GUARD)
_LOCAL = "127.0.0.1"


def child_environment(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a policy process.

    With the running interpreter everything is inherited and the project's folder is added to its path. Another
    interpreter must not see this one's packages (those of a sourced ROS, for instance): it gets the project's folder
    alone, and only where that is a source tree and not somebody's site-packages.
    """
    child = dict(environment)
    child.pop(TOKEN_VARIABLE, None)  # of some other server
    plan_in_one_thread(child)
    if not python or Path(python).absolute() == Path(sys.executable).absolute():
        child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT_ROOT), child.get("PYTHONPATH", "")]))
        return child
    for name in FOREIGN_VARIABLES:
        child.pop(name, None)
    if PROJECT_ROOT.name not in ("site-packages", "dist-packages"):
        child["PYTHONPATH"] = str(PROJECT_ROOT)
    return child


class PolicyProcess(PolicyClient):
    """A client whose server is a process of its own, started here on a port that the system chooses.

    To be made in a thread that outlives it, as the main one does: the child ends with the thread that started it.

    Raises:
        MonoError: the interpreter cannot be started.
    """

    def __init__(self, spec: PolicySpec, answers: Answers, **settings: Any) -> None:  # noqa: ANN401 - of PolicyClient
        super().__init__((_LOCAL, 0), answers, secrets.token_urlsafe(24), **settings)
        self._last_words: deque[str] = deque(maxlen=5)
        self._failed = ""
        self._told = threading.Event()  # of the port, or of the end
        self._python = python = spec.python or sys.executable
        try:
            # Its own session: Ctrl-C in the terminal reaches the driver alone, which then ends the child.
            self._process = subprocess.Popen(
                module_command("closed_loop.serving.worker", python, "-u"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(spec.python, os.environ),
                start_new_session=True,
            )
        except OSError as error:
            found = f"the policy process could not be started with {python} ({error})"
            expected = "a Python interpreter with alpamayo_mono and torch"
            raise MonoError(found, expected, "set the parameter policy_python") from error
        self.pid = self._process.pid
        first = {"policy": spec.policy, "options": dict(spec.options), "token": self._token, "parent": os.getpid()}
        with suppress(OSError):  # gone already: whoever watches it says why
            self._process.stdin.write(json.dumps(first).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        self._readers = [
            threading.Thread(target=target, args=(stream,), daemon=True, name=f"policy {target.__name__}")
            for target, stream in ((self._hear, self._process.stdout), (self._listen, self._process.stderr))
        ]
        for thread in (*self._readers, threading.Thread(target=self._watch, daemon=True, name="policy watch")):
            thread.start()

    @property
    def name(self) -> str:
        """The policy as a log may call it."""
        return f"policy process {self.pid}"

    def close(self, within_s: float = CLOSE_S) -> None:
        """End the child: it leaves when its input closes, and is killed, with what it started, if it does not."""
        began_s = time.monotonic()
        super().close(within_s / 4)
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, within_s - (time.monotonic() - began_s)))
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._readers:
            thread.join(0.2)

    def _where(self) -> tuple[str, int, str]:
        self._told.wait()
        if not self._server[1]:
            raise MonoError(self._ending())
        return super()._where()

    def _lost(self, why: str) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
            return  # it is dead, and not only unheard: that is said elsewhere
        super()._lost(why)

    def _watch(self) -> None:
        self._process.wait()
        # Its last words arrive in other threads, and a process that it left behind may keep these waiting.
        for thread in self._readers:
            thread.join(1.0)
        self._told.set()
        self._die(self._ending())

    def _ending(self) -> str:
        code = self._process.wait()
        ending = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        said = "; ".join(filter(None, [self._failed or " | ".join(self._last_words), ending]))
        if self._failed or self._server[1]:
            return said
        found = f"{self._python} ended before it served a policy ({said})"
        return str(MonoError(found, "a Python with alpamayo_mono and its extra [model]", "set policy_python to one"))

    def _hear(self, stream: IO[bytes]) -> None:
        for line in stream:
            with suppress(ValueError, AttributeError):
                told = json.loads(line)
                self._failed = str(told.get("failed", ""))
                if type(told.get("port")) is int:
                    self._server = (_LOCAL, told["port"])
                    self._told.set()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last_words.append(text)
                with suppress(Exception):
                    self._answers.log(text)


def open_policy(place: PolicyPlace, answers: Answers, give_up_s: float) -> PolicyClient:
    """A client of the policy that a node's settings name: on a server, or in a process of its own.

    Raises:
        MonoError: the interpreter cannot be started, or the token cannot be read.
    """
    settings = {
        "mode": place.cameras,
        "coding": place.frames,
        "timeout_s": place.policy_timeout_s,
        "give_up_s": give_up_s,
    }
    client: PolicyClient
    if place.policy_server:
        token = read_token(place.policy_token_file)
        client = PolicyClient(address(place.policy_server), answers, token, **settings)  # type: ignore[arg-type]
    else:
        client = PolicyProcess(place.spec(place.policy_python), answers, **settings)
    client.start()
    return client
