"""JSON and YAML from elsewhere: what would fill the memory or never end is a sentence."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.common.text_files import MOST_LINE_BYTES, read_json, read_json_lines, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "aliases written out"),
        ("a: &a [*a]", "aliases written out"),
        ("a: &a\n  b: &b {c: 1}\n  <<: [*b, *b]\nd: *a\n", ""),  # a few are fine
        ("[" * 100_000, "nested too deeply"),
        ("a: " + "{b: " * 5000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("a: " + "x" * 300_000, "larger than that"),
        ("a: !!python/object/apply:os.system [true]", "cannot be read"),
        ("a: 'unclosed", "cannot be read"),
        ("a: 1\n\tb: 2", "cannot be read"),
        ("a: \x00", "control character"),
        ("a: 2026-99-99", "cannot be read"),
        ("? [1, 2]\n: 3", "a key that is a list"),
        ("? {a: 1}\n: 3", "a key that is a list"),
        ("just text", "holds a str"),
        ("rate: 010", "line 1: '010', which YAML does not count by tens"),
        ("a: {b: [1:30]}", "does not count by tens"),
        ("a: 0x1F", "does not count by tens"),
        ("a: 10\nb: 0.5\nc: -0\nd: '010'\ne: 2026-01-01 10:30:00\n", ""),
    ],
)
def test_yaml(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    if not sentence:
        assert read_yaml(path)
        return
    with pytest.raises(MonoError, match=sentence) as refused:
        read_yaml(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": ' * 200_000, "nested more than 64"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "nested more than 64"),
        ("[1]", "holds a list"),
        ('{"a": ' + "9" * 10_000 + "}", "cannot be read: not JSON"),
        ('{"a": 1', "cannot be read: not JSON"),
        ('{"b": [{"a": 1, "a": 2}]}', "the key 'a' twice in one object"),
        ('{"a": "' + "x" * (17 << 20) + '"}', "larger than that"),
    ],
)
def test_json(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(MonoError, match=sentence):
        read_json(path, "write it again")
    path.write_text(json.dumps({"a": [[[1]]]}))
    assert read_json(path, "") == {"a": [[[1]]]}


def test_torn_lines_of_a_log_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    lines: list[bytes] = [
        b'{"step": 1, "note": "' + "左".encode() + b'"}',
        b'{"step": 2, "not',  # killed
        b'{"step": 3, "note": "' + "左".encode()[:2],  # in the middle of a character
        b'{"step": 4}' + bytes(4096),  # a page that never reached the disk
        bytes(4096) + b'{"step": 5}',
        b"[1]",
        b'{"other": 6}',
        b'{"step": "seven"}',
        b"[" * 100_000,
        b'{"step": 9, "note": "' + b"x" * (MOST_LINE_BYTES * 2) + b'"}',
        b"",
        b'{"step": 12}',
    ]
    path.write_bytes(b"\n".join(lines))
    assert list(read_json_lines(path, "the log", lambda values: int(values["step"]))) == [1, 4, 5, 12]
    said = capsys.readouterr().err
    assert said == f"note: the log {path}: torn lines passed over: 7 (line 2, 3, 6, 7, 8 and 2 more)\n"
    path.write_bytes(lines[0] + b"\n")
    assert list(read_json_lines(path, "the log", dict)) == [{"step": 1, "note": "左"}]
    assert capsys.readouterr().err == ""
    with pytest.raises(MonoError, match="cannot be read"):
        list(read_json_lines(tmp_path / "absent", "the log", dict))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, sentence in (("pipe", "is a pipe"), ("endless", "is a device"), (".", "directory")):
        with pytest.raises(MonoError, match=sentence):
            read_yaml(tmp_path / name)
        with pytest.raises(MonoError, match=sentence):
            read_json(tmp_path / name, "")
    with pytest.raises(MonoError, match="no absent in"):
        read_json(tmp_path / "absent", "")


@pytest.mark.parametrize(
    ("pack", "kind"),
    [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz"), (b"PK\x03\x04".__add__, "zip")],
)
def test_a_packed_file_is_called_that(tmp_path: Path, pack: Callable[[bytes], bytes], kind: str) -> None:
    (tmp_path / "a.json").write_bytes(pack(b'{"a": 1}'))
    with pytest.raises(MonoError, match=rf"is packed \({kind}\).*unpack it"):
        read_json(tmp_path / "a.json")


def test_a_name_of_any_length_leaves_a_sentence() -> None:
    said = str(MonoError(f"the way {'9' * 9_000_000} twice", "each id once", "export the map again"))
    assert len(said) < 2000 and said.startswith("the way 9") and "999 twice. Expected: each id once." in said
