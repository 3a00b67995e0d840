"""Plots: one style, a font with Japanese letters where one is installed, lines broken where Japanese may be broken.

A page in a browser needs none of the latter; what no font of a plot can show belongs there. matplotlib is imported when
a plot is made.
"""
# ruff: noqa: RUF001 - Japanese punctuation is meant

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


# By how common they are on Linux, macOS and Windows; the last ones have more letters than beauty.
_JAPANESE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "IPAGothic", "IPAPGothic", "TakaoPGothic", "VL PGothic",
    "Source Han Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic", "Noto Sans CJK SC", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Unifont",
)  # fmt: skip
# No line may begin with one of these, and none may end with one of those (JIS X 4051, in short).
_NOT_FIRST = "、。，．・：；？！)）]］}｝」』】〉》ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"
_NOT_LAST = "(（[［{｛「『【〈《"


def bars(
    names: Collection[str], places: NDArray[np.float64], room: float
) -> Iterator[tuple[str, NDArray[np.float64], float]]:
    """Where the bars of each name stand, side by side in the ``room`` about their places, and how wide one is."""
    each = room / max(1, len(names))
    for number, name in enumerate(names):
        yield name, places + (number - (len(names) - 1) / 2.0) * each, each


def families() -> list[str]:
    """The value for matplotlib's ``font.family``: its own font, then a Japanese one where one is installed."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["sans-serif", *[name for name in _JAPANESE_FONTS if name in installed][:1]]


def is_shown(text: str) -> bool:
    """Whether the fonts of :func:`families` have every letter of a text; the others would be drawn as boxes."""
    from matplotlib import font_manager

    letters = {ord(letter) for letter in text if not letter.isspace()}
    for family in families():
        file = font_manager.findfont(font_manager.FontProperties(family=[family]))
        letters -= set(font_manager.get_font(file).get_charmap())
    return not letters


def columns_of(text: str) -> int:
    """How wide a text is in columns: a Japanese letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrapped(text: str, columns: int) -> str:
    """A text in lines of at most so many columns: between words, and between Japanese letters."""
    lines = [""]
    for part in _parts(text, columns):
        if columns_of(lines[-1] + part.rstrip()) <= columns or not lines[-1]:
            lines[-1] += part
        else:
            lines.append(part.lstrip())
    return "\n".join(line.strip() for line in lines)


def _parts(text: str, columns: int) -> list[str]:
    """Where a line may be broken: after every part."""
    parts: list[str] = []
    for word in re.findall(r"\s+|[^\s]", " ".join(text.split())):
        last = parts[-1] if parts else ""
        is_narrow = columns_of(word) == 1 and columns_of(last[-1:]) == 1 and not last.endswith(" ")
        belongs = word.isspace() or word in _NOT_FIRST or (last and last[-1] in _NOT_LAST) or is_narrow
        # A word that is longer than a line is cut.
        if last and belongs and (columns_of(last + word) <= columns or word.isspace()):
            parts[-1] += word
        else:
            parts.append(word)
    return parts
