"""Starting and ending a ROS node's process: signals, the executor, and errors as sentences.

Every node of this project runs through here, so that Ctrl-C, ``kill`` and ``ros2 launch`` shutting down all end the
same way: a flag is set, the node finishes its files, then ROS goes away. (With rclpy's own handlers the
context is gone first, and whatever publishes next raises.)
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from collector.common.errors import EXIT_USAGE, MonoError, require
from collector.common.files import sentence_of
from collector.ros.transport import prepare_publisher

if TYPE_CHECKING:
    from rclpy.node import Node

SomeNode = TypeVar("SomeNode", bound="Node")


class Session:
    """One process's ROS life."""

    def __init__(self) -> None:
        self.stop = threading.Event()  # the process should end; nodes wait on it and set it themselves when done
        self.why = ""  # what asked for the end, for the last line a person reads

    def end(self, why: str) -> None:
        """Ask for a clean end; the first reason is kept."""
        if not self.stop.is_set():
            self.why = why
            self.stop.set()

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
    """Hand over the names of SIGINT and SIGTERM instead of dying of them."""

    def note(number: int, _frame: FrameType | None) -> None:
        handle(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ros_session(arguments: Sequence[str] | None = None) -> Iterator[Session]:
    """Initialise rclpy with our own signal handling, and take it down afterwards; MonoError where it is not installed.

    The command line with ``--ros-args`` is by default the process's own.
    """
    require("rclpy", "ros")
    prepare_publisher()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    session = Session()
    # A second signal while files are being finished changes nothing; SIGKILL remains.
    with signals_to(session.end):
        rclpy.init(args=None if arguments is None else list(arguments), signal_handler_options=SignalHandlerOptions.NO)
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
        node = make(session)
        try:
            return work(node)
        finally:
            node.destroy_node()

    return run_node(run, arguments)


def run_node(run: Callable[[Session], int], arguments: Sequence[str] | None = None) -> int:
    """Run one node's body in a session; a :class:`MonoError` becomes a sentence and exit code 2."""
    try:
        with ros_session(arguments) as session:
            return run(session)
    except (MonoError, OSError) as error:
        print(f"error: {sentence_of(error)}", file=sys.stderr)
        return EXIT_USAGE
