"""``evaluate --clip``: one clip of PhysicalAI-AV by its id, from what the real package has downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("physical_ai_av")

from closed_loop.cli import main as cli  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.schema import load_manifest, read_samples  # noqa: E402
from finetune.checkpoint import save_model  # noqa: E402
from finetune.evaluation.command import build_clip, folder_name, near_matches  # noqa: E402
from tests.helpers.physical_ai_data import data, no_network  # noqa: E402, F401
from tests.helpers.small_model import small_model  # noqa: E402


def test_a_clip_is_evaluated_by_its_id(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    save_model(small_model(), tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"max_new_tokens": 4}')
    out = tmp_path / "run"
    words = ["--model", tmp_path / "model", "--clip", "2c-right", "--data", data, "--out", out, "--limit", "12"]
    assert cli(["evaluate", *map(str, words), "--no-plots"]) == 0
    printed = capsys.readouterr().out
    assert "clip 2c-right" in printed and "No ego-only regressor" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["variants"]) == ["before", "constant velocity", "constant yaw rate"]
    assert metrics["samples"] == 12
    # The whole clip, not its curves alone.
    labels = {sample.curve.label for sample in read_samples(out / "clip_2c-right")}
    assert labels == {"straight", "right"}
    assert load_manifest(out / "clip_2c-right")["source"]["clips"] == ["2c-right"]
    # A second run replaces the clip it cut before; an id the package never heard of changes nothing.
    assert cli(["evaluate", *map(str, words), "--no-plots"]) == 0
    before = (out / "metrics.json").read_bytes()
    capsys.readouterr()
    assert cli(["evaluate", *map(str, words), "--no-plots", "--clip", "2c-rigth"]) == 2
    assert "'2c-rigth'" in (said := capsys.readouterr().err) and "2c-right" in said
    assert (out / "metrics.json").read_bytes() == before


def test_clips_that_cannot_be_had_are_named(data: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(MonoError, match="no clip '5f-cloud' among the 5 downloaded"):
        build_clip(data, "5f-cloud", tmp_path / "a")
    with pytest.raises(MonoError, match="4e-torn: unreadable"):
        build_clip(data, "4e-torn", tmp_path / "b")


def test_near_matches_begin_or_look_alike() -> None:
    held = ["0a1b2c3d-left", "0a1b9999-right", "ffff0000-left"]
    assert near_matches("0a1b", held) == ["0a1b2c3d-left", "0a1b9999-right"]
    assert near_matches("ffff0000-letf", held)[0] == "ffff0000-left"
    assert near_matches("zzz", held) == held
    assert folder_name("a/../b") == "clip_a_.._b"
