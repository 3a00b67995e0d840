"""Messages without those whose stamps tell no time: zeros of a publisher that fills none, and single damaged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from collector.geometry.constants import NS_PER_S

ZERO_STAMP = "stamp 0"
STRAY_STAMP = "stamp far off"


class Stamped(Protocol):
    """What a message of any topic is here."""

    @property
    def stamp_ns(self) -> int:
        """Of its header."""


Row = TypeVar("Row", bound=Stamped)


def sane_stamps(rows: Iterable[Row | None], dropped: Counter[str], gap_ns: float) -> Iterator[Row | None]:
    """Rows in order of arrival without those, which are counted in ``dropped``; they come less than a gap apart."""
    return _without_strays(_without_zeros(rows, dropped, gap_ns), dropped, gap_ns)


def _without_zeros(rows: Iterable[Row | None], dropped: Counter[str], gap_ns: float) -> Iterator[Row | None]:
    """Leave out rows of a publisher that does not fill its stamp; a clock that begins at 0 has one such row."""
    zero: Row | None = None
    for row in rows:
        if row is not None and row.stamp_ns == 0:
            dropped[ZERO_STAMP] += zero is not None
            zero = row
            continue
        if row is not None and zero is not None:
            if 0 < row.stamp_ns <= gap_ns:
                yield zero
            else:
                dropped[ZERO_STAMP] += 1
            zero = None
        yield row
    dropped[ZERO_STAMP] += zero is not None


def _without_strays(rows: Iterable[Row | None], dropped: Counter[str], gap_ns: float) -> Iterator[Row | None]:
    """Leave out a row whose stamp leaps while the next one goes on where the last was: damage, and no other clock."""
    near_ns = 2.0 * gap_ns
    last_ns: int | None = None
    held: Row | None = None
    for row in rows:
        if row is None:
            yield row
            continue
        if held is not None:
            if last_ns is not None and 0 < row.stamp_ns - last_ns <= near_ns:
                dropped[STRAY_STAMP] += 1
            else:
                yield held
                last_ns = held.stamp_ns
            held = None
        if last_ns is not None and not -NS_PER_S < row.stamp_ns - last_ns <= near_ns:
            held = row
        else:
            yield row
            last_ns = row.stamp_ns
    if held is not None:
        yield held
