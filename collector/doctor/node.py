"""The doctor's ears: a node that subscribes as the recorder and the driver do, listens for a while, and goes.

Thin: the graph and the messages become :class:`collector.doctor.facts.RosFacts`; judging them is done elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import get_rmw_implementation_identifier

from collector.common.errors import MonoError
from collector.doctor.config import DoctorConfig
from collector.doctor.facts import Endpoint, FrameFacts, RosFacts, TopicFacts, heard
from collector.doctor.hearing import SIMULATORS_OWN, has_simulator
from collector.doctor.topics import ADMIN_TOPIC, GNSS_TOPIC, IMU_TOPIC, LISTENED, LOOKED_UP
from collector.ros import topics as interface
from collector.ros.conversions import odometry_of, rgb_of, stamp_ns_of
from collector.ros.families import Family, family_on_graph, has_two_types, installed_family
from collector.ros.graph import GUARD_NODE
from collector.ros.images import encode_jpeg
from collector.ros.message_builder import messages_folder
from collector.ros.message_packages import MessageClass, definitions_of, installed_packages, message_class
from collector.ros.session import Session
from collector.ros.topics import Message, Topic, qos_profile
from collector.ros.transport import PROFILE_VARIABLES

# Cyclone finds others in one second, Fast DDS in half a second. But an early packet of Fast DDS that is lost (or comes
# before its sender is known) is sent again only 3 s later, and that may happen once to who is there and once to what
# he publishes.
_USUAL_DISCOVERY_S, DISCOVERY_S = 1.0, 7.0
_MATCHING_S = 0.5
_DEPTH = 50  # as a recorder: what a busy moment of ours costs must not look like loss
# The competition sets ROS_LOCALHOST_ONLY=0, which restricts nothing.
_RESTRICTIONS = {"ROS_AUTOMATIC_DISCOVERY_RANGE": ("LOCALHOST", "OFF"), "ROS_LOCALHOST_ONLY": ("1",)}
_RELIABILITY = {ReliabilityPolicy.RELIABLE: "reliable", ReliabilityPolicy.BEST_EFFORT: "best_effort"}
_DURABILITY = {DurabilityPolicy.VOLATILE: "volatile", DurabilityPolicy.TRANSIENT_LOCAL: "transient_local"}


@dataclass
class _Ear:
    """What came in on one topic."""

    stamps_ns: list[int] = field(default_factory=list)
    arrivals_ns: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    newest: Message = None

    def forget(self) -> None:
        """Start counting anew; the newest message stays."""
        for counted in (self.stamps_ns, self.arrivals_ns, self.sizes):
            counted.clear()


class DoctorNode(Node):
    """Subscribes to every topic of interest; :meth:`listen` returns the facts."""

    def __init__(self, session: Session) -> None:
        super().__init__("alpamayo_doctor", start_parameter_services=False, enable_rosout=False)
        self._session = session
        self._ears = {topic: _Ear() for topic in LISTENED}
        self._bad_poses = 0
        self.type_errors: dict[str, str] = {}
        self._family = installed_family()
        self._subscribe(topic for topic in LISTENED if not has_two_types(topic))

    def _subscribe(self, listened: Iterable[Topic]) -> None:
        for topic in listened:
            name = self._family.topic(topic).type
            try:
                message_type = message_class(name)
            except MonoError as error:
                self.type_errors[name] = str(error)
                continue
            self.create_subscription(
                message_type, topic.name, self._take(topic, message_type), qos_profile(topic, _DEPTH), raw=True
            )

    def _take(self, topic: Topic, message_type: MessageClass) -> Callable[[bytes], None]:
        ear = self._ears[topic]

        def take(data: bytes) -> None:
            try:
                message = deserialize_message(data, message_type)
            except RuntimeError as error:
                self.type_errors[topic.type] = f"{topic.type} on {topic.name} differs from ours ({error})"
                return
            ear.newest = message
            ear.arrivals_ns.append(time.monotonic_ns())
            ear.sizes.append(len(data))
            stamp = getattr(getattr(message, "header", message), "stamp", getattr(message, "clock", None))
            if stamp is not None:
                ear.stamps_ns.append(stamp_ns_of(stamp))
            if topic is interface.ODOMETRY:
                _, pose_map, speed_mps = odometry_of(message)
                self._bad_poses += not np.all(np.isfinite([*pose_map, speed_mps]))

        return take

    def listen(self, seconds: float, jpeg_quality: int) -> RosFacts:
        """Listen until publishers are matched, then for ``seconds``, and look at the graph."""
        # By now the others are on the graph, and their types tell how they are to be heard.
        self._family = family_on_graph(self) or self._family
        self._subscribe(topic for topic in LISTENED if has_two_types(topic))
        # Topics are matched one after the other: counted from here on, all have the same chance.
        self._spin(_MATCHING_S)
        for topic, ear in self._ears.items():
            if topic.rate_hz:
                ear.forget()
        self._bad_poses = 0
        began_s = time.monotonic()
        self._spin(seconds)
        return self._facts(time.monotonic() - began_s, jpeg_quality)

    def wait(self, seconds: float) -> bool:
        """Wait so long for a first message of a simulator; whether one came."""
        own = [self._ears[topic] for topic in SIMULATORS_OWN]

        def is_heard() -> bool:
            return any(ear.arrivals_ns for ear in own) or family_on_graph(self) is not None

        self._spin(seconds, is_heard)
        return is_heard()

    def _spin(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        end_s = time.monotonic() + seconds
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        try:
            while (left_s := end_s - time.monotonic()) > 0.0 and not enough():
                if self._session.stop.is_set():
                    raise KeyboardInterrupt
                executor.spin_once(timeout_sec=min(0.1, left_s))
        finally:
            executor.shutdown(timeout_sec=1.0)

    def _facts(self, listened_s: float, jpeg_quality: int) -> RosFacts:
        clock, status, state = (
            self._ears[topic] for topic in (interface.CLOCK, interface.AWSIM_STATUS, interface.AWSIM_STATE)
        )
        scale = _time_scale(clock)
        said = list(status.newest.data)[: len(interface.AWSIM_STATUS_FIELDS)] if status.newest is not None else []
        is_whole = len(said) == len(interface.AWSIM_STATUS_FIELDS)
        image = self._ears[interface.CAMERA_IMAGE].newest
        return RosFacts(
            rmw=get_rmw_implementation_identifier(),
            domain=self.context.get_domain_id(),
            topics={topic.name: self._topic(topic, scale) for topic in (*LISTENED, *LOOKED_UP)},
            packages=_packages(self._family),
            family=self._family,
            type_errors=self.type_errors,
            listened_s=listened_s,
            time_scale=scale,
            announced_scale=float(said[interface.AWSIM_STATUS_FIELDS.index("time_scale")]) if is_whole else None,
            state=state.newest.data if state.newest is not None else "",
            frame=_frame(image, jpeg_quality) if image is not None else None,
            bad_poses=self._bad_poses,
            has_gnss=self.count_publishers(GNSS_TOPIC) > 0,
            has_imu=self.count_publishers(IMU_TOPIC) > 0,
            has_admin=self.count_publishers(ADMIN_TOPIC) > 0,
            profile=_setting({name: (os.environ.get(name),) for name in PROFILE_VARIABLES}),
            discovery=_setting(_RESTRICTIONS),
        )

    def _topic(self, topic: Topic, scale: float | None) -> TopicFacts:
        ear = self._ears.get(topic, _Ear())
        publishers = self.get_publishers_info_by_topic(topic.name)
        subscribers = self.get_subscriptions_info_by_topic(topic.name)
        return heard(
            [_endpoint(info) for info in publishers if info.node_name != GUARD_NODE],
            [_endpoint(info) for info in subscribers if info.node_name != self.get_name()],
            topic.rate_hz,
            ear.stamps_ns,
            ear.arrivals_ns,
            ear.sizes,
            scale,
        )


def listen(session: Session, config: DoctorConfig) -> RosFacts:
    """The facts of this process's ROS domain; while no simulator is heard in it, other domains are looked at too.

    Raises:
        KeyboardInterrupt: a signal asked for the end.
    """
    node = DoctorNode(session)
    try:
        if node.wait(_USUAL_DISCOVERY_S):
            return node.listen(config.seconds, config.jpeg_quality)
        own = node.context.get_domain_id()
        with _elsewhere([domain for domain in config.domains if domain != own]) as others:
            node.wait(DISCOVERY_S)
            facts = node.listen(config.seconds, config.jpeg_quality)
            if has_simulator(facts):
                return facts
            own_names = [topic.name for topic in SIMULATORS_OWN]
            found = tuple(
                domain
                for domain, other in others.items()
                if other is not None and any(map(other.count_publishers, own_names))
            )
            closed = tuple(domain for domain, other in others.items() if other is None)
            return replace(facts, other_domains=found, closed_domains=closed)
    finally:
        node.destroy_node()


@contextmanager
def _elsewhere(domains: Sequence[int]) -> Iterator[dict[int, Node | None]]:
    """A node in each of these domains, None where it cannot be joined; their graphs fill up by themselves."""
    nodes: dict[int, Node | None] = {}
    with ExitStack() as stack:
        for domain in domains:
            try:
                context = rclpy.Context()
                rclpy.init(context=context, domain_id=domain)
                stack.callback(rclpy.try_shutdown, context=context)
                nodes[domain] = node = Node(
                    "alpamayo_doctor", context=context, start_parameter_services=False, enable_rosout=False
                )
                stack.callback(node.destroy_node)
            except RuntimeError:
                nodes[domain] = None
        yield nodes


def _time_scale(clock: _Ear) -> float | None:
    """Clock seconds per wall second; a clock set back counts as one that stood still in that moment."""
    if len(clock.arrivals_ns) < 2 or clock.arrivals_ns[-1] == clock.arrivals_ns[0]:
        return None
    steps = np.diff(np.asarray(clock.stamps_ns, np.int64))
    return float(steps[steps > 0].sum() / (clock.arrivals_ns[-1] - clock.arrivals_ns[0]))


def _endpoint(info: TopicEndpointInfo) -> Endpoint:
    profile = info.qos_profile
    name = info.node_name if info.node_namespace == "/" else f"{info.node_namespace}/{info.node_name}"
    return Endpoint(
        name, info.topic_type, _RELIABILITY.get(profile.reliability, ""), _DURABILITY.get(profile.durability, "")
    )


def _frame(image: Message, jpeg_quality: int) -> FrameFacts:
    try:
        rgb = rgb_of(image)
    except MonoError as error:
        return FrameFacts(image.width, image.height, image.encoding, defect=f"{error.found}; expected {error.expected}")
    # Swapped colours cost the same bytes.
    jpeg_bytes = len(encode_jpeg(rgb, jpeg_quality))
    return FrameFacts(image.width, image.height, image.encoding, jpeg_bytes, is_blank=bool(np.ptp(rgb) == 0))


def _packages(family: Family) -> dict[str, tuple[Path | None, bool]]:
    try:
        ours: Path | None = messages_folder(definitions_of(family))
    except MonoError:
        ours = None  # no generators here: then nothing is our build
    return {
        name: (place, place is not None and place.parent == ours) for name, place in installed_packages(family).items()
    }


def _setting(of_interest: Mapping[str, Sequence[str | None]]) -> str:
    """The first environment variable that has one of the values of interest, as ``NAME=value``."""
    values = ((name, os.environ.get(name)) for name in of_interest)
    return next((f"{name}={value}" for name, value in values if value and value in of_interest[name]), "")
