"""The guard: a small process that outlives the driving node, and brakes the kart when that node is gone.

AWSIM goes on with the last command it heard. A node that ends stops the kart itself; one that was killed, crashed in a
library or was stopped (SIGSTOP) cannot. So it starts this process with a pipe to it, and says at every control tick
what it commands. While that goes on, and after a clean end, the guard publishes nothing. When the pipe is closed
without a farewell, or silent for longer than :data:`SILENT_S`, it brakes at the last wheel angle until the kart stands.
A node that goes on after all (SIGCONT) has the kart again with its first tick: it has old inputs then, and brakes by
itself until they are fresh.

The publisher is there from the start, since finding each other takes a second where the machine is busy; whoever counts
the publishers of the topic knows this one by its node's name.

    python -m closed_loop.ros.guard STOP_MPS2 MESSAGES < PIPE
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from collector.common.start import module_command
from collector.ros import topics
from collector.ros.families import Family
from collector.ros.graph import GUARD_NODE
from collector.ros.message_packages import message_class
from collector.ros.session import LAUNCHER_VARIABLE, is_running, run_node
from collector.ros.transport import PROFILE_VARIABLES

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from collector.ros.session import Session

SILENT_S = 0.4  # sixteen control ticks: a busy machine holds one up for half of that
BRAKE_HZ = 50.0
STANDING_S = 0.5  # hardly moving for so long is at rest
SHORTEST_S, LONGEST_S = 1.0, 12.0  # of braking: so long where nobody says how fast the kart is
POLICY_GRACE_S = 2.0  # so long a policy may take to notice that its node is gone
_BEAT_S = 0.02
_POLICY, _FAREWELL = "policy", "farewell"


class Guard:
    """The driving node's end of the pipe. Never waits, and never raises once it has started."""

    def __init__(self, stop_mps2: float, family: Family) -> None:
        self._command = [*module_command("closed_loop.ros.guard"), str(stop_mps2), family.name]
        self._beat_s = self._started_s = 0.0
        self._policy = 0
        self._start()

    def _start(self) -> None:
        self._started_s = time.monotonic()
        # Of the profile for images only its shared memory would be taken. A session of its own: what is sent to the
        # node's terminal or process group must not reach the one that outlives it.
        left_out = (*PROFILE_VARIABLES, LAUNCHER_VARIABLE)
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env=environment, start_new_session=True, bufsize=0
        )
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)
        if self._policy:
            self._say(f"{_POLICY} {self._policy}")

    def beat(self, steer_rad: float, stamp_ns: int, steady_s: float) -> None:
        """Say that the node lives and what it commands; call it at every control tick."""
        if steady_s - self._beat_s >= _BEAT_S:
            self._beat_s = steady_s
            self._say(f"{steer_rad:.4f} {stamp_ns}")

    def policy(self, process: int) -> None:
        """Name the policy's process, which ends with the node: one that hangs would never see that it is gone."""
        self._policy = process
        self._say(f"{_POLICY} {process}")

    def farewell(self) -> None:
        """The kart was stopped: end without a word, and without waiting for that."""
        self._say(_FAREWELL)
        self._pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)

    def _say(self, line: str) -> None:
        try:
            os.write(self._pipe.fileno(), f"{line}\n".encode())  # shorter than what a pipe takes whole
        except BlockingIOError:
            pass  # it does not read at the moment, and the next line will do
        except OSError:  # it is gone: somebody killed it, and another one is needed
            if time.monotonic() - self._started_s > 1.0:
                self._pipe.close()
                self._process.wait()
                self._start()


class _Brake:
    """One braking: its commands, and an ear for whether the kart stands, which is there as long as it is needed."""

    def __init__(self, node: Node, family: Family, publisher: Publisher[Any], stop_mps2: float) -> None:
        self._node, self._publisher, self._stop_mps2 = node, publisher, stop_mps2
        self._family = family
        speed = family.topic(topics.VELOCITY_STATUS)
        self._ear = node.create_subscription(
            message_class(speed.type), speed.name, self._on_speed, topics.qos_profile(speed)
        )
        self._began_s = self._moved_s = time.monotonic()
        self._heard = False

    def _on_speed(self, message: topics.Message) -> None:
        self._heard = True
        if not abs(message.longitudinal_velocity) < topics.STANDING_MPS:
            self._moved_s = time.monotonic()

    def command(self, steer_rad: float, stamp_ns: int) -> None:
        """Publish one command; ``stamp_ns`` is the vehicle's time when the node was last heard of."""
        message = message_class(self._family.topic(topics.CONTROL_CMD).type)()
        stamp_ns += int((time.monotonic() - self._began_s) * 1e9)
        self._family.fill_command(message, stamp_ns, steer_rad, self._stop_mps2, 0.0)
        self._publisher.publish(message)

    @property
    def is_over(self) -> bool:
        """Whether the kart stands, or has been braked for as long as it takes at most."""
        now_s = time.monotonic()
        stands = self._heard and now_s - self._moved_s > STANDING_S
        return now_s - self._began_s > (SHORTEST_S if stands else LONGEST_S)

    def close(self) -> None:
        """Do without the ear."""
        self._node.destroy_subscription(self._ear)


class _Watchman:
    """The guard's process: reads the pipe, and brakes when nobody else does."""

    def __init__(self, node: Node, family: Family, stop_mps2: float) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._node, self._family, self._stop_mps2 = node, family, stop_mps2
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        command = family.topic(topics.CONTROL_CMD)
        self._publisher = node.create_publisher(message_class(command.type), command.name, topics.qos_profile(command))
        self._steer_rad, self._stamp_ns, self._beat_s = 0.0, 0, 0.0  # no beat yet: the node has commanded nothing
        self._policy = 0
        self._left = b""
        self._is_closed = self._is_farewell = False
        self._brake: _Brake | None = None
        self._stands = False

    def run(self, pipe: int) -> int:
        """Until the node has ended and the kart stands; 0."""
        closed_s = 0.0
        while not self._is_farewell:
            wait_s = 1.0 / BRAKE_HZ if self._brake else SILENT_S / 6.0
            if self._is_closed:
                time.sleep(wait_s)
            elif select.select([pipe], [], [], wait_s)[0]:
                self._read(pipe)
            now_s = time.monotonic()
            closed_s = closed_s or (now_s if self._is_closed else 0.0)
            self._guard(now_s)
            if self._is_closed and (not self._beat_s or (self._stands and not self._end_policy(now_s - closed_s))):
                break
        self._drop_brake()
        return 0

    def _read(self, pipe: int) -> None:
        data = os.read(pipe, 65536)
        self._is_closed = not data
        *lines, self._left = (self._left + data).split(b"\n")
        for line in lines:
            first, _, second = line.decode(errors="replace").partition(" ")
            if first == _FAREWELL:
                self._is_farewell = True
            elif first == _POLICY:
                self._policy = int(second)
            else:
                self._steer_rad, self._stamp_ns, self._beat_s = float(first), int(second), time.monotonic()

    def _guard(self, now_s: float) -> None:
        """Brake, go on braking, or leave the kart to the node."""
        if self._is_farewell or not self._beat_s:
            return
        if not self._is_closed and now_s - self._beat_s <= SILENT_S:
            self._drop_brake()
            self._stands = False
            return
        if self._stands:
            return
        if self._brake is None:
            self._brake = _Brake(self._node, self._family, self._publisher, self._stop_mps2)
            self._brake.command(self._steer_rad, self._stamp_ns)
            why = "is gone" if self._is_closed else f"says nothing since {now_s - self._beat_s:.1f} s"
            print(f"guard: the driving node {why}: braking", file=sys.stderr, flush=True)
        self._brake.command(self._steer_rad, self._stamp_ns)
        self._executor.spin_once(timeout_sec=0.0)
        if self._brake.is_over:
            self._stands = True
            self._drop_brake()

    def _drop_brake(self) -> None:
        if self._brake is not None:
            self._brake.close()
            self._brake = None

    def _end_policy(self, gone_s: float) -> bool:
        """Whether the policy is still there; when it had its time to leave, it is killed."""
        if not self._policy or not is_running(self._policy):
            return False
        if gone_s > POLICY_GRACE_S:
            with suppress(OSError):
                os.kill(self._policy, signal.SIGKILL)
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m closed_loop.ros.guard STOP_MPS2 MESSAGES``, with the pipe on its standard input."""
    words = sys.argv[1:] if arguments is None else arguments
    stop_mps2, family = float(words[0]), Family(words[1])

    def guard(_session: Session) -> int:
        from rclpy.node import Node

        node = Node(GUARD_NODE, start_parameter_services=False, enable_rosout=False)
        try:
            return _Watchman(node, family, stop_mps2).run(sys.stdin.fileno())
        finally:
            node.destroy_node()

    # Not the words of the command line, and no signal but SIGKILL: the node decides when this ends.
    return run_node(guard, [], has_images=False)


if __name__ == "__main__":
    sys.exit(main())
