"""Who else speaks on a topic that only one may speak on: another controller, another simulator.

The graph names publishers within a second, but goes on naming one that was killed for up to 20 s, and one that says
nothing does no harm. So the graph raises a suspicion, and a subscription made on it decides. Asking the graph takes
0.03 ms.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collector.common.errors import MonoError
from collector.ros import topics
from collector.ros.conversions import stamp_ns_of
from collector.ros.message_packages import message_class
from collector.ros.topics import Message, Topic, qos_profile

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

# The process that brakes where a driver of ours is gone: it speaks for that driver.
GUARD_NODE = "alpamayo_guard"
# Cyclone finds others in one second, Fast DDS in half a second; both need twice that on a machine that is busy.
DISCOVERY_S = 2.5
# For a message of somebody suspected: the slowest that may speak there do so at 10 Hz, but on a busy machine the first
# comes to a new ear after a second or more, and a second driver then began to drive.
_LISTEN_S = 2.5
LOOK_S = 0.25
_UNNAMED = "a node without a name"
FORGET_S = 1.0  # so long after its last message somebody counts as speaking
_UNORDERED = 3  # stamps of a clock that do not grow, before they are those of two


@dataclass(frozen=True)
class Sole:
    """A topic with one speaker, and what to say where there are more."""

    topic: Topic
    allowed: int  # publishers that belong there beside our own
    reason: str  # in two words, as a reason to brake
    do: str

    def error(self, who: str) -> MonoError:
        """What to raise when others speak there."""
        found = f"{self.reason}: {who} on {self.topic.name}"
        return MonoError(found, f"one publisher of {self.topic.name} in this ROS domain", self.do)


_APART = "end one of them, or give each a ROS_DOMAIN_ID of its own"
ONE_CONTROLLER = Sole(topics.CONTROL_CMD, 0, "another controller", f"{_APART}; a simulator's own driver: expert:=false")
ONE_SIMULATOR = Sole(topics.CLOCK, 1, "two simulators", _APART)
NO_SIMULATOR = Sole(topics.CLOCK, 0, "another simulator", _APART)


class UnorderedClock:
    """Tells the clocks of two by their stamps, which do not grow; one that was started anew steps back once."""

    def __init__(self) -> None:
        self._last_ns, self._steps = 0, 0

    def __call__(self, message: Message) -> bool:
        """Take a message; True from the third stamp on that is not later than the one before it."""
        stamp_ns = stamp_ns_of(message.clock)
        self._steps += stamp_ns <= self._last_ns
        self._last_ns = stamp_ns
        return self._steps >= _UNORDERED


class Watch:
    """Watches one topic for strangers; ``is_strange`` tells their messages, and that is asked only on suspicion.

    ``own`` publishers of the topic are the node's. The node must be spun for the watch to hear anything.
    """

    def __init__(
        self,
        node: Node,
        sole: Sole,
        is_strange: Callable[[Message], bool],
        own: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sole, self._node, self._is_strange, self._clock = sole, node, is_strange, clock
        self._own = Counter({_full_name(node.get_namespace(), node.get_name()): own})
        self._ear: Subscription[Any] | None = None
        self.is_suspicious = False  # whether there are publishers that do not belong there, silent or not
        self._heard_s = 0.0
        self._who = ""

    def look(self, steady_s: float) -> str:
        """The names of strangers who speak now, empty for none."""
        others = self.others()
        if len(others) > self.sole.allowed:
            self._who = ", ".join(sorted(others))
            if self._ear is None:
                topic = self.sole.topic
                self._ear = self._node.create_subscription(
                    message_class(topic.type), topic.name, self._listen, qos_profile(topic)
                )
        self.is_suspicious = len(others) > self.sole.allowed
        # The ear stays: taken away from another thread than the executor's, it would make that one fail.
        speaks = bool(self._heard_s) and steady_s - self._heard_s < FORGET_S
        return self._who if speaks else ""

    def others(self) -> list[str]:
        """The nodes that publish there, without our own publishers and the guard's."""
        infos = self._node.get_publishers_info_by_topic(self.sole.topic.name)
        names = Counter(
            _full_name(info.node_namespace, info.node_name) for info in infos if info.node_name != GUARD_NODE
        )
        return list((names - self._own).elements())

    def _listen(self, message: Message) -> None:
        if self._is_strange(message):
            self._heard_s = self._clock()


class Strangers:
    """Several watches of one node, asked as often as one likes: the graph is looked at every :data:`LOOK_S`."""

    def __init__(self, node: Node, *watches: Watch) -> None:
        self._node, self._watches = node, watches
        self._looked_s = -LOOK_S
        self._found: tuple[Sole, str] | None = None

    def look(self, steady_s: float) -> tuple[Sole, str] | None:
        """What is broken by whom, None where only those speak that may."""
        if steady_s - self._looked_s >= LOOK_S:
            self._looked_s = steady_s
            found = ((watch.sole, watch.look(steady_s)) for watch in self._watches)
            self._found = next(((sole, who) for sole, who in found if who), None)
        return self._found

    def refuse(self, joined_s: float) -> None:
        """Look around before the node says anything: for :data:`DISCOVERY_S` from when it joined the domain.

        Longer where somebody is suspected. The node's callbacks are run meanwhile.

        Raises:
            MonoError: somebody speaks where nobody else may.
        """
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        try:
            until_s, suspected = joined_s + DISCOVERY_S, False
            while True:
                now_s = time.monotonic()
                for watch in self._watches:
                    # A name comes later than what its node publishes.
                    if (who := watch.look(now_s)) and (_UNNAMED not in who or now_s >= until_s):
                        raise watch.sole.error(who)
                    if not suspected and watch.is_suspicious:
                        suspected, until_s = True, max(until_s, now_s + _LISTEN_S)
                if now_s >= until_s:
                    return
                executor.spin_once(timeout_sec=0.05)
        finally:
            executor.shutdown(timeout_sec=1.0)


def _full_name(namespace: str, name: str) -> str:
    if name == topics.NO_NAME_YET:
        return _UNNAMED
    return f"{namespace.rstrip('/')}/{name}"
