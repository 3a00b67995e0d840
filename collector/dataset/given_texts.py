"""Reasoning texts that a user gives, by frame, from a file of JSON lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError, shown
from collector.common.text_files import parse_json, read_lines
from collector.dataset.schema import Sample, SchemaError

LONGEST_TEXT = 10_000  # of a text; a model says some dozen words
_SPECIAL = re.compile(r"<\||<i\d+>")  # how the words begin that tell a model where a text or a path ends
MOST_TEXTS = 1_000_000  # of a reasoning file, held in memory
# What readers put in the place of bytes they could not decode, and half a character, which JSON can spell.
_DAMAGED = re.compile("[\ufffd\ud800-\udfff\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _given_text(values: Mapping[str, Any], where: str) -> tuple[tuple[str | None, int], str]:
    """Bag and stamp, and the text, of a line of given reasoning (SchemaError: it names the field)."""
    stamp_ns, text, bag = values.get("stamp_ns"), values.get("reasoning"), values.get("bag")
    # JSON knows no subclass of these, and a bool is no int.
    if type(stamp_ns) is not int:
        raise SchemaError(f"{where}, field stamp_ns: found {stamp_ns!r}", "int", "repair it")
    if type(text) is not str or (bag is not None and type(bag) is not str):
        name, value = ("reasoning", text) if type(text) is not str else ("bag", bag)
        raise SchemaError(f"{where}, field {name}: found {value!r}", "str", "repair it")
    for name, value in (("reasoning", text), ("bag", bag or "")):
        if not (value.isascii() and value.isprintable()) and _DAMAGED.search(value):
            found = f"{where}, field {name}: {value[:60]!a} has a control character, or one that "
            found += "stands for one that was lost"
            raise SchemaError(found, "text as it was written", "save the file again from its source, as UTF-8")
    if not text.strip() or len(text) > LONGEST_TEXT or _SPECIAL.search(text):
        expected = f"words, at most {LONGEST_TEXT:,} characters, none of a model's own like <|...|>"
        raise SchemaError(f"{where}, field reasoning: found {text[:60]!r}", expected, "repair or remove this line")
    return (bag, stamp_ns), text


def load_texts(path: Path | str) -> dict[tuple[str | None, int], str]:
    """Texts by (bag or None, stamp_ns) from a JSONL file.

    Raises:
        MonoError: the file cannot be read, a line is not UTF-8 or no JSON, or there are more than :data:`MOST_TEXTS`.
        SchemaError: a line does not fit; it names file, line and field.
    """
    texts: dict[tuple[str | None, int], str] = {}
    unused: set[str] = set()
    known, file = Sample.model_fields.keys(), str(path)
    for number, line in read_lines(path, "the reasoning file"):
        where = f"{file}, line {number}"
        values = parse_json(line, where, "repair this line")
        values = values if isinstance(values, dict) else {}
        if not values.keys() <= known:
            unused |= values.keys() - known
        key, text = _given_text(values, where)
        if texts.setdefault(key, text) != text:
            raise SchemaError(
                f"{where}, field stamp_ns: {key[1]} has another text above", "one text a frame", "remove one"
            )
        if len(texts) > MOST_TEXTS:
            raise MonoError(
                f"{where}: more texts than can be held", f"at most {MOST_TEXTS:,}", "split the bags and the file"
            )
    if unused:
        print(f"reasoning file {path}: fields not used: {shown(', '.join(sorted(unused)[:20]))}", file=sys.stderr)
    return texts
