"""The demo: it says where it is and how long the rest takes, and goes on after the last stage that finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from closed_loop import demo
from closed_loop.demo import remaining_s
from closed_loop.demo_folder import OWNER, _processes_of, end_left_over
from closed_loop.demo_stages import DemoConfig, Stage, stages
from collector.common.errors import MonoError
from collector.common.output_folder import OutputFolder
from tests.helpers.other_process import held_elsewhere


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages in the order they ran; each leaves its log and a folder with a file, and finetune breaks off once."""
    names: list[str] = []

    def begin(stage: Stage, logs: Path, out: Path) -> subprocess.Popen[bytes]:
        assert names[-1] == "evaluate" and stage.name == "compare", "before the first drive, and once"
        return subprocess.Popen(["true"])

    def run(stage: Stage, logs: Path, out: Path, begun: subprocess.Popen[bytes] | None) -> float:
        names.append(stage.name)
        assert (begun is not None) is (stage.name == "compare")
        (logs / f"{stage.name}.log").touch()
        if stage.folder:
            (out / stage.folder).mkdir(exist_ok=True)
            (out / stage.folder / "half").touch()
        if stage.name == "finetune" and names.count("finetune") == 1:
            raise MonoError("the stage 'finetune' ended with exit code 2", "exit code 0")
        return 2.0 * stage.expected_s

    monkeypatch.setattr(demo, "begin_stage", begin)
    monkeypatch.setattr(demo, "run_stage", run)
    return names


def test_a_second_run_goes_on_after_the_last_finished_stage(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = DemoConfig(out=tmp_path)
    with pytest.raises(MonoError):
        demo.demo(config)
    assert ran == ["messages", "record", "build", "finetune"]
    assert list(json.loads((tmp_path / "stages.json").read_text())) == ["messages", "record", "build"]
    (tmp_path / "finetune" / "checkpoint").touch()
    assert demo.demo(config) == tmp_path / "report.html"
    assert ran[4:] == [stage.name for stage in stages(config)][3:]
    assert (tmp_path / "bag").is_dir() and (tmp_path / "finetune" / "checkpoint").exists(), "it resumes by itself"
    said = capsys.readouterr().out
    assert "== stage 2 of 10, record: finished before" in said and "== stage 4 of 10, finetune: " in said
    demo.demo(config)
    assert ran[-1] == "report" and ran.count("compare") == 1


def test_a_finetune_that_ended_before_it_was_noted_is_not_run_again(tmp_path: Path, ran: list[str]) -> None:
    with pytest.raises(MonoError):
        demo.demo(DemoConfig(out=tmp_path))
    for number, name in enumerate(("provenance.json", "metrics.json")):
        (tmp_path / "finetune" / name).write_text("{}")
        os.utime(tmp_path / "finetune" / name, (1000.0 + 50.0 * number,) * 2)
    demo.demo(DemoConfig(out=tmp_path))
    assert ran.count("finetune") == 1 and json.loads((tmp_path / "stages.json").read_text())["finetune"] == 50.0


def test_an_unfinished_stage_is_named_before_it_goes(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MonoError):
        demo.demo(DemoConfig(out=tmp_path))
    times = json.loads((tmp_path / "stages.json").read_text())
    del times["build"]
    (tmp_path / "stages.json").write_text(json.dumps(times))
    (tmp_path / "dataset" / "old").touch()
    (tmp_path / "finetune" / "old").touch()
    demo.demo(DemoConfig(out=tmp_path))
    said = capsys.readouterr().out
    for name in ("dataset", "finetune"):  # what was trained on another dataset is of no use
        assert f"removing {tmp_path / name}, left by an earlier call" in said
        assert not (tmp_path / name / "old").exists() and (tmp_path / name / "half").exists()
    capsys.readouterr()
    demo.demo(DemoConfig(out=tmp_path, fresh=True))
    assert f"removing {tmp_path / 'bag'}" in capsys.readouterr().out and ran.count("record") == 2


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_not_of_a_demo_stays(tmp_path: Path, ran: list[str], fresh: bool) -> None:
    bag = tmp_path / "runs" / "bag" / "bag_0.mcap"
    bag.parent.mkdir(parents=True)
    bag.write_text("an afternoon of driving")
    with pytest.raises(MonoError, match="not empty: it holds bag"):
        demo.demo(DemoConfig(out=tmp_path / "runs", fresh=fresh))
    assert bag.read_text() == "an afternoon of driving" and not ran
    # A demo's own folder, and somebody's bag under the name of a stage that it has not begun.
    other = tmp_path / "demo"
    with pytest.raises(MonoError):
        demo.demo(DemoConfig(out=other))
    (other / "evaluate").symlink_to(bag.parent)
    (other / "drive_before").mkdir()
    with pytest.raises(MonoError, match="evaluate was not made by this demo"):
        demo.demo(DemoConfig(out=other, fresh=fresh))
    (other / "evaluate").unlink()
    with pytest.raises(MonoError, match="drive_before was not made by this demo"):
        demo.demo(DemoConfig(out=other, fresh=fresh))
    assert bag.read_text() == "an afternoon of driving" and (other / "drive_before").is_dir()


@pytest.mark.parametrize("name", ["thesis.txt", "deep/thesis.docx", "plan.md"])
def test_what_lies_in_a_stages_folder_and_no_stage_made_stays(tmp_path: Path, ran: list[str], name: str) -> None:
    with pytest.raises(MonoError):
        demo.demo(DemoConfig(out=tmp_path))
    mine = tmp_path / "bag" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(MonoError, match=f"holds {mine.name}, which no stage makes"):
        demo.demo(DemoConfig(out=tmp_path, fresh=True))
    assert mine.read_text() == "mine" and ran.count("record") == 1


def test_other_settings_are_refused_and_a_torn_record_is_a_sentence(tmp_path: Path, ran: list[str]) -> None:
    config = DemoConfig(out=tmp_path)
    with pytest.raises(MonoError):
        demo.demo(config)
    with pytest.raises(MonoError, match="steps 1000 there, 10 now"):
        demo.demo(replace(config, steps=10))
    for text in ('{"messages": 1.0, "rec', "", "[]", '{"strange": 1.0}', '{"record": "long"}', '{"record": true}'):
        (tmp_path / "stages.json").write_text(text)
        with pytest.raises(MonoError, match=r"stages\.json .*Do: delete it"):
            demo.demo(config)
    assert len(ran) == 4
    demo.demo(replace(config, fresh=True))
    assert ran.count("record") == 2


@pytest.mark.parametrize(
    ("code", "driven", "is_result"),
    [(0, True, True), (1, True, True), (1, False, False), (2, True, False), (-9, True, False)],
)
def test_only_a_drive_that_was_driven_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, driven: bool, is_result: bool
) -> None:
    """Exit code 1 with metrics is a kart that left the road; without, and any other code, nothing was measured."""
    end = f"import os, sys; print('driving', flush=True); os.kill(os.getpid(), {-min(code, 0)}); sys.exit({code})"
    monkeypatch.setattr(demo, "module_command", lambda _: [sys.executable, "-c", end])
    drive = Stage("drive-before", "", (), 1.0, "drive_before", may_fail=True)
    (tmp_path / "drive_before").mkdir()
    if driven:
        (tmp_path / "drive_before" / "metrics.json").touch()
    with nullcontext() if is_result else pytest.raises(MonoError, match=f"'drive-before' ended with exit code {code}"):
        demo.run_stage(drive, tmp_path, tmp_path)
    assert (tmp_path / "drive-before.log").read_text() == "driving\n"
    with pytest.raises(MonoError) if code else nullcontext():
        demo.run_stage(replace(drive, may_fail=False), tmp_path, tmp_path)


def test_a_stage_begun_beside_another_is_nicer_shown_whole_and_ended_with_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Real processes: one compares beside a drive of half a second, and beside one that fails."""
    code = (
        "import os, sys, time\nname = sys.argv[1]\nprint(name, 'nice', os.nice(0), flush=True)\n"
        "time.sleep({'quick': 1.5, 'drive': 0.5}.get(name, 60.0 * (name == 'slow')))\n"
        "print(name, 'ends', flush=True)\nsys.exit(2 * (name == 'fails'))"
    )
    monkeypatch.setattr(demo, "module_command", lambda _: [sys.executable, "-c", code])
    compare, report = Stage("compare", "", ("quick",), 1.0, beside=("drive",)), Stage("report", "", ("report",), 1.0)
    every = [Stage("drive", "", ("drive",), 1.0), compare, report]
    monkeypatch.setattr(demo, "stages", lambda _: tuple(every))
    demo.demo(DemoConfig(out=tmp_path / "whole"))
    said = capfdbinary.readouterr().out.decode()
    order = (
        "beside it begins compare",
        f"drive nice {os.nice(0)}\ndrive ends\n",
        "quick nice 19\nquick ends\n",
        "report",
    )
    places = [said.index(words) for words in order[:3]] + [said.rindex(order[3])]
    assert places == sorted(places)
    times = json.loads((tmp_path / "whole" / "stages.json").read_text())
    assert list(times) == ["drive", "compare", "report"]
    every[:2] = [Stage("drive", "", ("fails",), 1.0), replace(compare, arguments=("slow",))]
    with pytest.raises(MonoError, match="'drive' ended with exit code 2"):
        demo.demo(DemoConfig(out=tmp_path / "failed"))
    assert not _processes_of(tmp_path / "failed") and "ends" not in (tmp_path / "failed/logs/compare.log").read_text()


def test_a_demo_of_an_earlier_version_goes_on(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stages.json").write_text('{"messages": 1.0, "record": 2.0, "build": 3.0, "finetune": 4.0}')
    demo.demo(DemoConfig(out=tmp_path))
    assert ran[0] == "evaluate" and "begun by an earlier version" in capsys.readouterr().out


def test_the_second_demo_is_refused(tmp_path: Path, ran: list[str]) -> None:
    with held_elsewhere(tmp_path), pytest.raises(MonoError, match="is being written by process"):
        demo.demo(DemoConfig(out=tmp_path))
    with pytest.raises(MonoError):
        demo.demo(DemoConfig(out=tmp_path))
    times = json.loads((tmp_path / "stages.json").read_text())
    (tmp_path / "stages.json").write_text(json.dumps({"messages": times["messages"]}))
    # A recorder that still writes to the bag is no rest to be removed.
    with held_elsewhere(tmp_path / "bag"), pytest.raises(MonoError, match="bag is being written by process"):
        demo.demo(DemoConfig(out=tmp_path))
    assert (tmp_path / "bag" / "half").exists() and ran.count("record") == 1


def test_what_a_killed_demo_left_running_is_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Children in sessions of their own, one deaf to SIGTERM, and one of another demo."""
    sleep = "import time; print('up', flush=True); time.sleep(60)"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + sleep
    children = []
    for code, owner in ((sleep, "demo"), (deaf, "demo"), (sleep, "other")):
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, OWNER: str(tmp_path / owner)},
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
        end_left_over(tmp_path / "demo", patience_s=1.0)
        until_s = time.monotonic() + 10.0
        while [child.poll() for child in children[:2]] != [-15, -9] and time.monotonic() < until_s:
            time.sleep(0.02)
        assert [child.poll() for child in children] == [-15, -9, None]
        said = capsys.readouterr().out
        assert all(str(child.pid) in said for child in children[:2]) and str(children[2].pid) not in said
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_the_processes_of_a_stage_are_told_by_their_environment(tmp_path: Path) -> None:
    with OutputFolder(tmp_path) as out:
        assert demo._environment(out.path)[OWNER] == str(tmp_path)


def test_the_rest_is_estimated_from_this_machines_pace() -> None:
    every = stages(DemoConfig())
    expected = sum(stage.expected_s for stage in every)
    assert remaining_s(every, {}) == pytest.approx(expected)
    half = {stage.name: 2.0 * stage.expected_s for stage in every[:4]}
    rest = sum(stage.expected_s for stage in every[4:])
    assert 1.5 * rest < remaining_s(every, half) < 2.0 * rest
    assert remaining_s(every, {stage.name: stage.expected_s for stage in every}) == 0.0
