"""Starting and ending a ROS node's process: signals, whoever started it, the executor, and errors as sentences.

Every node of this project runs through here, so that Ctrl-C, ``kill``, a closed terminal, a launcher that is gone, a
thread that failed and ``ros2 launch`` shutting down all end the same way: a flag is set, the node finishes its files,
then ROS goes away. (With rclpy's own handlers the context is gone first, and whatever publishes next raises.)
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO, TypeVar

from collector.common.errors import EXIT_USAGE, MonoError, require
from collector.common.files import sentence_of
from collector.ros.transport import check_domain, middleware_error, prepare_publisher

if TYPE_CHECKING:
    from rclpy.node import Node

SomeNode = TypeVar("SomeNode", bound="Node")
EXIT_FAILED = 1  # of a node that did not do what was asked of it
# Holds the process id of whoever starts a node and stays until it ends: `alpamayo-mono` and our launch files.
LAUNCHER_VARIABLE = "ALPAMAYO_MONO_LAUNCHER"
LAUNCHER_GONE = "its launcher is gone"
_LOOK_EVERY_S = 0.1
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One process's ROS life."""

    def __init__(self) -> None:
        self.stop = threading.Event()  # the process should end; nodes wait on it and set it themselves when done
        self.why = ""  # what asked for the end, for the last line a person reads
        self.failed = ""  # what went wrong, as a sentence; the exit code is then not 0
        self.joined_s = time.monotonic()  # when it joined its ROS domain: others are found some time after that

    def end(self, why: str) -> None:
        """Ask for a clean end; the first reason is kept."""
        if not self.stop.is_set():
            self.why = why
            self.stop.set()

    def fail(self, why: str) -> None:
        """Ask for an end that is none of success; the first reason is kept."""
        self.failed = self.failed or why
        self.end(why)

    @property
    def interrupted(self) -> bool:
        """Whether a person or a launcher asked for the end by a signal, a terminal that was closed not among them."""
        return self.why in (signal.SIGINT.name, signal.SIGTERM.name)

    def spin(self, node: Node) -> None:
        """Run a node's callbacks in this thread until the end is asked for."""
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not self.stop.is_set():
                executor.spin_once(timeout_sec=0.1)
        finally:
            executor.shutdown(timeout_sec=1.0)

    @contextmanager
    def spinning(self, node: Node) -> Iterator[None]:
        """Run a node's callbacks in a thread of their own while the body works."""
        thread = threading.Thread(target=self.spin, args=(node,), name="ros callbacks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.end("done")
            thread.join(5.0)


@contextmanager
def signals_to(handle: Callable[[str], object]) -> Iterator[None]:
    """Hand over the names of SIGINT, SIGTERM and SIGHUP (a closed terminal) instead of dying of them.

    SIGHUP stays ignored where whoever started us wants that, as ``nohup`` does.
    """

    def note(number: int, _frame: FrameType | None) -> None:
        handle(signal.Signals(number).name)

    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in _ENDING_SIGNALS if number != signal.SIGHUP or not is_kept]
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launcher_of(process: int, environment: dict[str, str] | None = None) -> int | None:
    """The process that must outlive a node: what the environment says, else its parent if that is ``ros2``.

    None for a node that was started by hand: a shell may be left, and a service manager has other ways.
    """
    said = (os.environ if environment is None else environment).get(LAUNCHER_VARIABLE, "")
    if said.isdecimal():
        return int(said)
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if any(os.path.basename(word) == b"ros2" for word in words[:3]):  # noqa: PTH119 - bytes
            return process
    return None


def is_running(process: int) -> bool:
    """Whether a process is there; one that has ended and that nobody has asked about since is not."""
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


@contextmanager
def ended_with_launcher(session: Session) -> Iterator[None]:
    """End the session when whoever started this process is gone, killed say: nobody else would."""
    launcher, over = launcher_of(os.getppid()), threading.Event()

    def watch() -> None:
        while launcher is not None and not over.wait(_LOOK_EVERY_S):
            if not is_running(launcher):
                session.fail(LAUNCHER_GONE)
                return

    thread = threading.Thread(target=watch, name="launcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def ended_by_failures(session: Session) -> Iterator[None]:
    """End the session when any thread of this process fails: nobody would notice that it does nothing any more."""
    before = threading.excepthook

    def note(failure: threading.ExceptHookArgs) -> None:
        # First the end, and with it the stop: whoever should print this may be gone.
        name = failure.thread.name if failure.thread is not None else "unknown"
        session.fail(f"the thread {name!r} failed: {failure.exc_value!r}")
        before(failure)

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before


class _Speech:
    """A text stream that goes on when nobody reads it any more: a closed terminal, ``| head``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            # What is still in the buffer goes nowhere, also when Python flushes it at its end.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def _unhindered_by_readers() -> Iterator[None]:
    """Print as ever, but never end because a terminal was closed: the kart is stopped and files are written then."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Speech(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def ros_session(arguments: Sequence[str] | None = None, has_images: bool = True) -> Iterator[Session]:
    """Initialise rclpy with our own signal handling, and take it down afterwards.

    The command line with ``--ros-args`` is by default the process's own; ``has_images`` takes shared memory for them.

    Raises:
        MonoError: rclpy is not installed, or it or the middleware below it does not start.
    """
    require("rclpy", "ros")
    check_domain()
    if has_images:
        prepare_publisher()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    session = Session()
    # A second signal while files are being finished changes nothing; SIGKILL remains.
    with signals_to(session.end), ended_by_failures(session), ended_with_launcher(session):
        try:
            rclpy.init(
                args=None if arguments is None else list(arguments), signal_handler_options=SignalHandlerOptions.NO
            )
        except RuntimeError as error:  # all of rclpy's own are
            raise middleware_error(error) from error
        session.joined_s = time.monotonic()
        try:
            yield session
        finally:
            session.end("done")
            rclpy.try_shutdown()


def node_main(
    make: Callable[[Session], SomeNode], work: Callable[[SomeNode], int], arguments: Sequence[str] | None = None
) -> int:
    """A node's process: make the node, have it work, and take it down; see :func:`run_node`."""

    def run(session: Session) -> int:
        try:
            node = make(session)
        except RuntimeError as error:
            if not is_of_ros(error):
                raise
            raise middleware_error(error) from error
        try:
            return work(node)
        finally:
            node.destroy_node()

    return run_node(run, arguments)


def is_of_ros(error: Exception) -> bool:
    """Whether rclpy's core raised it: joining the domain or making a publisher failed."""
    return "rclpy" in type(error).__module__


def run_node(run: Callable[[Session], int], arguments: Sequence[str] | None = None, has_images: bool = True) -> int:
    """Run one node's body in a session; its exit code.

    A :class:`MonoError` becomes a sentence and exit code 2; what failed on the way, 1 at least.
    """
    with _unhindered_by_readers():
        try:
            with ros_session(arguments, has_images) as session:
                return run(session) or (EXIT_FAILED if session.failed else 0)
        except (MonoError, OSError) as error:
            print(f"error: {sentence_of(error)}", file=sys.stderr)
            return EXIT_USAGE
