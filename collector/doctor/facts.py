"""What the doctor looked at, and a row of its table, as plain data; judged in :mod:`collector.doctor.checks`.

Gathered by :mod:`collector.doctor.node` (the ROS graph and what is heard on it) and :mod:`collector.doctor.machine`
(disk, network, model folders, the policy's Python).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from collector.recording.report import missing_messages
from collector.ros.families import FAMILIES, Family

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Row:
    """One check."""

    name: str  # what was looked at, in a word or two
    state: State  # `"failed"` makes a run useless, a `"warning"` costs something
    found: str  # what there is
    cure: str = ""  # what to do about it, empty for a good row
    topic: str = ""  # ROS topic it is about, empty for other checks

    def but(self, state: State, found: str, cure: str) -> Row:
        """The same row with another outcome."""
        return Row(self.name, state, found, cure, self.topic)


@dataclass(frozen=True)
class Endpoint:
    """One publisher or subscriber of a topic; reliability and durability as in ``topics.Topic``, empty if unknown."""

    node: str
    type: str
    reliability: str = ""
    durability: str = ""


@dataclass(frozen=True)
class TopicFacts:
    """What the graph says of a topic, and what was heard on it."""

    publishers: tuple[Endpoint, ...] = ()  # other nodes than the doctor
    subscribers: tuple[Endpoint, ...] = ()  # the same
    received: int = 0
    mean_bytes: float = 0.0
    rate_hz: float | None = None  # per simulated second, by stamps or else by arrival; None for fewer than two
    lost: int = 0  # messages missing between stamps, before they reached this process
    went_back: int = 0  # how often the stamps went back
    newest_ns: int | None = None  # last stamp, None without one


@dataclass(frozen=True)
class FrameFacts:
    """The newest camera frame: pixels and encoding as sent; ``jpeg_bytes`` at the recorder's quality.

    ``defect`` says why it cannot be used, empty when it can; ``is_blank`` that all its pixels are alike.
    """

    width: int
    height: int
    encoding: str
    jpeg_bytes: int = 0
    defect: str = ""
    is_blank: bool = False


@dataclass(frozen=True)
class RosFacts:
    """A short listening in one ROS domain."""

    rmw: str
    domain: int
    topics: Mapping[str, TopicFacts]  # by name; a topic whose message type could not be loaded has its graph only
    # message packages and where each was found: a folder, and whether it is our own build
    packages: Mapping[str, tuple[Path | None, bool]] = field(default_factory=dict)
    family: Family = Family(FAMILIES[0])  # noqa: RUF009 - frozen; whose message types the others speak
    type_errors: Mapping[str, str] = field(default_factory=dict)  # message types that could not be loaded, and why
    listened_s: float = 0.0  # wall seconds of the window in which messages were counted
    time_scale: float | None = None  # clock seconds per wall second, None when fewer than two clock messages came
    announced_scale: float | None = None  # what the simulator says of itself, None without its status
    state: str = ""  # the simulator's last word on `topics.AWSIM_STATE`
    frame: FrameFacts | None = None
    bad_poses: int = 0  # odometry messages with a number that is not finite
    has_gnss: bool = False  # somebody publishes this input of the localisation
    has_imu: bool = False  # or this one
    has_admin: bool = False  # AWSIM's own domain
    other_domains: tuple[int, ...] = ()  # in which a simulator was seen while this one had none
    closed_domains: tuple[int, ...] = ()  # that could not be joined to look for one
    profile: str = ""  # `VARIABLE=file` of the transport profile in use, empty without one
    discovery: str = ""  # a restriction of discovery set in the environment, as `VARIABLE=value`


@dataclass(frozen=True)
class DiskFacts:
    """Where a run will write: ``place`` is the nearest folder that exists; ``taken`` that the run's own does."""

    folder: Path
    place: Path
    free_bytes: int
    writable: bool
    taken: bool = False


@dataclass(frozen=True)
class Facts:
    """All of it."""

    disk: DiskFacts
    rmem_max: int | None = None  # the kernel's setting that Cyclone DDS depends on; None where it does not say
    lo_multicast: bool | None = None  # the same
    model_rows: tuple[Row, ...] = ()  # folders and interpreter of the driver, which say by themselves what is wrong
    ros: RosFacts | None = None  # None when ROS could not be used; `ros_error` says why, `ros_cure` what to do
    ros_error: str = ""
    ros_cure: str = ""


def heard(
    publishers: Sequence[Endpoint],
    subscribers: Sequence[Endpoint],
    nominal_hz: float | None,
    stamps_ns: Sequence[int],
    arrivals_ns: Sequence[int],
    sizes: Sequence[int],
    time_scale: float | None,
) -> TopicFacts:
    """The facts of a topic from what came in: header stamps (none for some types), arrivals by the wall's clock, bytes.

    ``time_scale`` (simulated seconds per wall second) turns a rate by arrival into one of simulated time.
    """
    forward = np.diff(np.asarray(stamps_ns, np.int64))
    # A sender may leave its stamps at zero: then they say nothing.
    stamped = bool(np.any(forward > 0))
    rate_hz = None
    if stamped:
        rate_hz = float(np.sum(forward > 0) / (forward[forward > 0].sum() * 1e-9))
    elif len(arrivals_ns) > 1 and arrivals_ns[-1] > arrivals_ns[0]:
        rate_hz = (len(arrivals_ns) - 1) / ((arrivals_ns[-1] - arrivals_ns[0]) * 1e-9) / (time_scale or 1.0)
    return TopicFacts(
        tuple(publishers),
        tuple(subscribers),
        len(arrivals_ns),
        float(np.mean(sizes)) if len(sizes) else 0.0,
        rate_hz,
        missing_messages(np.asarray(stamps_ns, np.int64), nominal_hz) if stamped else 0,
        int(np.sum(forward < 0)),
        stamps_ns[-1] if len(stamps_ns) and stamps_ns[-1] else None,
    )
