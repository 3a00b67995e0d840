"""What the page shows of karts that were told how to drive, from real drives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from closed_loop.comparison.compare import CompareConfig, compare
from closed_loop.comparison.runs import load_drive
from closed_loop.comparison.table import read_comparison
from closed_loop.course.design import course_named
from closed_loop.report.page import ReportConfig, context, write_report
from closed_loop.report.steering import told_figure
from tests.helpers.constant_curvature import ConstantCurvature

pytest.importorskip("jinja2")


class Told(ConstantCurvature):
    takes_instructions = True


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison whose kart goes straight on whatever it is told."""
    asked = CompareConfig(
        courses=("city",),
        starts=1,
        laps=0.1,
        variants=("base-mono",),
        jobs=1,
        max_off_track=2,
        instructions=("keep left", "turn right"),
        hold_s=2.0,
        pause_s=0.0,
        out=tmp_path_factory.mktemp("told"),
    )
    compare(asked, lambda _, __: Told(speed_mps=3.0))
    return asked.out


def test_the_page_shows_what_a_kart_was_told_and_where_it_went(told: Path) -> None:
    found = context(ReportConfig(run=told))
    shown = found["steering"]
    assert isinstance(shown, dict) and "why" not in shown
    assert [row[1] for row in shown["rows"]] == ["left", "turn right", "all"]
    assert [row[3] for row in shown["rows"]] == ["0 of 1", "-", "0 of 1"]
    assert len(shown["figures"]) == 1
    assert [part["name"] for part in found["origins"]] == ["compare"]  # type: ignore[attr-defined]
    page = write_report(ReportConfig(run=told)).read_text("utf-8")
    section = page[page.index('id="steering"') : page.index('id="openloop"')]
    assert "Obeyed: for a whole second" in section and section.count("<img") == 1


def test_a_demo_has_them_in_a_folder_of_their_own_and_others_are_told_how_to(told: Path, tmp_path: Path) -> None:
    (tmp_path / "steer").symlink_to(told)
    assert "figures" in context(ReportConfig(run=tmp_path))["steering"]  # type: ignore[operator]
    silent = compare(
        CompareConfig(courses=("city",), starts=1, laps=0.05, variants=("expert",), jobs=1, out=tmp_path / "compare")
    )
    assert silent["runs"]
    shown = context(ReportConfig(run=tmp_path / "compare"))["steering"]
    assert isinstance(shown, dict) and "nobody was told anything" in shown["why"]
    assert "--instructions all" in shown["command"]


def test_the_figure_marks_what_was_said_and_where_the_road_was_left(told: Path) -> None:
    course = course_named("city")
    (run,) = read_comparison(told)["runs"]
    usual, drive = (load_drive(told / run[which][0]) for which in ("drives", "told_drives"))
    rows = [
        {"at_s": 1.0, "text": "keep left", "obeyed": True},
        {"at_s": 3.0, "text": "slower", "obeyed": False},
        {"at_s": 5.0, "text": "turn left", "obeyed": None},
    ]
    off = np.zeros(len(drive["t_s"]), bool)
    off[5:9] = off[20:] = True
    figure = told_figure(course, {**drive, "off_track": off}, [usual], rows, 2.0, "a drive")
    place, speed = figure.axes
    assert [text.get_text() for text in place.texts] == ["keep left", "slower", "turn left"]
    spans = {patch.get_facecolor() for patch in place.patches}
    assert len(place.patches) == len(speed.patches) == 3 and len(spans) == 3
    (crosses,) = (line for line in place.lines if line.get_marker() == "X")
    assert np.array_equal(crosses.get_xdata(), drive["t_s"][[5, 20]])
    driven = next(line for line in place.lines if line.get_label() == "told")
    assert np.array_equal(driven.get_ydata(), drive["lateral_m"])
    many = told_figure(course, drive, [usual], [{**rows[0], "at_s": float(each)} for each in range(12)], 1.0, "a drive")
    assert {text.get_rotation() for text in many.axes[0].texts} == {35.0}, "they would run into each other"


@pytest.mark.parametrize("spoilt", ["config", "hold_s", "told drive", "usual drive"])
def test_a_figure_that_cannot_be_drawn_costs_the_figure_only(told: Path, tmp_path: Path, spoilt: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(told, folder)
    (run,) = read_comparison(folder)["runs"]
    config = folder / "config.yaml"
    if spoilt == "config":
        config.unlink()
    elif spoilt == "hold_s":
        config.write_text("".join(line for line in config.open() if not line.startswith("hold_s")))
    else:
        (folder / run["told_drives" if spoilt == "told drive" else "drives"][0]).write_bytes(b"torn")
    shown = context(ReportConfig(run=folder))["steering"]
    assert isinstance(shown, dict) and len(shown["rows"]) == 3 and not shown["figures"]
    assert "cannot be drawn" in shown["missing"][0]
    assert "cannot be drawn" in write_report(ReportConfig(run=folder)).read_text("utf-8")
