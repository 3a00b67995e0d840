"""A healthy machine with a healthy simulator, for tests that break one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from collector.doctor.facts import DiskFacts, Endpoint, Facts, FrameFacts, RosFacts, TopicFacts
from collector.doctor.topics import LISTENED, LOOKED_UP
from collector.ros.topics import CONTROL_CMD, Topic

GB = 10**9
GONE = {"publishers": (), "received": 0, "rate_hz": None, "newest_ns": None}


def offer(topic: Topic, node: str = "awsim", **changes: Any) -> Endpoint:
    """A publisher's (or subscriber's) end of a topic as the table has it."""
    return replace(Endpoint(node, topic.type, topic.reliability, topic.durability), **changes)


def healthy_ros(purpose: str) -> RosFacts:
    """Everything as it should be before a recording (somebody drives) or a drive (somebody listens)."""
    topics = {}
    for topic in (*LISTENED, *LOOKED_UP):
        heard = round(3 * topic.rate_hz) if topic.rate_hz else 1
        topics[topic.name] = TopicFacts((offer(topic),), (), heard, 100.0, topic.rate_hz, newest_ns=5_000_000_000)
    for topic in LOOKED_UP if purpose == "record" else (*LOOKED_UP, CONTROL_CMD):
        topics[topic.name] = TopicFacts(subscribers=(offer(topic),))
    return RosFacts(
        rmw="rmw_cyclonedds_cpp",
        domain=1,
        topics=topics,
        packages={"autoware_auto_control_msgs": (Path("/opt/autoware/autoware_auto_control_msgs"), False)},
        listened_s=3.0,
        time_scale=1.0,
        announced_scale=1.0,
        state="Start",
        frame=FrameFacts(1920, 1080, "bgr8", 400_000),
        has_gnss=True,
        has_imu=True,
    )


def healthy(purpose: str) -> Facts:
    """The same with its machine."""
    disk = DiskFacts(Path("runs/lap1"), Path("/data"), 100 * GB, True)
    return Facts(disk, 2**31 - 1, True, ros=healthy_ros(purpose))


def with_topic(facts: Facts, topic: Topic, **changes: Any) -> Facts:
    """The facts with one topic changed."""
    assert facts.ros is not None
    topics = dict(facts.ros.topics)
    topics[topic.name] = replace(topics[topic.name], **changes)
    return replace(facts, ros=replace(facts.ros, topics=topics))


def with_ros(facts: Facts, **changes: Any) -> Facts:
    """The facts with something of ROS changed."""
    assert facts.ros is not None
    return replace(facts, ros=replace(facts.ros, **changes))
