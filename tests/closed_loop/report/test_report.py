"""The report page and the measuring of drive folders, made from real drives of the expert."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from closed_loop.comparison import measure as driven
from closed_loop.comparison.compare import CompareConfig, compare
from closed_loop.comparison.latency import write_latency_plot
from closed_loop.comparison.measure import measure_drive
from closed_loop.comparison.runs import VARIANTS
from closed_loop.comparison.table import DISCLAIMER, assemble
from closed_loop.course.design import course_named
from closed_loop.report.comparison import before_after, comparison, headline_notes
from closed_loop.report.page import ReportConfig, main, write_report
from collector.common.errors import MonoError
from tests.helpers.paths import ROOT

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a comparison (expert), losses, an open-loop table and a drive; no dataset."""
    folder = tmp_path_factory.mktemp("run")
    compare(CompareConfig(courses=("random:9001",), starts=1, variants=("expert",), jobs=1, out=folder / "compare"))
    for name in ("finetune", "evaluate"):
        (folder / name).mkdir()
    rows = [{"step": step, "text_loss": 1.0 / (1 + step), "flow_loss": 0.5} for step in range(20)]
    (folder / "finetune" / "training.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "finetune" / "metrics.json").write_text(
        '{"train_samples": 300, "trainable_parameters": {"expert": 12345}}'
    )
    figures = {
        "samples": 7,
        "ade_3s_m": 1.234,
        "fde_6.4s_m": 5.678,
        "by_label": {"left": {"samples": 7, "ade_3s_m": 2.5}},
    }
    verdict = {
        "curves": "all", "measure": "ade_3s_m", "name": "ADE 3 s", "samples": [7, 7], "before": 1.234, "after": 0.5,
        "change": -0.734, "low": -0.9, "high": -0.6, "verdict": "better", "why": "",
    }  # fmt: skip
    evaluation = {
        "definitions": "ADE: <mean> distance", "cameras": "mono", "variants": {"before": figures},
        "verdicts": [verdict], "bootstrap": {"groups": 6, "group": "laps"},
    }  # fmt: skip
    (folder / "evaluate" / "plots").mkdir()
    (folder / "evaluate" / "plots" / "consistency.png").write_bytes(b"\x89PNG picture")
    (folder / "evaluate" / "metrics.json").write_text(json.dumps(evaluation))
    make_drive(folder / "drive_after")
    (folder / "stages.json").write_text('{"record": 120.0, "build": 60.0}')
    return folder


def make_drive(folder: Path, lateral_m: float = 0.3, jump: bool = False) -> None:
    """A drive folder as the driving node writes it: a lap of city at 4 m/s beside the centreline."""
    course = course_named("city")
    folder.mkdir(parents=True)
    t_s = np.arange(0.0, (course.length_m + 4.0) / 4.0, 0.02)
    station = 4.0 * t_s
    if jump:
        station = np.where(t_s > 50.0, station + 30.0, station)
    poses = course.pose_at(station, lateral_m)
    np.savez(folder / "drive.npz", t_s=1000.0 + t_s, poses_map=poses, speed_mps=np.full(len(t_s), 4.0))
    spread = {"p50": 0.2, "p95": 0.3, "max": 0.4}
    metrics = {
        "parameters": {"course": "city", "reference": "", "adapter": "x/adapter", "cameras": "mono", "laps": 1},
        "control_rate_hz": 39.9,
        "plan_age_s": spread,
        "timings_ms": {"compute": spread, "stage_vision": spread},
        "plans": 2,
        "frames": {"received": 100, "lost": 1},
        "braked_s": {"no plan yet": 0.4},
        "ended": "1 of 1 laps done",
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    plan = np.stack([0.4 * np.arange(1, 65), np.zeros(64), np.zeros(64)], axis=1).tolist()
    lines = [
        {
            "stamp_ns": 1_004_000_000_000,
            "reasoning": "The road is straight, so keep straight.",
            "poses": plan,
            "defect": "",
        },
        {"stamp_ns": 1_012_000_000_000, "reasoning": "Turn left.", "poses": plan, "defect": "jumps 9 m"},
        {"stamp_ns": 1, "reasoning": "before the drive", "poses": plan, "defect": ""},
    ]
    (folder / "plans.jsonl").write_text("\n".join([*(json.dumps(line) for line in lines), "{torn"]))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(ReportConfig(run)).read_text("utf-8")


def test_the_page_stands_alone(page: str) -> None:
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:image/png;base64,|#)""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert len(re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]{5000,}" alt="[^"]+">', page)) >= 6


def test_late_plans_have_a_plot_and_a_table_of_their_own(run: Path, tmp_path: Path) -> None:
    assert comparison(run / "compare")["late"] is None
    metrics = json.loads((run / "compare" / "metrics.json").read_text())
    (row,), (drive,) = metrics["table"], metrics["runs"]
    late = [
        {**row, "variant": "base-mono", "label": "base", "latency_s": each, "jitter_s": 0.0, "lap_s": 100.0 + each}
        for each in (0.15, 0.6)
    ]
    metrics |= {"by_latency": [*late, {**row, "latency_s": None, "jitter_s": None}]}
    metrics["runs"] = [drive, *({**drive, "variant": "base-mono", "latency_s": each["latency_s"]} for each in late)]
    (tmp_path / "drives").symlink_to(run / "compare" / "drives")
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_latency_plot(metrics["by_latency"], tmp_path)
    found = comparison(tmp_path)
    assert [entry["texts"][1] for entry in found["late"]["rows"]] == ["0.15 s", "0.6 s", "-"]
    # The chapters are of the first latency, and of the expert.
    assert [column["label"] for column in found["details"][0]["variants"]] == ["base, one camera", "expert"]
    (tmp_path / "runs").mkdir()
    assert "When plans come late" in write_report(ReportConfig(tmp_path)).read_text("utf-8")


def test_the_page_shows_the_measured_numbers(run: Path, page: str) -> None:
    metrics = json.loads((run / "compare" / "metrics.json").read_text())
    (row,) = metrics["table"]
    assert f"{row['max_on_curves_m']:.2f} m" in page
    assert DISCLAIMER in page
    assert "random:9001 centreline" in page  # the reference is named
    for curve in metrics["runs"][0]["deviation"]["curves"]:
        assert f"{curve['number']} {curve['direction']}" in page
        assert f"{curve['min_radius_m']:.1f} m" in page
    for text in (
        "1.23",
        "5.68",
        "2.50",
        "ADE: &lt;mean&gt; distance",
        "-0.73 (-0.90 to -0.60)",
        "Before and after: 6 groups (laps)",
        base64.b64encode(b"\x89PNG picture").decode(),
        "12 345",
        "39.9 Hz",
        "0.20 / 0.30 s",
        "100 / 1",
    ):
        assert text in page, text
    assert "No adapter was driven" in page
    assert "record 120 s" in page
    assert "together 3.0 minutes" in page
    assert metrics["runs"][0]["deviation"]["all"]["max_m"] < 0.3


def test_missing_parts_name_the_command_that_makes_them(page: str, tmp_path: Path) -> None:
    assert "No dataset here" in page
    assert "alpamayo-mono build" in page
    empty = write_report(ReportConfig(tmp_path, out=tmp_path / "sub" / "page.html")).read_text()
    for verb in ("compare", "evaluate", "finetune", "build", "drive"):
        assert f"alpamayo-mono {verb}" in empty
    assert DISCLAIMER in empty
    assert "No run folder here" in empty


@pytest.mark.parametrize("damage", ["{", "[]", '{"kind": "comparison"}', '{"kind": "comparison", "table": [{}]}', "\0"])
def test_damaged_inputs_cost_only_their_part(run: Path, tmp_path: Path, damage: str) -> None:
    for name in ("compare", "evaluate", "drive_x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(damage)
    (tmp_path / "finetune").symlink_to(run / "finetune")
    (tmp_path / "stages.json").write_text(damage)
    text = write_report(ReportConfig(tmp_path)).read_text()
    for part in ("No comparison here", "No open-loop evaluation here", "No drive over ROS 2 here", "No dataset here"):
        assert part in text
    assert "Text loss and trajectory loss" in text  # the sound part is there


def test_a_comparison_folder_alone_makes_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["--run", str(run / "compare"), "--out", str(out), "--title", "Ours & <theirs>"]) == 0
    assert str(out) in capsys.readouterr().out
    text = out.read_text()
    assert "Ours &amp; &lt;theirs&gt;" in text
    assert "random:9001 centreline" in text
    with pytest.raises(MonoError, match="no folder"):
        main(["--run", str(tmp_path / "absent")])


def headline(**variants: tuple[int, int, float]) -> dict:
    """Metrics of made-up variants: name -> off-track events, laps finished of 3, max deviation on curves."""
    runs = []
    for name, (off, laps, peak) in variants.items():
        part = {"distance_m": 100.0, "max_m": peak, "rms_m": peak / 2, "p95_m": peak, "mean_signed_m": 0.0}
        curve = {"number": 7, "direction": "right", "min_radius_m": 4.0, "max_m": peak}
        deviation = {
            "on_curves": part,
            "all": part,
            "duration_s": 60.0,
            "off_track_events": off,
            "recoveries": off,
            "laps_finished": laps,
            "laps_asked": 3,
            "laps_driven": 3.0,
            "curves": [curve],
        }
        runs.append({"variant": name.replace("_", "-"), "course": "city", "deviation": deviation, "reasonings": None})
    return assemble([VARIANTS[run["variant"]] for run in runs], ["city"], 3, 1.0, runs)


def notes(**variants: tuple[int, int, float]) -> str:
    return " ".join(note["text"] for note in headline_notes(headline(**variants)))


def test_the_headline_says_the_unwelcome_too() -> None:
    good = notes(base_four=(0, 3, 0.4), base_mono=(12, 0, 3.5), adapter_mono=(0, 3, 0.8))
    assert "leaves the road 12 times" in good
    assert "at most 0.80 m, 3 of 3 laps" in good
    for word in ("control does not hold", "little to cure", "no cure", "missed", "No adapter"):
        assert word not in good
    assert "little to cure" in notes(base_mono=(0, 3, 0.9), adapter_mono=(0, 3, 0.8))
    assert "control does not hold" in notes(base_four=(2, 1, 3.0), base_mono=(12, 0, 3.5), adapter_mono=(0, 3, 0.8))
    missed = notes(base_mono=(12, 0, 3.5), adapter_mono=(0, 3, 2.2))
    assert "aim of 1.0 m on curves is missed" in missed
    assert "2.20 m on curve 7 of city (right, radius 4.0 m)" in missed
    assert "no cure yet" in notes(base_mono=(12, 0, 3.5), adapter_mono=(1, 2, 0.9))
    assert "No adapter was driven" in notes(base_mono=(12, 0, 3.5))
    silent = headline(base_mono=(12, 0, 3.5), adapter_mono=(0, 3, 0.8))
    silent["table"][0]["reasonings"] = {"coverage": 0.04}
    assert "only 4 % of the plans say a direction" in " ".join(note["text"] for note in headline_notes(silent))


def test_before_is_set_against_the_same_cameras_as_after() -> None:
    table = headline(base_mono=(1, 0, 1.0), base_mono_4frames=(2, 0, 2.0), adapter_mono_4frames=(0, 3, 0.5))["table"]
    before, after = before_after(table)
    assert before is not None and after is not None
    assert (before["variant"], after["variant"]) == ("base-mono-4frames", "adapter-mono-4frames")
    alone = headline(base_padded=(1, 0, 1.0), base_mono=(1, 0, 1.0), adapter_mono_4frames=(0, 3, 0.5))["table"]
    before, after = before_after(alone)
    assert before is None and after is not None, "a base with other cameras is no before"


def test_a_drive_folder_is_measured_with_the_same_ruler(run: Path, tmp_path: Path) -> None:
    drive = measure_drive(run / "drive_after")
    assert drive.summary["reference"] == "city centreline"
    assert drive.summary["on_curves"]["mean_signed_m"] == pytest.approx(0.3, abs=0.03)
    assert (drive.summary["laps_finished"], drive.summary["off_track_events"]) == (1, 0)
    assert drive.reasonings is not None
    assert drive.reasonings["plans"] == 1  # one is insane, one from before the drive, one torn
    mirrored = measure_drive(run / "drive_after", course="city-mirror")
    assert mirrored.summary["all"]["max_m"] > 3.0  # another course is another road
    make_drive(tmp_path / "jumped", jump=True)
    jumped = measure_drive(tmp_path / "jumped")
    assert len(jumped.measured.resets_s) == 1
    assert jumped.summary["laps_finished"] == 0


def test_a_restarted_clock_leaves_the_last_drive(run: Path, tmp_path: Path) -> None:
    make_drive(tmp_path / "twice")
    with np.load(tmp_path / "twice" / "drive.npz") as table:
        arrays = {name: np.concatenate([table[name][-500:], table[name]]) for name in table.files}
    np.savez(tmp_path / "twice" / "drive.npz", **arrays)
    assert measure_drive(tmp_path / "twice").summary == measure_drive(run / "drive_after").summary


def test_measure_prints_every_curve_and_writes_json(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert driven.main([str(run / "drive_after")]) == 0
    shown = capsys.readouterr().out
    assert "7 right" in shown
    assert "stays on the road" in shown
    written = json.loads((run / "drive_after" / "deviation.json").read_text())
    assert len(written["deviation"]["curves"]) == 15
    with pytest.raises(MonoError, match=r"metrics\.json"):
        driven.main([str(tmp_path)])


def test_a_comparison_of_version_0_1_is_shown() -> None:
    """The folder was written by version 0.1, with its own words for runs, variants, reasoning and the expert."""
    old = ROOT / "tests" / "data" / "comparison_v0.1"
    assert '"honesty"' in (old / "metrics.json").read_text()
    shown = comparison(old)
    assert [row["role"] for row in shown["rows"]] == ["before", "expert"]
    assert "10B weights" in shown["disclaimer"]
    assert (
        shown["rows"][0]["texts"][:2] == ("base, one camera", "0.53 m") and "64 % (70 %)" in shown["rows"][0]["texts"]
    )
    assert "random:9002" in shown["courses"] and len(shown["details"]) == 1
