"""The demo: it says where it is and how long the rest takes, and goes on after the last stage that finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closed_loop import demo
from closed_loop.demo import DemoConfig, Stage, remaining_s, stages
from collector.common.errors import MonoError


def test_a_second_run_goes_on_after_the_last_finished_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(stage: Stage, logs: Path) -> float:
        ran.append(stage.name)
        if stage.name == "finetune" and ran.count("finetune") == 1:
            raise MonoError("the stage 'finetune' ended with exit code 2", "exit code 0")
        return 2.0 * stage.expected_s

    monkeypatch.setattr(demo, "run_stage", run)
    config = DemoConfig(out=tmp_path)
    with pytest.raises(MonoError):
        demo.demo(config)
    assert ran == ["messages", "record", "build", "finetune"]
    assert list(json.loads((tmp_path / "stages.json").read_text())) == ["messages", "record", "build"]
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / "half").touch()
    (tmp_path / "bag").mkdir()
    assert demo.demo(config) == tmp_path / "report.html"
    assert ran[4:] == [stage.name for stage in stages(config)][3:]
    assert (tmp_path / "bag").is_dir() and not (tmp_path / "finetune").exists()
    said = capsys.readouterr().out
    assert "== stage 2 of 9, record: finished before" in said and "== stage 4 of 9, finetune: " in said
    demo.demo(config)
    assert ran[-1] == "report" and ran.count("compare") == 1


def test_the_rest_is_estimated_from_this_machines_pace() -> None:
    every = stages(DemoConfig())
    expected = sum(stage.expected_s for stage in every)
    assert remaining_s(every, {}) == pytest.approx(expected)
    half = {stage.name: 2.0 * stage.expected_s for stage in every[:4]}
    rest = sum(stage.expected_s for stage in every[4:])
    assert 1.5 * rest < remaining_s(every, half) < 2.0 * rest
    assert remaining_s(every, {stage.name: stage.expected_s for stage in every}) == 0.0
