"""Text in plots: broken where Japanese may be broken, and never drawn as boxes without anybody knowing."""

from __future__ import annotations

import pytest

from collector.common import plotting as plot_text
from collector.common.plotting import columns_of, families, is_shown, wrapped

JAPANESE = "前方の車線は右に曲がっているので、減速して「右」に操舵し、車線を保つ。"


def test_japanese_breaks_between_letters_and_punctuation_begins_no_line() -> None:
    for columns in range(8, 60):
        lines = wrapped(JAPANESE, columns).split("\n")
        assert "".join(lines) == JAPANESE and max(map(columns_of, lines)) <= columns
        assert not any(line[0] in "、。」" or line[-1] == "「" for line in lines)
    assert len(wrapped(JAPANESE, 20).split("\n")) == 4


def test_english_breaks_between_words_and_only_a_longer_word_is_cut() -> None:
    text = "The lane bends right ahead, so slow down (and steer right)."
    for columns in range(7, 70):
        lines = wrapped(text, columns).split("\n")
        assert " ".join(lines) == text and max(map(len, lines)) <= columns
    assert wrapped("before-one: " + "x" * 25, 10).replace("\n", "") == "before-one:" + "x" * 25
    assert wrapped("右へ turn right", 8) == "右へ\nturn\nright" and wrapped("", 5) == ""


def test_a_japanese_font_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    font_manager = pytest.importorskip("matplotlib.font_manager")
    before = families()
    assert before[0] == "sans-serif" and is_shown("Turn left, 3.5 m/s: +-") and not is_shown("\U0010fffd")
    # Any font serves to show that the second one is asked too: this one has letters that DejaVu lacks.
    other = font_manager.findfont(font_manager.FontProperties(family=["STIXNonUnicode"]))
    theirs = font_manager.get_font(other).get_charmap()
    letter = next(chr(code) for code in sorted(theirs) if code > 0xE000 and not is_shown(chr(code)))
    monkeypatch.setattr(plot_text, "_JAPANESE_FONTS", ("Not Installed", "STIXNonUnicode"))
    assert families() == ["sans-serif", "STIXNonUnicode"] and is_shown(letter + "a")
