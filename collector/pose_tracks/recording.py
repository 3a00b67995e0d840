"""What a bag knows about the kart besides its camera: poses, wheel speed and lap over time."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import POSE_TYPES, BagReader, OdometryRow, header_stamp_ns, odometry_row
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.pose_tracks.identity import Identity, PictureHashes
from collector.pose_tracks.sane_stamps import ZERO_STAMP
from collector.pose_tracks.smoothing import Speeds
from collector.pose_tracks.tracks import PoseTrack, TrackConfig, clean_track, cut_track
from collector.reasoning.manners import Manner, read_manner
from collector.ros.topics import AWSIM_STATUS, AWSIM_STATUS_FIELDS, MANNER, VELOCITY_STATUS

# A count beyond this is a damaged message.
_MOST_LAPS = 1_000_000


@dataclass(frozen=True)
class LapCount:
    """The lap count over time of arrival: (N,) ``received_ns`` (rising) and (N,) ``laps``."""

    received_ns: NDArray[np.int64]
    laps: NDArray[np.int64]

    def at(self, received_ns: int) -> int:
        """The lap count when a message arrived, 0 where none is known."""
        index = int(np.searchsorted(self.received_ns, received_ns, side="right")) - 1
        return int(self.laps[index]) if index >= 0 else 0


@dataclass(frozen=True)
class Marks:
    """How the kart was asked to drive, over time of arrival: rising; None from a mark on that cannot be read."""

    received_ns: tuple[int, ...] = ()
    manners: tuple[Manner | None, ...] = ()
    unread: str = ""  # the first one that cannot be read, in a sentence

    def at(self, received_ns: int) -> Manner | None:
        """The manner when a message arrived; before the first mark the usual one."""
        index = bisect_right(self.received_ns, received_ns) - 1
        return self.manners[index] if index >= 0 else Manner()


@dataclass(frozen=True)
class Recording:
    """What a bag knows about the kart: poses, wheel speed (by the clock's epoch) and lap over time."""

    name: str
    track: PoseTrack
    laps: LapCount
    wheel: Mapping[int, Speeds]
    identity: Identity = field(default_factory=Identity)  # what tells it from others
    marks: Marks = field(default_factory=Marks)

    def wheel_speed(self, stamp_ns: int, epoch: int) -> float | None:
        """Wheel speed at a stamp of an epoch, None without a report within 0.2 s on both sides."""
        if epoch not in self.wheel:
            return None
        stamps_ns, speeds_mps = self.wheel[epoch]
        after = int(np.searchsorted(stamps_ns, stamp_ns))
        if not 0 < after < len(stamps_ns):
            return None
        near = stamps_ns[after - 1 : after + 1]
        if np.max(np.abs(near - stamp_ns)) > NS_PER_S // 5:
            return None
        weight = (stamp_ns - near[0]) / max(1, near[1] - near[0])
        speed = float(speeds_mps[after - 1] * (1.0 - weight) + speeds_mps[after] * weight)
        return speed if np.isfinite(speed) else None


def require_odometry(bag: BagReader, topic: str, wanted: Sequence[str] = ()) -> None:
    """Refuse a bag without poses (MonoError): what it lacks of ``wanted``, and how to record it."""
    lacking = [name for name in dict.fromkeys((topic, *wanted)) if not bag.counts.get(name, 0)]
    cure = (
        f"record it: alpamayo-mono record takes all that is needed; or add {' '.join(lacking)} to the topics of your "
        "own recording (the Challenge's record_data.bash), with AWSIM's GNSS and IMU on"
    )
    bag.require_topic(topic, "the kart's pose", POSE_TYPES, "--odometry-topic", cure)


def require_track(bag: BagReader, topic: str, track: PoseTrack) -> None:
    """Refuse (MonoError) poses of which none can be used: it says why."""
    if track.segments:
        return
    if bag.breaks_off and len(track.stamps_ns) == 0:
        found = f"the bag {bag.path} breaks off before its first pose: {bag.breaks_off}"
        raise MonoError(found, "a bag of which something can be read", "leave it out, or record it again")
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(track.dropped.items()))
    found = f"of {bag.counts.get(topic, 0)} poses of {topic} in {bag.path} none can be used ({why or 'too few'})"
    if track.dropped.get(ZERO_STAMP):
        found += ": their header.stamp is 0"
    raise MonoError(found, "poses with rising stamps of the camera's clock", "mend what publishes them, record again")


def read_recording(
    bag: BagReader,
    name: str,
    odometry_topic: str,
    velocity_topic: str,
    status_topic: str,
    config: TrackConfig,
    image_topic: str | None = None,
) -> Recording:
    """Read everything but the camera, and of that what tells its pictures from others, where its topic is named.

    Raises:
        MonoError: the bag has no pose, or under that name something else (it says what to record, and how), or breaks
            off before its first pose; or another topic that was named holds something else.
    """
    wanted = (odometry_topic, velocity_topic, status_topic)
    require_odometry(bag, odometry_topic, wanted)
    wheel_ns, wheel_mps = array("q"), array("d")
    laps: list[tuple[int, int]] = []
    said: list[tuple[int, str]] = []
    pictures = PictureHashes()

    def poses() -> Iterator[OdometryRow | None]:
        # All topics in one pass: every pass through a bag of raw images reads the images too.
        for topic, received_ns, message in bag.messages_of([*wanted, MANNER.name, *filter(None, [image_topic])]):
            if topic == image_topic:
                pictures.add(message)
            elif topic == MANNER.name:
                said.append((received_ns, str(getattr(message, "data", ""))))
            elif topic == odometry_topic:
                yield None if message is None else odometry_row(received_ns, message)
            elif message is not None and hasattr(message, "longitudinal_velocity") and hasattr(message, "header"):
                wheel_ns.extend((received_ns, header_stamp_ns(message)))
                wheel_mps.append(float(message.longitudinal_velocity))
            elif topic == status_topic:
                laps.extend(_lap_row(received_ns, getattr(message, "data", None)))

    track = cut_track(poses(), config)
    require_track(bag, odometry_topic, track)
    for topic, usual, rows, option in (
        (velocity_topic, VELOCITY_STATUS, wheel_mps, "--velocity-topic"),
        (status_topic, AWSIM_STATUS, laps, "--status-topic"),
    ):
        if topic != usual.name and bag.counts.get(topic) and not rows and not bag.breaks_off:
            found = f"{topic} in {bag.path} has the type {bag.topics[topic]}"
            raise MonoError(found, f"messages like {usual.type}", f"choose another {option}")
    lap_rows = np.array(laps, np.int64).reshape(-1, 2)
    speeds = _by_epoch(np.array(wheel_ns, np.int64).reshape(-1, 2), np.array(wheel_mps, np.float64), track)
    identity = pictures.identity(track)
    lap_count = LapCount(lap_rows[:, 0], lap_rows[:, 1])
    return Recording(name, clean_track(track, config, speeds), lap_count, speeds, identity, _marks(said))


def _lap_row(received_ns: int, data: object) -> list[tuple[int, int]]:
    """Arrival and lap count of a status message, nothing where it has none."""
    index = AWSIM_STATUS_FIELDS.index("lap_count")
    if isinstance(data, np.ndarray) and len(data) > index and abs(data[index]) < _MOST_LAPS:
        return [(received_ns, int(data[index]))]
    return []


def _marks(said: Sequence[tuple[int, str]]) -> Marks:
    manners: list[Manner | None] = []
    unread = ""
    for _, text in said:
        try:
            manners.append(read_manner(text))
        except MonoError as error:
            manners.append(None)
            unread = unread or str(error)
    return Marks(tuple(received_ns for received_ns, _ in said), tuple(manners), unread)


def _by_epoch(times_ns: NDArray[np.int64], speeds_mps: NDArray[np.float64], track: PoseTrack) -> dict[int, Speeds]:
    """Wheel speeds by (N, 2) arrival and stamp: after a restart of the clock the same stamps come again.

    Of several with one stamp the last one counts.
    """
    epochs = np.maximum(0, np.searchsorted(track.epoch_received_ns, times_ns[:, 0], side="right") - 1)
    found: dict[int, Speeds] = {}
    for epoch in np.unique(epochs).tolist():
        stamps_ns, speeds = times_ns[epochs == epoch, 1], speeds_mps[epochs == epoch]
        order = np.argsort(stamps_ns, kind="stable")
        is_last = np.append(np.diff(stamps_ns[order]) > 0, True)
        found[epoch] = stamps_ns[order][is_last], speeds[order][is_last]
    return found
