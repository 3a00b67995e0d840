"""A model's configuration with any one value replaced by nonsense is read or refused, quickly and in a sentence."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.common.errors import MonoError
from collector.common.model_files import HEADER_BYTES, weights_defect
from finetune import TINY_BASE
from finetune.alpamayo.configuration import RELEASED_VLM, TextSizes
from finetune.model_files.configuration_files import parse_config, read_config
from finetune.model_files.weight_files import INDEX_FILE, WEIGHTS_FILE, read_header, stored_tensors
from finetune.processing.images import read_image_settings

NONSENSE = (-1, 0, 1_000_000, 10**18, 1e308, math.nan, math.inf, True, None, "x", "8", [], [1], {}, [[1]], -0.5)


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values and of all groups of values."""
    if path:
        yield path
    if isinstance(content, (dict, list)):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from leaves(content[key], (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: object) -> Any:
    made = copy.deepcopy(content)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def test_one_value_of_nonsense_is_never_a_crash() -> None:
    raw, vlm = (json.loads((TINY_BASE / name).read_text()) for name in ("config.json", "vlm_config.json"))
    tried = refused = 0
    for which, content in (("raw", raw), ("vlm", vlm)):
        for path in leaves(content):
            for value in NONSENSE:
                made = replaced(content, path, value)
                tried += 1
                try:
                    config = parse_config(made if which == "raw" else raw, vlm if which == "raw" else made)
                except MonoError:
                    refused += 1
                else:
                    assert config.vlm["text_config"]["num_hidden_layers"] <= 512
    assert tried > 1500 and refused > 0.5 * tried


@pytest.mark.parametrize(
    ("file", "path", "value", "sentence"),
    [
        ("vlm_config.json", ("text_config", "num_hidden_layers"), 1_000_000, "num_hidden_layers:=1000000.*1 to 512"),
        ("vlm_config.json", ("vision_config", "depth"), 1_000_000, "depth:=1000000"),
        ("config.json", ("action_in_proj_cfg", "num_enc_layers"), 10**6, "num_enc_layers:=1000000"),
        ("config.json", ("action_space_cfg", "n_waypoints"), 10**6, "n_waypoints:=1000000"),
        ("config.json", ("action_space_cfg", "accel_std"), 0.0, "accel_std:=0.0"),
        ("config.json", ("max_pixels",), 10**12, "max_pixels:=1000000000000"),
        ("config.json", ("traj_tokenizer_cfg", "num_bins"), 10**9, "num_bins:=1000000000"),
    ],
)
def test_sizes_that_would_never_be_built(
    tmp_path: Path, file: str, path: tuple[str, ...], value: float, sentence: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY_BASE, folder)
    (folder / file).write_text(json.dumps(replaced(json.loads((folder / file).read_text()), path, value)))
    start_s = time.monotonic()
    with pytest.raises(MonoError, match=rf"config\.json.*{sentence}"):
        read_config(folder)
    assert time.monotonic() - start_s < 10.0


def test_a_configuration_of_great_depth(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(MonoError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "values", [{"patch_size": 0}, {"patch_size": "16"}, {"resize_width_px": 10**9}, {"image_mean": 3}]
)
def test_image_settings(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(MonoError, match="preprocessor_config"):
        read_image_settings(tmp_path, 1000, 2000)


def test_the_released_sizes_are_the_defaults() -> None:
    assert RELEASED_VLM["text_config"]["mrope_section"] == [24, 20, 20]
    assert RELEASED_VLM["text_config"]["num_hidden_layers"] == TextSizes.num_hidden_layers == 36


@pytest.mark.parametrize("length", [HEADER_BYTES + 1, 1 << 40, (1 << 64) - 1])
def test_a_huge_header_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.write(length.to_bytes(8, "little"))
        stream.truncate(1 << 41)  # sparse: it takes no room
    assert "not the beginning" in weights_defect(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 1_000_000,
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b"[]",
        b"\xff\xfe",
        b'{"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": ["4"], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16.0]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [9223372036854775808, 9223372036854775824]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}',  # four bytes are of no tensor
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}}',
        (
            b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
            b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}'
        ),  # within the other
        (
            b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
            b'"a": {"dtype": "I32", "shape": [4], "data_offsets": [0, 16]}}'
        ),
    ],
)
def test_a_strange_header_is_a_sentence(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(MonoError, match=r"model\.safetensors"):
        read_header(path)


def test_tensors_one_behind_the_other_are_read_in_any_order_and_with_empty_ones(tmp_path: Path) -> None:
    header = {"b": [8, 16], "none": [8, 8], "a": [0, 8]}
    entries = {
        name: {"dtype": "F32", "shape": [(place[1] - place[0]) // 4], "data_offsets": place}
        for name, place in header.items()
    }
    text = json.dumps(entries).encode()
    (tmp_path / WEIGHTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    assert {name: tensor.size for name, tensor in read_header(tmp_path / WEIGHTS_FILE).items()} == {
        "b": 8,
        "none": 0,
        "a": 8,
    }
    index = {"weight_map": {"a": WEIGHTS_FILE, "b": "copy.safetensors"}}
    shutil.copy(tmp_path / WEIGHTS_FILE, tmp_path / "copy.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(MonoError, match=r"in .*copy\.safetensors and in"):
        stored_tensors(tmp_path)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    with pytest.raises(MonoError, match="no file"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize("value", ["x", -5, math.nan, 10**18, [1], True, None])
def test_words_of_the_vision_model_are_words_of_the_vocabulary(value: object) -> None:
    raw, vlm = (json.loads((TINY_BASE / name).read_text()) for name in ("config.json", "vlm_config.json"))
    for key in ("image_token_id", "vision_start_token_id", "vision_end_token_id"):
        with pytest.raises(MonoError, match=f"{key} is"):
            parse_config(raw, vlm | {key: value})
