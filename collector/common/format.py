"""Figures as people read them."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """A share in percent, "-" for nothing."""
    return "-" if value is None or value != value else f"{100.0 * value:.0f} %"
