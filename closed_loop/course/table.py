"""The rows of a CSV that describes a course: names of columns, cells that fit them, and numbers that are finite."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from closed_loop.course.osm import FARTHEST_M
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray

MOST_ROWS, MOST_CHARACTERS = 200_000, 10_000


def read_table(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, in lower case, and the rows; the names may stand behind a #, as in TUM's files."""
    comments: list[str] = []
    lines = _lines(path, text, comments)
    first = next(lines, "")
    separator = max(",;\t", key=(comments[-1] if comments and _is_number(first) else first).count)
    if _is_number(first.split(separator)[0]):
        if not comments:
            do = "write them above, for example x_m,y_m"
            raise MonoError(f"course file {path} begins with {first[:80]!r}", "the names of the columns", do)
        heading, rest = comments[-1], [first]
    else:
        heading, rest = first, []
    header = [cell.strip().lower() for cell in next(csv.reader([heading], delimiter=separator), [])]

    def data() -> Iterator[str]:
        yield from rest
        yield from lines

    rows: list[list[str]] = []
    try:
        for row in csv.reader(data(), delimiter=separator):
            while len(row) > len(header) and not row[-1].strip():
                row.pop()  # a separator at the end of the line
            if len(row) != len(header):
                found = f"course file {path}, data row {len(rows) + 1}: {len(row)} cells under {len(header)} names"
                expected = "a cell for each column, with points for decimals"
                raise MonoError(found, expected, "correct or remove the row")
            rows.append(row)
            if len(rows) > MOST_ROWS:
                expected = "a lap with points some decimetres apart"
                found = f"course file {path} has more than {MOST_ROWS:,} rows"
                raise MonoError(found, expected, "keep every tenth row, or the rows of a lap")
    except csv.Error as error:
        raise MonoError(
            f"course file {path}: {error}", "a CSV", "look for a quotation mark without its pair"
        ) from error
    return header, rows


def _lines(path: Path, text: str, comments: list[str]) -> Iterator[str]:
    """The lines that are not blank; what stands behind a # goes to ``comments``."""
    for number, line in enumerate(io.StringIO(text), start=1):
        if len(line) > MOST_CHARACTERS:
            found = f"course file {path}, line {number} has more than {MOST_CHARACTERS:,} characters"
            raise MonoError(found, "a row for each point", "give a file with a point in each row")
        if line.lstrip().startswith("#"):
            comments.append(line.strip().lstrip("#").strip())
        elif line.strip(" \t\r\n,;"):
            yield line


def _is_number(text: str) -> bool:
    try:
        float(re.split("[,;\t]", text)[0])
    except ValueError:
        return False
    return True


def numbers(path: Path, header: list[str], rows: Sequence[list[str]], names: Sequence[str]) -> FloatArray:
    """The named columns (N, len(names)), or an error that names the row."""
    columns = [header.index(name) for name in names]
    table = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        try:
            table[index] = [float(row[column]) for column in columns]
        except ValueError:
            table[index] = np.nan
        if not (np.abs(table[index]) <= FARTHEST_M).all():
            expected = f"numbers in the columns {', '.join(names)}"
            found = (
                f"course file {path}, data row {index + 1}: {','.join(row)[:80]!r} holds what is not a finite number "
                f"of at most {FARTHEST_M:g}"
            )
            raise MonoError(found, expected, "correct or remove the row")
    return table
