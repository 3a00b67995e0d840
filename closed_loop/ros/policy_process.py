"""The driver's end of the policy process: newest frame in, plans out, and never a wait in the caller.

Inference takes from milliseconds to seconds and may crash; the control loop must notice neither. So the model lives in
a child process, with any Python interpreter, and two threads here do the waiting.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from closed_loop.ros.protocol import pack_observation, read_message, unpack_plan, write_message
from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT
from collector.common.start import module_command
from collector.ros.transport import WHEELS_GUARD
from finetune.policy import Observation, Plan

DEFAULT_POLICY = "finetune.alpamayo_policy:AlpamayoPolicy"
# Environments are told apart by these; a child with another interpreter must not inherit ours.
FOREIGN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", WHEELS_GUARD)


@dataclass(frozen=True)
class PolicySpec:
    """Which policy to run where."""

    policy: str = DEFAULT_POLICY  # `"module:Class"` of a `finetune.policy.Policy`
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of that class (JSON values)
    python: str = ""  # interpreter of the child, empty for the running one


@dataclass(frozen=True)
class PlanReply:
    """A plan, and what it cost inside the policy and from handing the frame over to having it."""

    plan: Plan
    compute_ms: float
    round_trip_ms: float


def child_environment(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a policy process.

    With the running interpreter everything is inherited and the project's folder is added to its path. Another
    interpreter must not see this one's packages (those of a sourced ROS, for instance): it gets the project's folder
    alone, and only where that is a source tree and not somebody's site-packages.
    """
    child = dict(environment)
    # Threads that wait for each other by spinning make a small model many times slower on busy cores.
    child.setdefault("OMP_NUM_THREADS", "1")
    if not python or Path(python).absolute() == Path(sys.executable).absolute():
        child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT_ROOT), child.get("PYTHONPATH", "")]))
        return child
    for name in FOREIGN_VARIABLES:
        child.pop(name, None)
    if PROJECT_ROOT.name not in ("site-packages", "dist-packages"):
        child["PYTHONPATH"] = str(PROJECT_ROOT)
    return child


class PolicyProcess:
    """Runs one policy in a child process; one request is in flight at a time and only the newest waits.

    The callbacks run in this object's reader thread: they must be short and take their own locks.

    Raises:
        MonoError: the interpreter cannot be started.
    """

    def __init__(
        self,
        spec: PolicySpec,
        on_ready: Callable[[float], None],  # called with the seconds that loading took
        on_plan: Callable[[PlanReply], None],
        on_error: Callable[[str], None],  # called with the text of a request that failed; the process goes on
        on_death: Callable[[str], None],  # called once with the reason when the process ended without being asked to
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self._on_ready, self._on_plan, self._on_error = on_ready, on_plan, on_error
        self._on_death, self._log = on_death, log
        self._condition = threading.Condition()
        self._waiting: Observation | None = None
        self._idle = self._closing = False  # idle from the first "ready" on
        self._sent_at_s = 0.0
        self._last_words: deque[str] = deque(maxlen=5)
        self.skipped = 0
        python = spec.python or sys.executable
        try:
            # Its own session: Ctrl-C in the terminal reaches the driver alone, which then ends the child.
            self._process = subprocess.Popen(
                module_command("closed_loop.ros.policy_worker", python, "-u"),
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
        first = {"policy": spec.policy, "options": dict(spec.options)}
        self._threads = [
            threading.Thread(target=target, args=arguments, daemon=True, name=f"policy {target.__name__}")
            for target, arguments in (
                (self._send_loop, (self._process.stdin, first)),
                (self._receive_loop, (self._process.stdout,)),
                (self._listen, (self._process.stderr,)),
            )
        ]
        for thread in self._threads:
            thread.start()
        self.pid = self._process.pid

    @property
    def idle(self) -> bool:
        """Loaded, and neither working nor about to."""
        with self._condition:
            return self._idle and self._waiting is None

    def submit(self, observation: Observation) -> None:
        """Offer a frame and return at once. A frame still waiting is replaced: the newest wins."""
        with self._condition:
            self.skipped += self._waiting is not None
            self._waiting = observation
            self._condition.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the child: it leaves when its input closes, and is killed if it does not. Safe to call twice."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._threads[0].join(timeout_s)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(timeout_s)

    def _send_loop(self, stream: IO[bytes], first: Mapping[str, Any]) -> None:
        try:
            write_message(stream, first)
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._closing or (self._idle and self._waiting is not None))
                    if self._closing or self._waiting is None:
                        break
                    observation, self._waiting, self._idle = self._waiting, None, False
                self._sent_at_s = time.monotonic()
                write_message(stream, *pack_observation(observation))
        except OSError:
            pass  # the child is gone; the receiving thread says so, with its last words
        with suppress(OSError):
            stream.close()

    def _receive_loop(self, stream: IO[bytes]) -> None:
        why = ""
        try:
            while (message := read_message(stream)) is not None:
                header, arrays = message
                if "failed" in header:
                    why = header["failed"]
                    break
                if "ready" in header:
                    self._on_ready(header["load_s"])
                elif "error" in header:
                    self._on_error(header["error"])
                else:
                    round_trip_ms = (time.monotonic() - self._sent_at_s) * 1e3
                    self._on_plan(PlanReply(unpack_plan(header, arrays), header["compute_ms"], round_trip_ms))
                with self._condition:
                    self._idle = True
                    self._condition.notify()
        except (MonoError, OSError, KeyError, ValueError) as error:
            why = str(error)
            self._process.kill()  # what it says cannot be trusted any more
        with self._condition:
            self._idle = False
            if self._closing:
                return
        code = self._process.wait()
        # The last lines on stderr arrive in another thread.
        self._threads[2].join(1.0)
        ending = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        self._on_death("; ".join(filter(None, [why or " | ".join(self._last_words), ending])))

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last_words.append(text)
                self._log(text)
