"""Figures as people read them, and tables of them: as CSV, and for a terminal.

"-" stands for a figure that is not there (None, NaN, infinite).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A figure with so many digits, and a unit after it."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}{unit}"


def metres(value: float | None) -> str:
    """Metres to the centimetre."""
    return number(value, 2, " m")


def percent(value: float | None) -> str:
    """A share in percent."""
    return number(None if value is None else 100.0 * value, 0, " %")


def write_csv(path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows (values by column; None, NaN and absent ones become empty) as CSV with a line of headings.

    ``columns`` are written in that order; by default every one, as they first appear.
    """
    lines = list(rows)
    names = list(dict.fromkeys(name for row in lines for name in row)) if columns is None else columns
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_cell(row.get(name)) for name in names] for row in lines)


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def text_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    styles: Sequence[str | None] = (),
) -> Table:
    """A table to print with rich; the columns ``left`` are set to the left, ``styles`` are rich's, one per row."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index in left else "right")
    for index, row in enumerate(rows):
        table.add_row(*row, style=styles[index] if index < len(styles) else None)
    return table
