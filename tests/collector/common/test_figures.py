"""Figures as text, tables as CSV, and the cores there are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from collector.common.cpu import core_count
from collector.common.tables import metres, number, percent, write_csv


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_what_is_not_there_is_a_dash(nothing: float | None) -> None:
    assert [number(nothing), metres(nothing), percent(nothing)] == ["-", "-", "-"]


def test_figures_have_digits_and_units() -> None:
    assert (metres(1.234), percent(0.126), number(2.0, 1, " s")) == ("1.23 m", "13 %", "2.0 s")


def test_rows_of_different_columns_make_one_csv(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": math.nan}, {"a": None, "c": "三, x"}]
    write_csv(tmp_path / "all.csv", rows)
    write_csv(tmp_path / "some.csv", rows, ["c", "a"])
    assert (tmp_path / "all.csv").read_text("utf-8").splitlines() == ["a,b,c", "1,,", ',,"三, x"']
    assert (tmp_path / "some.csv").read_text("utf-8").splitlines() == ["c,a", ",1", '"三, x",']


def test_a_process_has_a_core() -> None:
    assert core_count() >= 1
