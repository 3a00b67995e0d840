"""Why messages are missing: what the recorder can know of it, said in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from collector.recording.report import RecordingReport, TopicLog, loss_cause, make_report, read_report

PERIOD_NS = 100_000_000


def report_of(lost: int = 0, dropped: int = 0) -> RecordingReport:
    """Of a camera of 10 Hz."""
    log = TopicLog("/camera", "sensor_msgs/msg/CompressedImage", 10.0)
    for number in range(60):
        if not 20 <= number < 20 + lost:
            log.add(number * PERIOD_NS, number * PERIOD_NS)
    log.dropped = dropped
    return make_report("bag", [log], 12, 40)


@pytest.mark.parametrize(
    ("lost", "dropped", "simulators", "load", "says"),
    [
        (0, 0, 2, 9.0, ""),
        (7, 0, 2, 0.5, "2 simulators publish in this ROS domain"),
        (7, 0, 1, 4.2, "a load of 4.2 on 2 cores"),
        (0, 3, 1, 0.5, "faster than they could be written (12 frames waited"),
        (7, 0, 1, 0.5, "never arrived here"),
    ],
)
def test_the_likeliest_cause(lost: int, dropped: int, simulators: int, load: float, says: str) -> None:
    report = report_of(lost, dropped)
    assert report.missing == lost + dropped
    cause = loss_cause(report, simulators, load, cores=2)
    assert says in cause and bool(says) == bool(cause)
    table = replace(report, loss_cause=cause).table()
    assert ("why messages are missing: " + cause in table) == bool(cause)


def test_the_cause_is_kept_in_the_bag(tmp_path: Path) -> None:
    replace(report_of(3), loss_cause="because").write(tmp_path)
    assert read_report(tmp_path).loss_cause == "because"
