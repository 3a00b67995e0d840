"""Text that people give, read strictly: UTF-8, of a size and a depth; what a byte may have meant is never guessed.

A byte order mark is taken off. Every refusal (MonoError) names the file and the line.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from collector.common.errors import MonoError
from collector.common.files import open_regular

MIB = 1024 * 1024
MOST_TEXT_BYTES = 16 * MIB
MOST_SETTINGS_BYTES = MIB // 8  # a YAML parser in Python reads about 50 kB/s
MOST_SETTINGS = 20_000  # values of a YAML file, an alias counted as often as it is used
MOST_LINE_BYTES = MIB
MOST_JSON_LEVELS = 64  # of JSON, lists and objects inside one another
# Control characters are in no text that people write, but in UTF-16 without its mark (NUL), ISO-2022-JP (ESC) and in
# UTF-8 that was taken for Latin-1 and saved as UTF-8 again (0x80 to 0x9f).
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LFS = b"version https://git-lfs"
# 010 is 8 in YAML, 1:30 is 90.
_NUMBERS, _OTHER_BASE = (
    ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"),
    re.compile("[-+]?0[0-9_]+|.*:.*|[-+]?0[bx].*"),
)
# How files begin that hold no text until they are unpacked.
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
# Encodings worth a name in a refusal, and what of a text shows them: hiragana, which every Japanese sentence has.
_LIKELY = {"Shift_JIS (CP932)": "cp932", "EUC-JP": "euc_jp", "ISO-2022-JP": "iso2022_jp"}
_HIRAGANA = re.compile("[\u3041-\u3096]")
_TORN_NAMED = 5
_PAGES = re.compile(rb"\0{64,}")

Parsed = TypeVar("Parsed")


def read_text(path: Path | str, what: str, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """The text of a file, ``what`` it is for in messages (MonoError: unreadable, too large, or not UTF-8)."""
    raw = _read(path, what, most_bytes)
    if len(raw) > most_bytes:
        expected = f"at most {most_bytes / MIB:g} MiB"
        raise MonoError(f"{what} {path} is larger than that", expected, "check that it is the right file")
    return _decoded(raw, f"{what} {path}", 1)


def read_lines(path: Path | str, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1; one in memory at a time.

    Raises:
        MonoError: the file is unreadable, or a line is not UTF-8 or longer than 1 MiB.
    """
    name = f"{what} {path}"
    try:
        with open_regular(Path(path)) as stream:
            number = 0
            while raw := stream.readline(MOST_LINE_BYTES + 1):
                number += 1
                if len(raw) > MOST_LINE_BYTES:
                    expected = f"lines of at most {MOST_LINE_BYTES / MIB:g} MiB"
                    raise MonoError(f"{name}, line {number} is longer than that", expected, "repair this line")
                if line := _decoded(raw.rstrip(b"\r\n"), name, number).strip():
                    yield number, line
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error


def read_json_lines(path: Path | str, what: str, parse: Callable[[dict[str, Any]], Parsed]) -> Iterator[Parsed]:
    """The objects of a file that a program wrote a line at a time, as ``parse`` makes them; one in memory at a time.

    A kill or a power cut tears lines. One that is no JSON object, or of which ``parse`` makes nothing (ValueError,
    TypeError, LookupError, OverflowError), is passed over; how many were, and which, is said on stderr at the end.

    Raises:
        MonoError: the file is unreadable, or a line is not UTF-8 otherwise than by half a character at its end.
    """
    name = f"{what} {path}"
    torn: list[int] = []
    try:
        with open_regular(Path(path)) as stream:
            number = 0
            while raw := stream.readline(MOST_LINE_BYTES + 1):
                number += 1
                rest = raw  # of a line that is too long; its beginning is no JSON
                while len(rest) > MOST_LINE_BYTES and not rest.endswith(b"\n"):
                    rest = stream.readline(MOST_LINE_BYTES + 1)
                if not raw.strip():
                    continue
                try:
                    values = _loads(_decoded(_torn_off(raw), name, number).strip())
                    made = parse(values) if isinstance(values, dict) else None
                # Half a line may read as anything; RecursionError: nested too deeply.
                except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
                    values = made = None
                if isinstance(values, dict):
                    yield made  # type: ignore[misc]  # None only where values is no object
                else:
                    torn.append(number)
    except OSError as error:
        raise _unreadable(path, what, error) from error
    if torn:
        more = f" and {len(torn) - _TORN_NAMED} more" if len(torn) > _TORN_NAMED else ""
        lines = ", ".join(map(str, torn[:_TORN_NAMED])) + more
        print(f"note: {name}: torn lines passed over: {len(torn)} (line {lines})", file=sys.stderr)


def read_json(
    path: Path | str, do: str = "run the step that wrote it again", expected: str = "a JSON object"
) -> dict[str, Any]:
    """The object in a JSON file (MonoError: absent, unreadable, not UTF-8, no JSON, too deep, or something else)."""
    place = Path(path)
    if not os.path.lexists(place):
        raise MonoError(f"no {place.name} in {place.parent}", expected, do)
    content = parse_json(read_text(place, "the file"), str(place), do)
    if not isinstance(content, dict):
        raise MonoError(f"{place} holds a {type(content).__name__}", expected, do)
    return content


def parse_json(text: str, where: str, do: str) -> Any:  # noqa: ANN401 - what JSON may hold
    """What a JSON text says (MonoError: no JSON, or too deep)."""
    try:
        content = _loads(text)
    except RecursionError as error:
        raise _too_deep(where, do) from error
    except ValueError as error:
        raise MonoError(f"{where} cannot be read: not JSON ({error})", "JSON", do) from error
    if text.count("[") + text.count("{") <= MOST_JSON_LEVELS:
        return content  # so few cannot be nested deeper; the walk costs more than the parser
    level = [content]
    for _ in range(MOST_JSON_LEVELS + 1):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return content
    raise _too_deep(where, do)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand in it once (ValueError)."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} twice in one object")
    return content


# Looks for no white space around a text.
_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _loads(text: str) -> Any:  # noqa: ANN401 - what JSON may hold
    """``json.loads``, which looks for white space around a text first: for a line that costs a third of the whole."""
    try:
        content, end = _DECODER.raw_decode(text)
        if end == len(text):
            return content
    except ValueError:
        pass
    return json.loads(text, object_pairs_hook=_once)


def _too_deep(where: str, do: str) -> MonoError:
    return MonoError(f"{where} is nested more than {MOST_JSON_LEVELS} levels deep", "JSON of a few levels", do)


def read_yaml(path: Path | str, most_bytes: int = MOST_SETTINGS_BYTES) -> dict[str, Any]:
    """A YAML mapping of settings.

    Raises:
        MonoError: absent, not UTF-8, not YAML, not a mapping, a key twice, or more values than settings have.
    """
    text = read_text(path, "the YAML file", most_bytes)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _count(node, str(path), {})
        values = loader.construct_document(node)
    # A tag whose text does not fit it (`!!int x`) fails in as many ways as there are tags.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise MonoError(f"{path} cannot be read: {why}", "a YAML file", "check the text") from error
    if not isinstance(values, dict):
        raise MonoError(f"{path} holds a {type(values).__name__}", "a mapping of settings", "write `key: value` lines")
    return values


def _count(node: yaml.Node, path: str, known: dict[int, int]) -> int:
    """Values under a node, aliases written out (MonoError: too many, an alias of itself, a key twice or no text)."""
    if id(node) not in known:
        known[id(node)] = MOST_SETTINGS + 1  # an alias of a node that is still being counted contains itself
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                line = f"{path}, line {key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise MonoError(f"{line}: a key that is a list or a mapping", "a name", "write `key: value` lines")
                if key.value in seen:
                    raise MonoError(f"{line}: the key {key.value!r} a second time", "each key once", "remove one")
                seen.add(key.value)
                inner.append(value)
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and _OTHER_BASE.fullmatch(node.value):
            found = f"{path}, line {node.start_mark.line + 1}: {node.value[:60]!r}, which YAML does not count by tens"
            raise MonoError(found, "a number like 10 or 0.5", "write it so, or between quotation marks")
        count = 1
        for each in inner:
            count += _count(each, path, known)
            if count > MOST_SETTINGS:
                found = f"{path}, line {node.start_mark.line + 1}: more values than settings have, aliases written out"
                raise MonoError(found, f"at most {MOST_SETTINGS} values", "keep what is set, and write it out")
        known[id(node)] = count
    return known[id(node)]


def _read(path: Path | str, what: str, most_bytes: int) -> bytes:
    """The first bytes of a file: one more than may be, so that too large a file shows."""
    try:
        with open_regular(Path(path)) as stream:
            return stream.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with NUL in it
        raise _unreadable(path, what, error) from error


def _unreadable(path: Path | str, what: str, error: Exception) -> MonoError:
    why = getattr(error, "strerror", None) or error
    return MonoError(f"{what} {path} cannot be read: {why}", "a readable file", "check the path and its permissions")


def _decoded(raw: bytes, name: str, first_line: int) -> str:
    if first_line == 1 and raw.startswith(_LFS):
        do = "get it with `git lfs pull`"
        raise MonoError(f"{name} is a pointer of Git LFS, not the file itself", "the file's own text", do)
    packed = [kind for start, kind in _PACKED.items() if first_line == 1 and raw.startswith(start)]
    if packed:
        raise MonoError(f"{name} is packed ({packed[0]})", "the text itself", "unpack it first")
    try:
        text = raw.decode("utf-8-sig" if first_line == 1 else "utf-8")
        # No control character is printable, and asking for that is ten times as quick; a tab is neither.
        odd = None if text.isprintable() else _CONTROL.search(text)
        if odd is None:
            return text
        line, found = text.count("\n", 0, odd.start()), f"the control character 0x{ord(odd[0]):02x}"
    except UnicodeDecodeError as error:
        line, found = raw.count(b"\n", 0, error.start), f"the byte 0x{raw[error.start]:02x}, which is not UTF-8"
    likely = _likely_encoding(raw)
    found = f"{name}, line {first_line + line} has {found}"
    do = f"it looks like {likely}: save it as UTF-8" if likely else "save it as UTF-8"
    raise MonoError(found, "UTF-8 text", do)


def _torn_off(raw: bytes) -> bytes:
    """A line without what a kill (half a character at its end) or a power cut (pages of zeros) leaves in it."""
    raw = _PAGES.sub(b"", raw.rstrip(b"\r\n"))
    try:
        return raw[: codecs.utf_8_decode(raw, "strict", False)[1]] if raw[-1:] > b"\x7f" else raw
    except UnicodeDecodeError:
        return raw


def _likely_encoding(raw: bytes) -> str:
    """The encoding in which a text has the most hiragana, empty where none has any; UTF-16 also by its mark."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or max(raw[::2].count(0), raw[1::2].count(0)) > len(raw) // 4:
        return "UTF-16"  # of Latin letters every other byte is 0
    if b"\0" in raw:
        return ""
    counts = {name: len(_HIRAGANA.findall(raw.decode(codec, "ignore"))) for name, codec in _LIKELY.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""
