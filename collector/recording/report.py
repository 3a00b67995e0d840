"""The recording report: what should have come, what came, and what was lost, per topic.

Losses are counted from gaps between header stamps, so messages that vanished before they reached this process count
too; topics without a header are only counted.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.common.tables import Table, number

REPORT_FILE = "recording_report.json"
# Its name in bags of version 0.1.
_OLD_FILE = "receipt.json"
_TABLE_COLUMNS = 160
# Lateness up to this many periods is jitter, not a missing message.
_JITTER_PERIODS = 0.5
# Lateness that does not last as long as this is made up for; in messages, at least and at most so many.
_LASTING_NS, _LASTING_MESSAGES = 3_000_000_000, (10, 400)
# A topic may stop this much earlier than the others: a simulator's publishers do not end at one instant.
_ENDING_NS, _SILENT_PERIODS = 2_000_000_000, 5


@dataclass(frozen=True)
class TopicReport:
    """One topic of a recording, as it lies in the bag."""

    name: str
    type: str
    expected: int  # received plus lost
    received: int  # messages that reached the recorder
    # messages that never reached us: those missing between the first and the last header stamp, and those a topic owes
    # that fell silent while others went on
    lost: int
    dropped: int  # received, but not stored: a queue of ours or the disk was full, or a frame could not be compressed
    missing: int  # lost and dropped
    rate_hz: float | None  # over the received span, by header stamps where there are any; None for fewer than two
    nominal_hz: float | None  # what the interface promises, where it does
    worst_gap_s: float | None  # longest time between two messages, or of silence at the end
    bytes: int  # stored
    clock_resets: int = 0  # how often the header stamps went back

    @property
    def missing_share(self) -> float:
        """Share of the expected messages that are not in the bag; 0 where nothing was expected."""
        return self.missing / self.expected if self.expected else 0.0


@dataclass(frozen=True)
class RecordingReport:
    """The report of a recording."""

    folder: str
    topics: tuple[TopicReport, ...]
    duration_s: float  # from the first to the last arrival
    jpeg_queue_high_water: int = 0  # most frames that ever waited for compression
    jpeg_queue_frames: int = 0  # how many could have waited before one was dropped
    error: str = ""  # why the recording ended early, empty when it did not
    frame_error: str = ""  # why the first frame that could not be compressed could not, empty when all could
    loss_cause: str = ""  # the likeliest cause of missing messages, empty when none are missing

    @property
    def missing(self) -> int:
        """Messages that should be in the bag and are not: lost before us, and dropped by us."""
        return sum(topic.missing for topic in self.topics)

    def excess(self, max_loss: float) -> str:
        """What exceeds a bearable share of missing messages, in one line; empty when nothing does."""
        return ", ".join(
            f"{topic.name} misses {topic.missing} of {topic.expected} messages "
            f"({topic.missing_share:.1%}; {topic.lost} never came, {topic.dropped} were dropped here)"
            for topic in self.topics
            if topic.missing_share > max_loss
        )

    def write(self, folder: Path | str) -> Path:
        """Write ``recording_report.json`` into a folder; returns its path."""
        path = Path(folder) / REPORT_FILE
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path

    def table(self) -> str:
        """The report for a terminal."""
        headings = ("topic", "expected", "received", "lost", "dropped", "Hz", "nominal", "worst gap s", "MB")
        rows = [
            (
                *(topic.name, *map(str, (topic.expected, topic.received, topic.lost, topic.dropped))),
                *(number(topic.rate_hz, 1), number(topic.nominal_hz, 0)),
                *(number(topic.worst_gap_s, 3), number(topic.bytes / 1e6, 1)),
            )
            for topic in self.topics
        ]
        # A line per topic, however narrow the terminal is.
        lines = Table("", headings, rows).lines(_TABLE_COLUMNS)
        lines.append(f"{self.duration_s:.1f} s recorded in {self.folder}; {self.missing} messages missing")
        if self.jpeg_queue_high_water:
            waited = f"{self.jpeg_queue_high_water} of {self.jpeg_queue_frames}"
            lines.append(f"at most {waited} frames waited for JPEG compression")
        if self.loss_cause:
            lines.append(f"why messages are missing: {self.loss_cause}")
        if self.frame_error:
            lines.append(f"frames that could not be compressed were dropped: {self.frame_error}")
        if self.error:
            lines.append(f"the recording ended early: {self.error}")
        return "\n".join(lines)


def loss_cause(report: RecordingReport, simulators: int, load: float, cores: int) -> str:
    """The likeliest cause of missing messages: publishers of poses seen at once, the machine's load, a full queue."""
    if not report.missing:
        return ""
    causes = []
    if simulators > 1:
        causes.append(f"{simulators} simulators publish in this ROS domain: end the other one, or set ROS_DOMAIN_ID")
    if load > cores:
        causes.append(f"the machine was busy: a load of {load:.1f} on {cores} cores")
    if any(topic.dropped for topic in report.topics):
        most = report.jpeg_queue_high_water
        causes.append(f"messages came faster than they could be written ({most} frames waited for compression)")
    return "; ".join(causes) or "they never arrived here: the sender skipped them, or the transport lost them"


def read_report(bag: Path | str) -> RecordingReport:
    """The report in a bag folder, also that of a bag of version 0.1 (OSError: the folder holds none)."""
    path = Path(bag) / REPORT_FILE
    values = json.loads((path if path.exists() else path.with_name(_OLD_FILE)).read_text(encoding="utf-8"))
    return RecordingReport(**values | {"topics": tuple(TopicReport(**topic) for topic in values["topics"])})


class TopicLog:
    """Collects what a topic's report needs, 16 bytes per message."""

    def __init__(self, name: str, type_name: str, nominal_hz: float | None) -> None:
        self.name, self.type, self.nominal_hz = name, type_name, nominal_hz
        self.received = self.dropped = self.bytes = 0
        self._arrivals, self._headers = array("q"), array("q")

    def add(self, received_ns: int, header_stamp_ns: int | None) -> None:
        """Note one message that reached us."""
        self.received += 1
        self._arrivals.append(received_ns)
        if header_stamp_ns is not None:
            self._headers.append(header_stamp_ns)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last arrival."""
        return (min(self._arrivals), max(self._arrivals)) if self._arrivals else None

    def report(self, end_ns: int | None = None) -> TopicReport:
        """The row of this topic; ``end_ns`` is the recording's last arrival on any topic."""
        has_headers = len(self._headers) == self.received
        stamps = np.array(self._headers if has_headers else self._arrivals, np.int64)
        gaps_ns = np.diff(stamps)
        lost = missing_messages(stamps, self.nominal_hz) if has_headers else 0
        forward = gaps_ns[gaps_ns > 0]
        span_s = float(forward.sum()) / 1e9
        worst_gap_s = float(forward.max()) / 1e9 if len(forward) else None
        silent = self._missing_at_end(end_ns) if has_headers and end_ns is not None else 0
        if silent and len(forward):
            lost += silent
            worst_gap_s = max(worst_gap_s or 0.0, (silent + 1) * span_s / len(forward))
        return TopicReport(
            name=self.name,
            type=self.type,
            expected=self.received + lost,
            received=self.received,
            lost=lost,
            dropped=self.dropped,
            missing=lost + self.dropped,
            rate_hz=len(forward) / span_s if span_s > 0.0 else None,
            nominal_hz=self.nominal_hz,
            worst_gap_s=worst_gap_s,
            bytes=self.bytes,
            clock_resets=int(np.sum(gaps_ns < 0)),
        )

    def _missing_at_end(self, end_ns: int) -> int:
        """Messages owed by a periodic topic that fell silent before the recording ended (a camera that died)."""
        span = self.span_ns()
        if self.nominal_hz is None or span is None or self.received < 5:
            return 0
        # By arrival: a silent topic has no stamps, and the simulator's time may run at any scale.
        period_ns = (span[1] - span[0]) / (self.received - 1)
        silence_ns = end_ns - span[1]
        return int(silence_ns / period_ns) if silence_ns > max(_ENDING_NS, _SILENT_PERIODS * period_ns) else 0


def missing_messages(stamps_ns: NDArray[np.int64], nominal_hz: float | None = None) -> int:
    """How many messages are missing between header stamps, in order of arrival.

    Every message is late by so many periods against an even beat. What is missing leaves all that follow late; a
    sender that stood still and caught up does not, so lateness counts only as far as it lasts. A topic without a
    nominal rate comes when it pleases, so nothing is missing from it.
    """
    gaps: NDArray[np.float64] = np.diff(np.asarray(stamps_ns, np.int64)).astype(np.float64)
    gaps = gaps[gaps > 0.0]
    if nominal_hz is None or len(gaps) == 0:
        return 0
    period = _period_ns(gaps, 1e9 / nominal_hz)
    late = np.concatenate([[0.0], np.cumsum(gaps / period - 1.0)])
    window = int(np.clip(_LASTING_NS / period, *_LASTING_MESSAGES))
    ahead = np.concatenate([late, np.full(window - 1, np.inf)])
    steps = np.diff(np.lib.stride_tricks.sliding_window_view(ahead, window).min(axis=1))
    return int(np.sum(np.round(steps[steps > _JITTER_PERIODS])))


def _period_ns(gaps: NDArray[np.float64], nominal_ns: float) -> float:
    """The beat of a topic: measured, since a camera announced at 10 Hz may run at 9.5, or at 30."""
    if len(gaps) < 5:
        return nominal_ns  # too few to measure; the promise decides
    near = gaps[(gaps >= 0.7 * nominal_ns) & (gaps <= 1.4 * nominal_ns)]
    if len(near) >= 0.2 * len(gaps):
        return float(np.median(near))
    # Another beat than announced: the shortest gaps that agree with each other, since long ones are the losses
    # themselves. Much shorter ones than the mean come from a sender that catches up, and are no beat.
    short, mean = float(np.percentile(gaps, 20)), float(gaps.mean())
    base = gaps[(gaps >= 0.75 * short) & (gaps <= 1.25 * short)]
    if short >= 0.2 * mean and len(base) >= 0.3 * len(gaps):
        return float(np.median(base))
    return min(nominal_ns, mean)


def make_report(
    folder: Path | str,
    logs: Sequence[TopicLog],
    jpeg_queue_high_water: int = 0,
    jpeg_queue_frames: int = 0,
    error: str = "",
    frame_error: str = "",
) -> RecordingReport:
    """The report of a recording from its topic logs."""
    spans = [span for log in logs if (span := log.span_ns()) is not None]
    begin_ns, end_ns = min((span[0] for span in spans), default=0), max((span[1] for span in spans), default=0)
    topics = tuple(log.report(end_ns) for log in logs)
    duration_s = (end_ns - begin_ns) / 1e9
    return RecordingReport(
        str(folder), topics, duration_s, jpeg_queue_high_water, jpeg_queue_frames, error, frame_error
    )
