"""A tokenizer gives a text back as it was, or is refused; what others left in its file cuts no sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")
from collector.common.errors import MonoError
from finetune import TINY_BASE
from finetune.processing.tokenizer import Tokenizer

SENTENCE = "The lane bends right, so slow down and steer right."


def changed(folder: Path, part: str, values: Any) -> Path:
    content = json.loads((TINY_BASE / "tokenizer.json").read_text(encoding="utf-8"))
    content[part] = content[part] | values if part == "model" else values
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def replacing(pattern: str, by: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": by}


def splitting(pattern: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("part", "values", "sentence"),
    [
        ("normalizer", replacing("", "x" * 1000), "rewrites texts"),  # a panic of the library
        ("normalizer", {"type": "Sequence", "normalizers": [replacing("e", "e" * 100)] * 5}, "rewrites texts"),  # 10 GB
        ("normalizer", {"type": "Lowercase"}, "rewrites texts"),
        ("pre_tokenizer", splitting("(x+x+)+y"), "of 'Lane bends right"),
        ("pre_tokenizer", None, "of 'Lane bends right"),
        ("decoder", None, "of 'Lane bends right"),
        ("model", {"dropout": 0.9}, "at random"),
        ("model", {"vocab": {"a": "b"}}, "cannot be read"),
        ("model", {"vocab": {"a": -1}}, "cannot be read"),
        ("model", {"merges": [["no", "such"]]}, "cannot be read"),
    ],
)
def test_a_tokenizer_that_changes_what_it_is_given_is_refused(
    tmp_path: Path, part: str, values: Any, sentence: str
) -> None:
    with pytest.raises(MonoError, match=rf"tokenizer\.json.*{sentence}"):
        Tokenizer.from_folder(changed(tmp_path, part, values))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"model": null}', b"\x89PNG\r\n", b'{"a":' * 9999])
def test_what_is_no_tokenizer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(MonoError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.from_folder(tmp_path)


def test_cutting_and_filling_of_another_use_are_switched_off(tmp_path: Path) -> None:
    whole = Tokenizer.from_folder(TINY_BASE).encode(SENTENCE)
    for stride in (0, 10):  # the latter is a panic of the library
        cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": stride}
        assert Tokenizer.from_folder(changed(tmp_path, "truncation", cut)).encode(SENTENCE) == whole
    filled = {"strategy": {"Fixed": 10**8}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    assert Tokenizer.from_folder(changed(tmp_path, "padding", filled)).encode(SENTENCE) == whole
