"""One progress bar for all that takes long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], what: str, unit: str, *, show: bool = True, total: int | None = None
) -> Iterable[Item]:
    """The items, with a bar on standard error where that is a terminal and ``show`` is set."""
    return tqdm(items, desc=what, unit=unit, total=total, disable=None if show else True, dynamic_ncols=True)
