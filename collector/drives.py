"""What a bag knows about the kart besides its camera: poses, wheel speed and lap over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.bags import BagReader, header_stamp_ns
from collector.build_config import BuildConfig
from collector.errors import MonoError
from collector.splits import LapCount
from collector.stack import AWSIM_STATUS_FIELDS, ODOMETRY
from collector.tracks import NS, PoseTrack, build_track

# A count beyond this is a damaged message.
_MOST_LAPS = 1_000_000


@dataclass(frozen=True)
class Drive:
    """What a bag knows about the kart: poses, wheel speed and lap over time."""

    name: str
    track: PoseTrack
    laps: LapCount
    wheel_ns: NDArray[np.int64]
    wheel_mps: NDArray[np.float64]

    def wheel_speed(self, stamp_ns: int) -> float | None:
        """Wheel speed at a stamp, None without a report within 0.2 s on both sides."""
        after = int(np.searchsorted(self.wheel_ns, stamp_ns))
        if not 0 < after < len(self.wheel_ns):
            return None
        near = self.wheel_ns[after - 1 : after + 1]
        if np.max(np.abs(near - stamp_ns)) > NS // 5:
            return None
        weight = (stamp_ns - near[0]) / max(1, near[1] - near[0])
        speed = float(self.wheel_mps[after - 1] * (1.0 - weight) + self.wheel_mps[after] * weight)
        return speed if np.isfinite(speed) else None


def require_odometry(bag: BagReader, topic: str) -> None:
    """Raise a MonoError unless the bag holds odometry under this name."""
    bag.require_topic(
        topic,
        "the kart's pose",
        "record it too (alpamayo-mono record does; AWSIM: keep GNSS and IMU on), or name yours with --odometry-topic",
    )
    if bag.topics[topic] != ODOMETRY.type:
        raise MonoError(
            f"{topic} in {bag.path} has the type {bag.topics[topic]}",
            ODOMETRY.type,
            "choose another --odometry-topic",
        )


def read_drive(bag: BagReader, name: str, config: BuildConfig) -> Drive:
    """Read everything but the camera.

    Raises:
        MonoError: the bag has no odometry, or under that name something else.
    """
    require_odometry(bag, config.odometry_topic)
    wheel: dict[int, float] = {}
    for _, message in bag.messages(config.velocity_topic) if config.velocity_topic in bag.topics else ():
        if hasattr(message, "longitudinal_velocity"):
            wheel[header_stamp_ns(message)] = float(message.longitudinal_velocity)
    laps: list[tuple[int, int]] = []
    field_index = AWSIM_STATUS_FIELDS.index("lap_count")
    for received_ns, message in (
        bag.messages(config.status_topic) if config.status_topic in bag.topics else ()
    ):
        data = getattr(message, "data", ())
        if len(data) > field_index and abs(data[field_index]) < _MOST_LAPS:
            laps.append((received_ns, int(data[field_index])))
    lap_rows = np.array(laps, np.int64).reshape(-1, 2)
    stamps = sorted(wheel)
    return Drive(
        name,
        build_track(bag.odometry(config.odometry_topic), config.track),
        LapCount(lap_rows[:, 0], lap_rows[:, 1]),
        np.array(stamps, np.int64),
        np.array([wheel[stamp] for stamp in stamps], np.float64),
    )
