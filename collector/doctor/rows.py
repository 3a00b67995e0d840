"""A row of the doctor's table, and the table for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

State = Literal["ok", "warning", "failed"]
_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "bold red")}


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        name: what was looked at, in a word or two.
        state: ``"failed"`` makes a run useless, a ``"warning"`` costs something.
        found: what there is.
        cure: what to do about it, empty for a good row.
        topic: ROS topic it is about, empty for other checks.
    """

    name: str
    state: State
    found: str
    cure: str = ""
    topic: str = ""

    def but(self, state: State, found: str, cure: str) -> Row:
        """The same row with another outcome."""
        return Row(self.name, state, found, cure, self.topic)


def is_useful(rows: Iterable[Row]) -> bool:
    """Whether a run would be worth starting: no row failed."""
    return all(row.state != "failed" for row in rows)


def folded(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by table line: bad rows that say the same of several topics share one, at the place of the first."""
    lines: dict[tuple[object, ...], list[Row]] = {}
    for number, row in enumerate(rows):
        key = (number,) if row.state == "ok" or not row.topic else (row.state, row.found, row.cure)
        lines.setdefault(key, []).append(row)
    return list(lines.values())


def table(rows: Sequence[Row]) -> Table:
    """The rows as a rich table; the cure stands below what was found, so that 80 columns are enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("")
    shown.add_column("check", min_width=12)
    shown.add_column("found", ratio=1, overflow="fold")
    for line in folded(rows):
        row = line[0]
        mark, style = _MARKS[row.state]
        # Names and paths are data: as Text nothing in them is taken for markup.
        topics = [entry.topic for entry in line if entry.topic]
        found = Text(("\n" if len(topics) > 1 else ": ").join([*topics, row.found]))
        if row.cure:
            found.append(f"\n-> {row.cure}", style=style.replace("bold ", ""))
        shown.add_row(Text(mark, style=style), Text("\n".join(entry.name for entry in line)), found)
    return shown
