"""What people read: figures, tables of them as CSV and for a terminal, and a bar for what takes long.

"-" stands for a figure that is not there (None, NaN, infinite).
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

Item = TypeVar("Item")


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


@dataclass(frozen=True)
class Styled:
    """A text in a colour, a paragraph of a cell."""

    text: str
    style: str = ""  # of STYLES


Cell = str | Sequence[Styled]
# Colours by the name that a caller gives, as a terminal takes them.
STYLES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold red": "1;31", "bold": "1"}
_GAP = "  "
_NARROWEST = 6  # columns of a table on a narrow terminal


@dataclass(frozen=True)
class Table:
    """A table for a terminal; where it is too wide the cells of its widest columns are wrapped."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Collection[int] = (0,)  # columns set to the left, the others to the right
    styles: Sequence[str | None] = ()  # one of STYLES for each row
    whole: Collection[int] = ()  # columns that are not wrapped as long as another can be

    def lines(self, width: int, *, is_coloured: bool = False) -> list[str]:
        """The table in lines of at most ``width`` columns, if its words let it."""
        cells = [[_paragraphs(cell) for cell in row] for row in (self.headings, *self.rows)]
        natural = [max(max(map(_columns, _texts(row[k]))) for row in cells) for k in range(len(self.headings))]
        widths = self._fitted(natural, width - 1 - len(_GAP) * (len(natural) - 1))
        lines = [_styled(self.title, "bold", is_coloured)] if self.title else []
        for index, row in enumerate(cells):
            style = self.styles[index - 1] if 0 < index <= len(self.styles) else "bold" if not index else None
            lines += self._row(row, widths, style or "", is_coloured)
            lines += [" " + "─" * min(width - 1, sum(widths) + len(_GAP) * (len(widths) - 1))] if not index else []
        return lines

    def _fitted(self, natural: Sequence[int], room: int) -> list[int]:
        widths = list(natural)
        for chosen in (set(range(len(widths))) - set(self.whole), set(range(len(widths)))):
            while sum(widths) > room and any(widths[k] > _NARROWEST for k in chosen):
                widths[max(chosen, key=lambda k: widths[k])] -= 1
        return widths

    def _row(self, row: Sequence[Sequence[Styled]], widths: Sequence[int], style: str, is_coloured: bool) -> list[str]:
        cells = [
            [(line, each.style) for each in cell for line in wrapped(each.text, width)]
            for cell, width in zip(row, widths, strict=True)
        ]
        lines = []
        for k in range(max(map(len, cells))):
            parts = []
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
                text, own = cell[k] if k < len(cell) else ("", "")
                space = " " * (width - _columns(text))
                shown = _styled(text, own or style, is_coloured)
                parts.append(shown + space if column in self.left else space + shown)
            lines.append(f" {_GAP.join(parts)}".rstrip())
        return lines


class Console:
    """Where tables and their texts are printed: a terminal, or a file of a given width."""

    def __init__(self, file: TextIO | None = None, width: int | None = None) -> None:
        self._file = file
        self.width = width or shutil.get_terminal_size().columns
        self._is_coloured = file is None and sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def print(self, what: Table | str, style: str = "") -> None:
        """Print a table, or a text wrapped to the width."""
        if isinstance(what, Table):
            lines = [*what.lines(self.width, is_coloured=self._is_coloured), ""]
        else:
            lines = [_styled(line, style, self._is_coloured) for line in wrapped(what, self.width)]
        for line in lines:
            print(line, file=self._file or sys.stdout)


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most ``width`` columns, of which wide characters take two; longer words are broken."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.split(r"(?<=\S)(?= )", paragraph):
            if _columns(line + word) <= width:
                line += word
                continue
            lines += [line] if line else []
            line = word.lstrip(" ")
            while _columns(line) > width:
                cut = next(k for k in range(len(line), 0, -1) if k == 1 or _columns(line[:k]) <= width)
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines


def progress(
    items: Iterable[Item], what: str, unit: str, *, show: bool = True, total: int | None = None
) -> Iterable[Item]:
    """The items, with a bar on standard error where that is a terminal and ``show`` is set."""
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit, total=total, disable=None if show else True, dynamic_ncols=True)


def _paragraphs(cell: Cell) -> Sequence[Styled]:
    return [Styled(cell)] if isinstance(cell, str) else cell


def _texts(cell: Sequence[Styled]) -> list[str]:
    return [line for each in cell for line in each.text.split("\n")] or [""]


def _columns(text: str) -> int:
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def _styled(text: str, style: str, is_coloured: bool) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if is_coloured and style and text else text
