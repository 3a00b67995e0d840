"""Figures as people read them; "-" stands for a figure that is not there (None, NaN, infinite)."""

from __future__ import annotations

import math


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A figure with so many digits, and a unit after it."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}{unit}"


def metres(value: float | None) -> str:
    """Metres to the centimetre."""
    return number(value, 2, " m")


def percent(value: float | None) -> str:
    """A share in percent."""
    return number(None if value is None else 100.0 * value, 0, " %")
