"""What a bag holds of a vehicle: commands, steering and velocity reports, and poses, all by one clock.

A clock that restarts begins another drive: the one with most steering reports is read.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from collector.bags.reader import POSE_TYPES, BagReader, OdometryRow, header_stamp_ns, odometry_row, open_bag
from collector.common.arguments import OUT, POSITIONAL, Arguments, same_as
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.geometry.discontinuity import CLOCK_BACK, discontinuity
from collector.geometry.poses import FloatArray
from collector.pose_tracks.sane_stamps import sane_stamps
from collector.pose_tracks.tracks import TrackConfig, build_track
from collector.ros.parameters import RoadParameters
from collector.ros.topics import CONTROL_CMD, ODOMETRY, STEERING_STATUS, VELOCITY_STATUS, Message
from collector.vehicle.fit import DriveSignals

_MOST_RAD, _MOST_MPS = 1.5, 60.0  # beyond them a number is no report of a kart
_ANGLE, _SPEED = "steering_tire_angle", "longitudinal_velocity"  # fields of the messages
_USUAL_GAP_NS = NS_PER_S  # between two messages of a topic


@dataclass(frozen=True)
class IdentifyConfig(Arguments):
    """Find a vehicle's steering and wheels from a recorded drive: gain, dead time, lag, rate limit, speed scale.

    Writes the YAML that `drive vehicle:=FILE`, dead reckoning and simulator read. What the bag does not show is left
    out, with the reason, and the exit code is 1. Drive bends at speed, with poses (GNSS and IMU on): two minutes of a
    lap of S-curves tell all of it.
    """

    bag: Annotated[Path, POSITIONAL]  # bag folder (metadata.yaml inside) or single .mcap / .db3 file.
    # folder for vehicle.yaml and vehicle.png; existing ones are replaced.
    out: Annotated[Path, OUT]
    # YAML of what is known of the vehicle: wheelbase and steering limit are taken from it, and what this bag does not
    # show stays as it is there; empty is the Challenge's kart.
    vehicle: str = same_as(RoadParameters, "vehicle")
    command_topic: str = CONTROL_CMD.name  # steering commands.
    steering_topic: str = STEERING_STATUS.name  # reported tyre angle.
    velocity_topic: str = VELOCITY_STATUS.name  # reported speed.
    odometry_topic: str = ODOMETRY.name  # poses of the rear axle in a map; without them no scale can be told.

    def __post_init__(self) -> None:
        super().__post_init__()
        topics = [self.command_topic, self.steering_topic, self.velocity_topic, self.odometry_topic]
        if twice := sorted({topic for topic in topics if topics.count(topic) > 1}):
            found = f"the topic {twice[0]} for two things"
            raise MonoError(found, "commands, tyre angles, speeds and poses, each by a topic of its own", "name others")


class _Reading(NamedTuple):
    received_ns: int
    stamp_ns: int
    value: float


@dataclass
class _Stream:
    """What one topic says in a field of its messages; what is no number of a kart is counted."""

    name: str
    most: float
    rows: list[_Reading] = field(default_factory=list)
    unusable: int = 0

    def take(self, received_ns: int, message: Message | None) -> None:
        """Take a message, or count it."""
        value = getattr(getattr(message, "lateral", message), self.name, None)
        if message is not None and isinstance(value, (int, float)) and abs(value) <= self.most:
            self.rows.append(_Reading(received_ns, header_stamp_ns(message), float(value)))
        else:
            self.unusable += 1

    def leave_out_strays(self) -> None:
        """Count, too, what has a stamp that tells no time."""
        dropped: Counter[str] = Counter()
        self.rows = [row for row in sane_stamps(self.rows, dropped, _USUAL_GAP_NS) if row is not None]
        self.unusable += dropped.total()

    def between(self, first_ns: int, last_ns: int) -> tuple[FloatArray, FloatArray]:
        """Rising seconds and values of what arrived in a span."""
        seconds: list[float] = []
        values: list[float] = []
        for received_ns, stamp_ns, value in self.rows:
            if first_ns <= received_ns <= last_ns and (not seconds or stamp_ns / NS_PER_S > seconds[-1]):
                seconds.append(stamp_ns / NS_PER_S)
                values.append(value)
        return np.array(seconds), np.array(values)


def read_signals(config: IdentifyConfig) -> tuple[DriveSignals, list[str]]:
    """What the bag holds, and sentences about what was found beside.

    Raises:
        MonoError: no such bag, or it has no commands or no steering reports.
    """
    commands, reports = _Stream(_ANGLE, math.pi), _Stream(_ANGLE, _MOST_RAD)
    speeds = _Stream(_SPEED, _MOST_MPS)
    streams = {config.command_topic: commands, config.steering_topic: reports, config.velocity_topic: speeds}
    poses: list[OdometryRow | None] = []
    with open_bag(config.bag) as bag:
        _require(bag, config)
        posed = bag.topics.get(config.odometry_topic) in POSE_TYPES
        for topic, received_ns, message in bag.messages_of([*streams, config.odometry_topic]):
            if topic in streams:
                streams[topic].take(received_ns, message)
            elif posed:
                poses.append(None if message is None else odometry_row(received_ns, message))
        for stream in streams.values():
            if any(row.stamp_ns for row in stream.rows) or stream is not commands:
                stream.leave_out_strays()
        notes = [*bag.notes, *([f"the bag is not whole: {bag.breaks_off}"] if bag.breaks_off else [])]
    notes += [
        f"{stream.unusable} messages of {topic} are not those of a kart, and were left out"
        for topic, stream in streams.items()
        if stream.unusable
    ]
    for topic in (config.command_topic, config.steering_topic):
        if not streams[topic].rows:
            found = (
                f"none of the {streams[topic].unusable} messages of {topic} in {config.bag} tells a kart's tyre angle "
                "and when it was"
            )
            raise MonoError(found, f"messages like {CONTROL_CMD.type} or {STEERING_STATUS.type}", "name another topic")
    if not any(stamp_ns for _, stamp_ns, _ in commands.rows):
        commands.rows = _stamped(commands, reports)
        notes.append(f"{config.command_topic} has no stamps: taken are the times of arrival")
    first_ns, last_ns = _longest(reports)
    track = build_track(iter(poses), TrackConfig())
    epoch = track.epoch_at((first_ns + last_ns) // 2)
    return DriveSignals(
        *commands.between(first_ns, last_ns),
        *reports.between(first_ns, last_ns),
        *speeds.between(first_ns, last_ns),
        tuple((each.stamps_ns, each.poses) for each in track.segments if each.epoch == epoch),
    ), notes


def _require(bag: BagReader, config: IdentifyConfig) -> None:
    """Refuse (MonoError) a bag without commands, or without steering reports."""
    for topic, option in ((config.command_topic, "--command-topic"), (config.steering_topic, "--steering-topic")):
        if not bag.counts.get(topic, 0):
            held = ", ".join(sorted(name for name, count in bag.counts.items() if count))
            found = f"the bag {bag.path} holds no messages of {topic}; it holds {held or 'nothing'}"
            do = f"record with alpamayo-mono record, or name another {option}"
            raise MonoError(found, "steering commands and reports", do)


def _longest(reports: _Stream) -> tuple[int, int]:
    """Times of arrival between which the reports' clock did not restart, of most reports."""
    spans: list[tuple[int, int, int]] = []
    for count, (received_ns, stamp_ns, _) in enumerate(reports.rows):
        step_ns = stamp_ns - reports.rows[count - 1][1] if count else 0
        if not count or discontinuity(step_ns, 0.0) == CLOCK_BACK:
            spans.append((1, received_ns, received_ns))
        else:
            spans[-1] = (spans[-1][0] + 1, spans[-1][1], received_ns)
    _, first_ns, last_ns = max(spans)
    return first_ns, last_ns


def _stamped(stream: _Stream, by: _Stream) -> list[_Reading]:
    """Rows with stamps by the times of arrival, as another stream's stamps go with its own."""
    received, stamps = np.array([row[:2] for row in by.rows], np.int64).T
    # The delay of arrival that most have: the median.
    offset_ns = int(np.median(received - stamps))
    return [_Reading(received_ns, received_ns - offset_ns, value) for received_ns, _, value in stream.rows]
