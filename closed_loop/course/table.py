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

MOST_ROWS, MOST_LINES, MOST_CHARACTERS = 200_000, 400_000, 10_000  # lines: rows, comments and blank ones
# The columns of a line's heading, an angle or the last two parts of a quaternion, and of the way along it.
HEADINGS = (("z_quat", "w_quat"), ("qz", "qw"), ("yaw",), ("yaw_rad",), ("psi_rad",))
STATIONS = (("s_m",), ("s",))
_IN_METRES = re.compile(r"\s*[\[(]m[\])]$")  # a unit behind a name, as in x [m]
AGAINST = -0.7  # mean cosine between two headings: the one runs against the other


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
    cells = next(csv.reader([heading.rstrip("\n")], delimiter=separator), [])
    header = [_IN_METRES.sub("", cell.strip().lower()) for cell in cells]

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
                found += f" ({heading.strip()[:80]!r})"
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
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):  # CR alone ends a line too
        if number > MOST_LINES:
            found, expected = f"course file {path} has more than {MOST_LINES:,} lines", "a line for each point"
            raise MonoError(found, expected, "remove blank lines and comments, or keep the rows of a lap")
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


def _number(cell: str) -> float:
    if "_" in cell:
        raise ValueError  # Python's 1_000 is no number of a CSV
    return float(cell)


def numbers(path: Path, header: list[str], rows: Sequence[list[str]], names: Sequence[str]) -> FloatArray:
    """The named columns (N, len(names)), or an error that names the row."""
    columns = [header.index(name) for name in names]
    table = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        try:
            table[index] = [_number(row[column]) for column in columns]
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


def runs_against(header: list[str], rows: list[list[str]], xy: FloatArray) -> str:
    """The column after which a line is driven from its last row to its first, empty where none says so."""
    step = np.diff(xy, axis=0)
    for names in (*STATIONS, *HEADINGS):
        if not set(names) <= set(header):
            continue
        try:
            values = numbers(Path(), header, rows, names)[:-1]
        except MonoError:  # what is not used may be anything
            continue
        if names in STATIONS:
            against = len(values) > 1 and bool((np.diff(values[:, 0]) < 0.0).all())
        else:
            yaw = 2.0 * np.arctan2(values[:, 0], values[:, 1]) if len(names) == 2 else values[:, 0]
            way = step[:, 0] + 1j * step[:, 1]
            mean = (np.exp(-1j * yaw) * way).sum() / max(float(np.abs(way).sum()), 1e-9)
            # TUM counts psi from the y axis.
            against = mean.real < AGAINST or (names == ("psi_rad",) and mean.imag < AGAINST)
        if against:
            return names[0]
    return ""
