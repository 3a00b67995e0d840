"""Many samples where a kart has strayed, some in and behind bends, few on straights; nothing is lost in the counts."""

from __future__ import annotations

import numpy as np
import pytest

from closed_loop.course.course import Course
from closed_loop.dagger.choice import Choice, ChoiceConfig, Kind


def road() -> Course:
    """30 m straight on, half a circle of 8 m to the left, 30 m back."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 60)
    out = np.stack([np.arange(0.0, 30.0, 0.5), np.zeros(60)], axis=1)
    bend = np.stack([30.0 + 8.0 * np.cos(turn), 8.0 + 8.0 * np.sin(turn)], axis=1)
    back = np.stack([np.arange(29.5, 0.0, -0.5), np.full(59, 16.0)], axis=1)
    return Course("hairpin", np.concatenate([out, bend, back]), False, np.full(179, 3.0), np.full(179, 3.0))


@pytest.mark.parametrize(
    ("station_m", "lateral_m", "heading_rad", "kind"),
    [
        (15.0, 0.1, 0.0, "straight"),
        (28.0, 0.1, 0.0, "in a bend"),
        (45.0, -0.1, 0.05, "in a bend"),
        (58.5, 0.1, 0.0, "out of a bend"),
        (70.0, 0.1, 0.0, "straight"),
        (15.0, -0.5, 0.0, "strayed"),
        (45.0, 0.0, -0.3, "strayed"),
    ],
)
def test_a_state_is_what_its_place_says(station_m: float, lateral_m: float, heading_rad: float, kind: Kind) -> None:
    assert Choice(ChoiceConfig()).kind(road(), station_m, lateral_m, heading_rad) == kind


def test_each_kind_has_its_pace_and_each_drive_its_clock() -> None:
    choice = Choice(ChoiceConfig(stray_every_s=0.2, bend_every_s=0.5, straight_every_s=2.0))
    taken: dict[str, int] = {}
    for kind in ("strayed", "in a bend", "out of a bend", "straight"):
        taken[kind] = sum(choice.takes(kind, step * 100_000_000, kind) for step in range(40))
    assert taken == {"strayed": 20, "in a bend": 8, "out of a bend": 8, "straight": 2}
    assert not choice.takes("straight", 3_900_000_000, "straight")
    assert choice.takes("another", 3_900_000_000, "straight")
    assert choice.takes("straight", 1_000_000_000, "straight"), "its clock went back"
    facts = choice.facts()
    assert facts["taken"] == {**taken, "straight": 4} and facts["reached"]["straight"] == 43
    assert "straight 4 of 43" in choice.table()
