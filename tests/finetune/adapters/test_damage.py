"""An adapter that is not as it was saved is noticed, whatever was done to it; one of before checksums still loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from collector.common.errors import MonoError  # noqa: E402
from finetune.adapters.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_FACTS, write_checksum  # noqa: E402
from finetune.adapters.lora import add_lora, load_adapter, save_adapter  # noqa: E402
from finetune.adapters.settings import LoraSettings  # noqa: E402
from tests.helpers.small_model import small_model, stand_for_training  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the small model; random numbers stand for training."""
    loaded = small_model()
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=4, lora_alpha=8))
    stand_for_training(loaded.model, 0.02)
    folder = tmp_path_factory.mktemp("adapters") / "whole"
    save_adapter(adapted, folder, Path("small"), "mono")
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (content | values).items() if value is not ...}))


def scale(folder: Path, factor: float, part: str = "") -> None:
    path = folder / ADAPTER_WEIGHTS
    tensors = {name: value * factor if part in name else value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def flip(folder: Path, place: float) -> None:
    path = folder / ADAPTER_WEIGHTS
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + int(place * (len(content) - start - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        *((lambda folder, at=at: flip(folder, at), "not as it was saved") for at in (0.0, 0.31, 0.77, 1.0)),
        (lambda folder: scale(folder, 1000.0), "not as it was saved"),
        (lambda folder: scale(folder, -1.0, "lora_B"), "not as it was saved"),
        (lambda folder: change(folder / ADAPTER_CONFIG, lora_alpha=-32), r"alpha -32.*1e-06 to 1000000"),
        (lambda folder: change(folder / ADAPTER_CONFIG, lora_alpha=0), "alpha 0"),
        (lambda folder: change(folder / ADAPTER_CONFIG, lora_alpha=float("nan")), "alpha nan"),
        (lambda folder: change(folder / ADAPTER_CONFIG, lora_alpha=True), "alpha True"),
        (lambda folder: change(folder / ADAPTER_CONFIG, r=10**12), "rank 1000000000000"),
        (lambda folder: change(folder / ADAPTER_CONFIG, lora_alpha=80), "trained with alpha 8"),
        (
            lambda folder: (change(folder / ADAPTER_CONFIG, lora_alpha=80), change(folder / OWN_FACTS, alpha=80)),
            "not as it was saved",
        ),
        (lambda folder: change(folder / ADAPTER_CONFIG, use_rslora=True), "not as it was saved"),
        (lambda folder: change(folder / OWN_FACTS, cameras="mono-4frames"), "not as it was saved"),
        (lambda folder: change(folder / OWN_FACTS, checksum="0" * 64), "not as it was saved"),
        (lambda folder: change(folder / ADAPTER_CONFIG, target_modules=["q_proj"] * 1_000_000), "names no layers"),
        (lambda folder: change(folder / ADAPTER_CONFIG, target_modules=[7]), "names no layers"),
        (lambda folder: change(folder / ADAPTER_CONFIG, target_modules="a" * 100_000), "names no layers"),
        (lambda folder: change(folder / ADAPTER_CONFIG, target_modules="(unclosed"), "pattern that is none"),
        (lambda folder: change(folder / ADAPTER_CONFIG, modules_to_save={"a": 1}), "names no layers"),
    ],
)
def test_a_changed_adapter_is_refused(adapter: Path, damage: Callable[[Path], object], sentence: str) -> None:
    damage(adapter)
    with pytest.raises(MonoError, match=sentence):
        load_adapter(small_model().model, adapter, cameras=None)


@pytest.mark.parametrize("pattern", [r"(?:\w|\w\w|[._])+[A-Z]", r"(?:.|..)+[A-Z]", r"(.*?.*?.*?)*[A-Z]\1"])
def test_a_pattern_whose_matching_does_not_end_is_refused(adapter: Path, pattern: str) -> None:
    change(adapter / ADAPTER_CONFIG, target_modules=pattern)
    with pytest.raises(MonoError, match="does not end"):
        load_adapter(small_model().model, adapter)


def reshaped(folder: Path, shape: list[int]) -> None:
    """Give one LoRA matrix another shape of as many numbers."""
    path = folder / ADAPTER_WEIGHTS
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    save_file(tensors | {name: tensors[name].reshape(shape)}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: reshaped(folder, [-1]), "instead of two matrices"),
        (lambda folder: reshaped(folder, [1, 4, -1]), "instead of two matrices"),
        (lambda folder: change(folder / ADAPTER_CONFIG, use_rslora="no"), "true or false"),
        (lambda folder: change(folder / OWN_FACTS, cameras=["mono"]), "what are no words"),
        (lambda folder: change(folder / OWN_FACTS, base_fingerprint=3), "what are no words"),
        (lambda folder: change(folder / OWN_FACTS, base={"name": "small"}), "what are no words"),
    ],
)
def test_nonsense_is_refused_without_a_checksum_too(
    adapter: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    change(adapter / OWN_FACTS, checksum=...)
    damage(adapter)
    with pytest.raises(MonoError, match=sentence):
        load_adapter(small_model().model, adapter)


def test_what_the_hub_rewrites_is_no_damage(adapter: Path) -> None:
    change(adapter / ADAPTER_CONFIG, base_model_name_or_path="elsewhere/name", inference_mode=False, peft_version="9")
    (adapter / "README.md").write_text("a card")
    load_adapter(small_model().model, adapter)


def test_an_adapter_without_a_checksum_loads_and_says_so(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(adapter / OWN_FACTS, checksum=...)
    load_adapter(small_model().model, adapter)
    said = capsys.readouterr().err
    assert said.count("has no checksum") == 1 and len(said.splitlines()) == 1
    load_adapter(small_model().model, adapter)
    assert "checksum" not in capsys.readouterr().err, "once is enough"


def test_weights_out_of_proportion_are_refused_without_a_checksum_too(adapter: Path) -> None:
    scale(adapter, 1000.0)
    change(adapter / OWN_FACTS, checksum=...)
    with pytest.raises(MonoError, match="times its size"):
        load_adapter(small_model().model, adapter)


def test_numbers_that_are_none_are_refused_whatever_the_checksum_says(adapter: Path) -> None:
    scale(adapter, float("nan"), "lora_A")
    write_checksum(adapter)
    with pytest.raises(MonoError, match="NaN or infinity"):
        load_adapter(small_model().model, adapter)
