"""The doctor's command: its table keeps every word, equal faults share a line, and its settings have limits."""

from __future__ import annotations

import io

import pytest

from collector.common.errors import MonoError
from collector.common.tables import Console
from collector.doctor.checks import examine
from collector.doctor.command import folded, table
from collector.doctor.config import DoctorConfig
from collector.ros.topics import CAMERA_IMAGE, CONTROL_MODE, STEERING_STATUS, VELOCITY_STATUS
from tests.helpers.doctor_facts import GONE, healthy, offer, with_topic

RECORD = DoctorConfig(purpose="record")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_keeps_every_word_at_any_width(width: int) -> None:
    facts = with_topic(with_topic(healthy("record"), STEERING_STATUS, **GONE), VELOCITY_STATUS, **GONE)
    facts = with_topic(facts, CAMERA_IMAGE, publishers=(offer(CAMERA_IMAGE, "[red]node[/red]"),))
    rows = examine(facts, RECORD)
    file = io.StringIO()
    Console(file=file, width=width).print(table(rows))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    squeezed = "".join(text.split())
    for row in rows:
        for words in (row.found, row.cure, row.topic):
            assert "".join(words.split()) in squeezed


def test_equal_faults_share_a_line() -> None:
    facts = healthy("record")
    for which in (VELOCITY_STATUS, STEERING_STATUS, CONTROL_MODE):
        facts = with_topic(facts, which, **GONE)
    rows = examine(facts, RECORD)
    lines = folded(rows)
    # Velocity has a cure of its own; what is good keeps its own line.
    assert [[row.name for row in line] for line in lines if len(line) > 1] == [["steering", "control mode"]]
    assert sum(map(len, lines)) == len(rows)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": float("nan")}, {"minutes": -1.0}, {"jpeg_quality": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(MonoError, match="Expected"):
        DoctorConfig(**wrong)  # type: ignore[arg-type]
