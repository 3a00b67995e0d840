"""Every text file that a person gives is UTF-8, or the verb that reads it says in a sentence that it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_loop.comparison.measure import MeasureConfig, _sane_plans
from closed_loop.comparison.runs import read_json as read_run
from closed_loop.course.design import course_named
from closed_loop.report.sections import read_losses
from collector.calibration.model import read_calibration
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.text_files import read_json, read_text, read_yaml
from collector.dataset.builder import load_texts
from collector.dataset.config import BuildConfig
from collector.dataset.schema import MANIFEST_FILE, SCHEMA_VERSION, load_manifest, read_samples
from finetune.adapters.folder import adapter_facts
from finetune.lora_finetune import FinetuneConfig
from finetune.model_files.configuration_files import read_config
from finetune.model_files.weight_files import weight_files
from finetune.processing.tokenizer import Tokenizer

SENTENCE = "前方は左カーブなので、左に曲がる。"
WRONG = ("utf-16", "cp932", "euc_jp", "iso2022_jp", "latin-1", "utf-16-le", "utf-32")
LINE = "x_m,y_m\n" + "\n".join(f"{30 * np.cos(a):.3f},{20 * np.sin(a):.3f}" for a in np.linspace(0, 6.28, 60))
OSM = "<osm><!-- {} --><node id='1'><tag k='local_x' v='1'/><tag k='local_y' v='2'/></node></osm>"


LIKELY = {"cp932": "Shift_JIS", "euc_jp": "EUC-JP", "iso2022_jp": "ISO-2022-JP", "utf-16": "UTF-16", "utf-32": "UTF-32"}


def _config(cls: type) -> Callable[[Path], object]:
    return lambda path: command_line(cls, ["--config", str(path)], "alpamayo-mono verb")


def _plans(path: Path) -> object:
    return list(_sane_plans(path, np.arange(3.0), np.zeros((3, 3))))


# What reads it, the file's name, and its text with {} where a person's words stand.
READERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "build --reasoning": (load_texts, "texts.jsonl", '{{"stamp_ns": 1, "reasoning": "{}"}}'),
    "build --config": (_config(BuildConfig), "build.yaml", "bags: ['{}']\nout: here"),
    "finetune --config": (_config(FinetuneConfig), "finetune.yaml", "# {}\nmodel: here"),
    "measure --config": (_config(MeasureConfig), "measure.yaml", "drives: ['{}']"),
    "build --calibration": (read_calibration, "calibration.yaml", "# {}\nlag_s: 0.1"),
    "a run's config.yaml": (read_yaml, "config.yaml", "reference: '{}'"),
    "a raceline": (lambda path: course_named(str(path)), "line.csv", "# {}\n" + LINE),
    "a lane-boundary CSV": (
        lambda path: course_named(str(path)),
        "lanes.csv",
        "lanelet_id,boundary_type,local_x,local_y\n{},left,0,0",
    ),
    "a map": (lambda path: course_named(str(path)), "map.osm", OSM),
    "a dataset's manifest": (lambda path: load_manifest(path.parent), "manifest.json", '{{"made_by": "{}"}}'),
    "a dataset's samples": (lambda path: list(read_samples(path.parent)), "metadata.jsonl", '{{"reasoning": "{}"}}'),
    "a model's config.json": (lambda path: read_config(path.parent), "config.json", '{{"name": "{}"}}'),
    "a model's index": (
        lambda path: weight_files(path.parent),
        "model.safetensors.index.json",
        '{{"weight_map": {{"{}": "a"}}}}',
    ),
    "a model's tokenizer": (lambda path: Tokenizer.from_folder(path.parent), "tokenizer.json", '{{"model": "{}"}}'),
    "an adapter": (lambda path: adapter_facts(path.parent), "adapter_config.json", '{{"base": "{}"}}'),
    "a run's metrics.json": (read_run, "metrics.json", '{{"ended": "{}"}}'),
    "a run's training.jsonl": (read_losses, "training.jsonl", '{{"step": 1, "text_loss": 1.0, "note": "{}"}}'),
    "a drive's plans": (_plans, "plans.jsonl", '{{"stamp_ns": 1, "reasoning": "{}"}}'),
}


def _written(folder: Path, name: str, text: str, encoding: str) -> Path:
    words = "Curva à esquerda: vire à esquerda" if encoding == "latin-1" else SENTENCE
    path = folder / name
    (folder / "adapter_model.safetensors").touch()  # an adapter without weights is none, nor a dataset without this
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION}))
    path.write_bytes(text.format(words).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", WRONG)
@pytest.mark.parametrize("reader", READERS)
def test_a_text_in_another_encoding_is_refused_in_a_sentence(reader: str, encoding: str, tmp_path: Path) -> None:
    read, name, text = READERS[reader]
    path = _written(tmp_path, name, text, encoding)
    with pytest.raises(MonoError) as caught:
        read(path)
    assert name in str(caught.value) and "Expected" in str(caught.value)
    if reader in ("a model's tokenizer", "a dataset's samples"):
        return  # read by libraries, which say it in their own words
    assert "UTF-8" in str(caught.value)
    assert LIKELY.get(encoding, "") in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_the_same_text_in_utf8_is_not_refused_for_its_encoding(reader: str, tmp_path: Path) -> None:
    read, name, text = READERS[reader]
    for mark in (b"", b"\xef\xbb\xbf"):
        path = tmp_path / name
        path.write_bytes(mark + text.format(SENTENCE).encode())
        said = ""
        try:
            read(path)
        except MonoError as error:
            said = str(error)
        assert "UTF-8" not in said


@settings(deadline=None, max_examples=200)
@given(words=st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x3093), min_size=4), pick=st.data())
def test_no_japanese_text_passes_in_another_encoding(
    words: str, pick: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encoding = pick.draw(st.sampled_from([name for name in WRONG if name != "latin-1"]))
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes((words + "\n").encode(encoding))
    with pytest.raises(MonoError, match="UTF-8"):
        read_text(path, "the file")
    path.write_bytes(words.encode())
    assert read_text(path, "the file") == words


def test_text_that_was_damaged_before_it_came_here_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    good = json.dumps({"stamp_ns": 1, "reasoning": SENTENCE}, ensure_ascii=False)
    for bad in ('"a \\ud83d b"', json.dumps("left \ufffd", ensure_ascii=False)):
        path.write_text(good + '\n{"stamp_ns": 2, "reasoning": ' + bad + "}\n", encoding="utf-8")
        with pytest.raises(MonoError, match="line 2, field reasoning"):
            load_texts(path)
    path.write_text(SENTENCE.encode().decode("latin-1"), encoding="utf-8")  # UTF-8 taken for Latin-1 and saved again
    with pytest.raises(MonoError, match="control character"):
        read_text(path, "the file")


@pytest.mark.parametrize("text", ["a\0b", "\x1b[2Jleft", "\x07", "\x85", "\ud800"])
def test_characters_that_no_text_has_are_refused_behind_the_escapes_of_json_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "texts.jsonl"
    for name in ("reasoning", "bag"):
        path.write_text(json.dumps({"stamp_ns": 1, "reasoning": "turn left", name: text}))
        with pytest.raises(MonoError, match=f"line 1, field {name}") as caught:
            load_texts(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", " \n", "left <|cot_end|>", "left <i5>", "left " * 2001])
def test_a_text_is_words_and_not_a_model_s_own(tmp_path: Path, text: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"stamp_ns": 1, "reasoning": text}))
    with pytest.raises(MonoError, match="line 1, field reasoning: found"):
        load_texts(path)
    path.write_text(json.dumps({"stamp_ns": 1, "reasoning": "speed < 5 m/s | left <in time>"}))
    assert len(load_texts(path)) == 1


def test_a_sentence_is_nothing_that_a_terminal_obeys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = str(MonoError("the file \x1b[2J\u202eevil\ud800", "右\nleft"))
    assert said == "the file \\x1b[2J\\u202eevil\\ud800. Expected: 右\nleft."
    (tmp_path / "a.jsonl").write_text('{"stamp_ns": 1, "reasoning": "turn left", "\\u001b[2J": 1}')
    load_texts(tmp_path / "a.jsonl")
    assert "\x1b" not in capsys.readouterr().err


def test_fields_of_a_reasoning_file_that_nobody_knows_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"stamp_ns": 1, "reasoning": "turn left", "bag_name": "b", "split": "train"}')
    load_texts(tmp_path / "a.jsonl")
    assert "fields not used: bag_name\n" in capsys.readouterr().err


def test_one_frame_has_one_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"stamp_ns": 1, "reasoning": text}) for text in ("turn left", "turn left", "turn right")]
    path.write_text("\n".join(lines[:2]))
    assert load_texts(path) == {(None, 1): "turn left"}
    path.write_text("\n".join(lines))
    with pytest.raises(MonoError, match="line 3, field stamp_ns: 1 has another text above"):
        load_texts(path)


# Nine levels of nine: 387 million values in 500 bytes.
BOMB = "b0: &b0 [1, 2]\n" + "".join(f"b{k}: &b{k} [{', '.join([f'*b{k - 1}'] * 9)}]\n" for k in range(1, 10))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BOMB, "more values than settings have"),
        ("a: &a [*a]", "more values"),
        ("a: " + "[" * 5000, "too deeply"),
        ("out: a\nout: b", "'out' a second time"),
        ("? [a, b]\n: c", "a key that is a list"),
        ("a: !!int x", "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        ("a: 2020-99-99", "cannot be read"),
        ("a: !!bool x", "cannot be read"),
        ("a: !!python/object/apply:os.system [id]", "cannot be read"),
        ("# " + "x" * 300_000, "larger"),
    ],
)
def test_yaml_that_is_hostile_ends_in_a_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(MonoError, match=complaint):
        read_yaml(path)


def test_yaml_with_an_alias_that_stays_small_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: *a")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_json_that_is_hostile_ends_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, complaint in (("[" * 200_000, "levels deep"), ("1" * 5000, "not JSON"), ("[1]", "holds a list")):
        path.write_text(text)
        with pytest.raises(MonoError, match=complaint):
            read_json(path, "repair it")
    path.write_bytes(b" " * (17 << 20))
    with pytest.raises(MonoError, match="larger"):
        read_json(path, "repair it")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(MonoError, match="git lfs pull"):
        read_json(path, "fetch it")
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"stamp_ns": 1, "reasoning": "' + "x" * (2 << 20))
    with pytest.raises(MonoError, match="line 1 is longer"):
        load_texts(lines)
    lines.write_text('{"stamp_ns": 1, "reasoning": ' + "[" * 100_000)
    with pytest.raises(MonoError, match="line 1"):
        load_texts(lines)
