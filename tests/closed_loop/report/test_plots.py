"""Figures: what is drawn is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from closed_loop.comparison.deviation import measure, reference_curves, summarise
from closed_loop.comparison.runs import VARIANTS
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.report.plots import (
    COLOURS,
    along_figure,
    colour_of,
    curves_figure,
    latency_figure,
    loss_figure,
    map_figure,
    ordered,
    png,
)
from closed_loop.report.sections import read_losses


@pytest.fixture(scope="module")
def city() -> Course:
    return course_named("city")


def tables(course: Course, lateral_m: float) -> list[dict]:
    poses = course.pose_at(np.arange(0.0, course.length_m, 0.25), lateral_m)
    return [measure(0.05 * np.arange(len(poses)), poses, course).arrays()]


def is_png(data: bytes) -> bool:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return picture is not None and min(picture.shape[:2]) > 150 and picture.std() > 5.0


def test_every_variant_has_one_colour_of_its_own() -> None:
    colours = [colour_of(name) for name in VARIANTS]
    assert len(set(colours)) == len(colours)
    assert set(VARIANTS) <= set(COLOURS)
    assert ordered(["expert", "adapter-mono", "base-four"]) == ["base-four", "adapter-mono", "expert"]


def test_the_map_colours_the_drive_by_signed_deviation_and_marks_each_event(city: Course) -> None:
    wide = city.pose_at(np.arange(0.0, 200.0, 0.25), np.interp(np.arange(0.0, 200.0, 0.25), [90, 100, 110], [0, 4, 0]))
    deviation = measure(0.05 * np.arange(len(wide)), wide, city, resets_s=[30.0])
    drives = {"base-mono": [deviation.arrays()], "adapter-mono": tables(city, 0.3)}
    figure = map_figure(city, drives)
    before, after = figure.axes[0], figure.axes[1]
    marks = [line for line in before.lines if line.get_marker() == "X"]
    assert sum(len(line.get_xdata()) for line in marks) == len(deviation.events) >= 1
    coloured = [c for c in after.collections if isinstance(c, LineCollection) and c.get_array() is not None]
    assert np.median(np.asarray(coloured[0].get_array())) == pytest.approx(0.3, abs=0.02)
    # The jump of a recovery is not a driven line.
    pieces = next(c for c in before.collections if isinstance(c, LineCollection) and c.get_array() is not None)
    assert len(pieces.get_segments()) == len(wide) - 2
    numbers = {text.get_text() for text in before.texts}
    assert numbers == {str(number) for number in range(1, len(reference_curves(city)) + 1)}
    assert is_png(png(figure))


def test_curve_numbers_do_not_cover_each_other() -> None:
    for spec in ("city", "random:9001"):
        course = course_named(spec)
        axes = map_figure(course, {"expert": tables(course, 0.0)}).axes[0]
        spots = np.array([text.get_position() for text in axes.texts])
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2) + 99.0 * np.eye(len(spots))
        assert gaps.min() > 2.5


def test_deviation_along_the_course_keeps_sign_and_takes_the_worst_of_several_drives(city: Course) -> None:
    drives = {"base-mono": [*tables(city, -0.9), *tables(city, 0.2)], "adapter-mono": tables(city, 0.3)}
    axes = along_figure(city, drives).axes[0]
    solid = [line for line in axes.lines if len(line.get_xdata()) > 100 and line.get_linestyle() == "-"]
    lines = {line.get_color(): line for line in solid}
    assert np.nanmedian(lines[colour_of("base-mono")].get_ydata()) == pytest.approx(-0.9, abs=0.03)
    assert np.nanmedian(lines[colour_of("adapter-mono")].get_ydata()) == pytest.approx(0.3, abs=0.03)
    assert len(axes.patches) >= len(reference_curves(city))  # a band per curve
    short = city.pose_at(np.arange(0.0, 100.0, 0.25), 0.5)
    part = measure(0.05 * np.arange(len(short)), short, city).arrays()
    axes = along_figure(city, {"base-mono": [part]}).axes[0]
    line = next(line for line in axes.lines if line.get_color() == colour_of("base-mono"))
    assert np.isnan(line.get_ydata()[150:]).all()  # where nobody drove there is no line


def test_bars_say_which_curves_were_not_reached(city: Course) -> None:
    short = city.pose_at(np.arange(0.0, 100.0, 0.25), 0.5)
    part = summarise([measure(0.05 * np.arange(len(short)), short, city)])["curves"]
    whole = summarise([measure(table["t_s"], table["poses"], city) for table in tables(city, 0.2)])["curves"]
    figure = curves_figure({"base-mono": part, "adapter-mono": whole}, "city")
    missing = [text for text in figure.axes[0].texts if text.get_text() == "not reached"]
    assert len(missing) == sum(row["max_m"] is None for row in part) >= 10
    assert is_png(png(figure))


def test_latency_bars_reach_the_median(city: Course) -> None:
    figure = latency_figure({"base-mono": {"vision": {"p50": 20.0, "p95": 33.0}, "decode": {"p50": 70.0, "p95": 90.0}}})
    assert sorted(patch.get_width() for patch in figure.axes[0].patches) == [20.0, 70.0]
    assert is_png(png(figure))


def test_losses_are_read_apart_and_bad_lines_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    rows = [{"step": 0, "validation_text_loss": 2.0, "validation_flow_loss": 1.5}]
    rows += [{"step": step, "text_loss": 2.0 / step, "flow_loss": 1.0} for step in range(1, 40)]
    rows[3]["flow_loss"] = float("nan")
    log.write_text("\n".join([*(json.dumps(row) for row in rows), "{half a li", '"text"', ""]))
    curves = read_losses(log)
    assert set(curves) == {"text_loss", "flow_loss", "validation_text_loss", "validation_flow_loss"}
    assert len(curves["text_loss"][0]) == 39
    assert len(curves["flow_loss"][0]) == 38
    figure = loss_figure(curves)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "text loss (cross-entropy per token)",
        "trajectory loss (flow matching)",
    ]
    assert is_png(png(figure))
    assert is_png(png(loss_figure({})))


def test_figures_leave_no_global_state() -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    png(latency_figure({"base-mono": {"vision": {"p50": 1.0, "p95": 2.0}}}))
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
