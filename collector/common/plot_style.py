"""How plots of this project look: one style, and one colour for before and for after. No matplotlib is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333a44",
    "axes.edgecolor": "#9aa3ad",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#4a525c",
    "ytick.color": "#4a525c",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
INK = "#20262e"
SIDES: Mapping[str, str] = {"before": "#d1432f", "after": "#1d8a4e"}
