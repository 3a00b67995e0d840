"""The before/after experiment with real drives: the expert, and a driver that cannot see a bend."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.comparison import compare as comparison
from closed_loop.comparison import workers
from closed_loop.comparison.compare import CompareConfig, compare
from closed_loop.comparison.runs import VARIANTS, Variant, load_drive
from closed_loop.comparison.table import table_rows, table_texts
from closed_loop.course.design import course_named
from collector.common.errors import MonoError
from collector.common.run_folder import hash_sources
from finetune.policy import Observation, Plan, Policy

SAYS = "The lane bends left now, so steer left to keep the lane."


class StraightOn:
    """Keeps the speed, never turns, and talks of the bend."""

    cameras = "mono"

    def plan(self, observation: Observation) -> Plan:
        step = 0.1 * max(2.0, observation.speed_mps or 0.0)
        poses = np.stack([step * np.arange(1, 65), np.zeros(64), np.zeros(64)], axis=1)
        return Plan(observation.stamp_ns, poses, SAYS, {"vision": 1.0})

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        return [self.plan(observation) for observation in observations]


def drivers(config: CompareConfig, variant: Variant) -> Policy | None:
    return None if variant.role == "expert" else StraightOn()


@pytest.fixture(scope="module")
def oval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A centreline file: two straights of 30 m, two left half circles of 9 m radius, 6 m wide."""
    bend = np.linspace(-np.pi / 2, np.pi / 2, 57)[1:-1]
    along = np.arange(0.0, 30.01, 0.5)
    right = np.stack([30.0 + 9.0 * np.cos(bend), 9.0 + 9.0 * np.sin(bend)], axis=1)
    top = np.stack([30.0 - along, np.full_like(along, 18.0)], axis=1)
    xy = np.vstack([np.stack([along, 0.0 * along], axis=1), right, top, [30.0, 18.0] - right])
    path = tmp_path_factory.mktemp("courses") / "oval.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["s_m", "x_m", "y_m", "width_left_m", "width_right_m"])
        for index, (x, y) in enumerate(xy):
            writer.writerow([f"{0.5 * index:.3f}", f"{x:.4f}", f"{y:.4f}", "3.0", "3.0"])
    return path


@pytest.fixture(scope="module")
def config(oval: Path, tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    return CompareConfig(
        courses=(str(oval),),
        starts=2,
        variants=("expert", "base-mono"),
        jobs=1,
        max_off_track=2,
        out=tmp_path_factory.mktemp("compare"),
    )


@pytest.fixture(scope="module")
def metrics(config: CompareConfig) -> dict:
    return compare(config, drivers)


def test_the_table_tells_the_blind_driver_from_the_expert(metrics: dict) -> None:
    before, expert = metrics["table"]
    assert (before["variant"], expert["variant"]) == ("base-mono", "expert")  # the table's order, not the flags'
    assert expert["off_track_events"] == 0
    assert expert["laps_finished"] == expert["laps_asked"] == 2
    assert expert["max_on_curves_m"] < 0.3
    assert expert["result"] == "stays on the road"
    assert expert["reasonings"] is None
    assert before["off_track_events"] == 4  # two starts, each ended at its second time off the road
    assert before["laps_finished"] == 0
    assert 0.1 < before["laps_driven"] < 2.0
    assert before["max_on_curves_m"] > 2.0
    assert before["result"] == "leaves the road 4 times"
    assert before["reasonings"]["coverage"] == 1.0
    assert before["reasonings"]["consistent"] == 0.0
    assert before["reasonings"]["thinks_curve_drives_straight"] == 1.0
    texts = table_texts(metrics)
    assert texts[0][3:5] == ("4", f"0 of 2\n({before['laps_driven']:.1f} driven)")


def test_the_run_folder_holds_what_the_table_was_made_of(config: CompareConfig, metrics: dict) -> None:
    on_disk = json.loads((config.out / "metrics.json").read_text())
    assert on_disk == json.loads(json.dumps(metrics))
    assert "says nothing about the 10B weights" in on_disk["disclaimer"]
    assert "left positive" in on_disk["definitions"]["deviation"]
    rows = list(csv.DictReader((config.out / "table.csv").open()))
    assert [row["course"] for row in rows].count("all") == 2
    assert {row["variant"] for row in rows} == {"base-mono", "expert"}
    assert "leaves the road 4 times" in (config.out / "table.txt").read_text()
    for name in ("config.yaml", "provenance.json"):
        assert (config.out / name).is_file()
    run = on_disk["runs"][0]
    assert run["deviation"]["reference"] == "oval centreline"
    table = load_drive(config.out / run["drives"][0])
    assert np.abs(table["lateral_m"][table["curve"] > 0]).max() <= run["deviation"]["on_curves"]["max_m"] + 1e-9
    assert table["plan_poses"].shape[1:] == (64, 3)
    assert set(table["plan_reasoning"]) == {SAYS}


def test_finished_cells_are_not_driven_again(
    config: CompareConfig, metrics: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("driven again")

    monkeypatch.setattr(workers, "drive_run", refuse)
    assert compare(config, drivers) == json.loads(json.dumps(metrics))
    # Another seed asks for other drives, and so does a run that was cut short while it was written.
    with pytest.raises(AssertionError, match="driven again"):
        compare(dataclasses.replace(config, seed=1), drivers)
    (config.out / "runs" / "expert__x.json").write_text("{")
    broken = next(path for path in (config.out / "runs").iterdir() if path.name.startswith("expert__oval"))
    whole = broken.read_text()
    broken.write_text(whole[: len(whole) // 2])
    with pytest.raises(AssertionError, match="driven again"):
        compare(config, drivers)
    broken.write_text(whole)
    # Nor is one whose drive a power cut took half of.
    drive = config.out / json.loads(whole)["drives"][0]
    table = drive.read_bytes()
    for cut in (0, 10, len(table) // 2):
        drive.write_bytes(table[:cut])
        with pytest.raises(MonoError, match="cannot be read as a drive"):
            load_drive(drive)
        with pytest.raises(AssertionError, match="driven again"):
            compare(config, drivers)
    drive.write_bytes(table)


def test_edited_code_drives_again_and_documentation_does_not(
    config: CompareConfig, metrics: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("collector", "finetune", "closed_loop"):
        (tmp_path / name / "room").mkdir(parents=True)
        (tmp_path / name / "room" / "module.py").write_text("A = 1\n")
    (tmp_path / "README.md").write_text("one\n")
    before = hash_sources(tmp_path)
    (tmp_path / "README.md").write_text("two\n")
    (tmp_path / "closed_loop" / "room" / "notes.md").write_text("three\n")
    assert hash_sources(tmp_path) == before != hash_sources()
    (tmp_path / "closed_loop" / "room" / "module.py").write_text("A = 2\n")
    after = hash_sources(tmp_path)
    assert after != before
    (tmp_path / "closed_loop" / "room" / "module.py").rename(tmp_path / "closed_loop" / "room" / "other.py")
    assert hash_sources(tmp_path) not in {before, after}

    driven: list[str] = []
    drive_run = workers.drive_run
    monkeypatch.setattr(workers, "drive_run", lambda *given: driven.append(given[1]) or drive_run(*given))
    short = dataclasses.replace(config, out=tmp_path / "run", laps=0.1, starts=1, variants=("expert",))
    for code, times in (("a", 1), ("a", 1), ("b", 2)):
        monkeypatch.setattr(workers, "hash_sources", lambda code=code: code)
        compare(short, drivers)
        assert len(driven) == times


def test_the_same_command_gives_the_same_numbers(config: CompareConfig, metrics: dict, tmp_path: Path) -> None:
    again = compare(dataclasses.replace(config, out=tmp_path), drivers)
    for first, second in zip(metrics["runs"], again["runs"], strict=True):
        assert first["deviation"] == second["deviation"]
        assert first["reasonings"] == second["reasonings"]


def test_jobs_side_by_side_give_the_same_numbers(config: CompareConfig, metrics: dict, tmp_path: Path) -> None:
    both = dataclasses.replace(
        config, out=tmp_path, variants=("expert",), courses=(*config.courses, "random:9001"), jobs=2
    )
    runs = compare(both)["runs"]
    assert [run["course"] for run in runs] == [config.courses[0], "random:9001"]
    assert runs[0]["deviation"] == metrics["runs"][1]["deviation"]
    assert runs[1]["deviation"]["laps_finished"] == 2


def test_workers_find_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are born elsewhere, so that no module lying in the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    course = course_named("random:9001")
    lines = [f"{x:.3f},{y:.3f}" for x, y in course.xy]
    Path("line.csv").write_text("\n".join(["x_m,y_m", *lines]) + "\n")
    short = CompareConfig(
        courses=("line.csv", "city"), variants=("expert",), starts=1, laps=0.02, out=Path("out"), jobs=2
    )
    assert [run["course"] for run in compare(short)["runs"]] == ["line.csv", "city"]
    assert Path("out/table.csv").is_file()


def test_several_latencies_make_a_row_each_and_one_plot(
    config: CompareConfig, metrics: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    swept = dataclasses.replace(config, latency_s=(0.6, 0.0), jitter_s=0.1, laps=0.05, starts=1, out=tmp_path)
    found = compare(swept, drivers)
    rows = [(row["variant"], row["latency_s"], row["jitter_s"]) for row in found["by_latency"]]
    assert rows == [("base-mono", 0.6, 0.1), ("base-mono", 0.0, 0.1), ("expert", None, None)]
    assert len(found["runs"]) == 3 and [row["variant"] for row in found["table"]] == ["base-mono", "expert"]
    late, prompt, _ = found["by_latency"]
    # The table is of the latency named first: the kart waits for its first plan that long.
    assert found["table"][0]["lap_s"] == late["lap_s"] > prompt["lap_s"] + 5.0
    assert {"latency_s", "lap_s"} <= set(next(csv.DictReader((tmp_path / "table.csv").open())))
    assert "0.6 to 0.7 s" in (tmp_path / "table.txt").read_text()
    picture = cv2.imread(str(tmp_path / "latency.png"))
    assert picture is not None and (picture != 255).any(axis=2).mean() > 0.01
    # Nothing of it is driven again, also where only some are asked for.
    monkeypatch.setattr(workers, "drive_run", lambda *_given: pytest.fail("driven again"))
    assert len(compare(dataclasses.replace(swept, latency_s=(0.0,)), drivers)["by_latency"]) == 2
    assert "Late plans" not in (tmp_path / "table.txt").read_text()
    with pytest.raises(MonoError, match="each once"):
        CompareConfig(latency_s=(0.6, 0.6))


def test_a_named_reference_is_measured_from(config: CompareConfig, oval: Path, tmp_path: Path) -> None:
    shifted = tmp_path / "outer.csv"
    lines = oval.read_text().splitlines()
    # The same line moved 0.4 m along y: the centreline lies right of it on the way out, left on the way back.
    rows = [line.split(",") for line in lines[1:]]
    moved_up = [",".join([s, x, str(float(y) + 0.4), *rest]) for s, x, y, *rest in rows]
    shifted.write_text("\n".join([lines[0], *moved_up]) + "\n")
    moved = dataclasses.replace(config, variants=("expert",), reference=str(shifted), out=tmp_path / "run", starts=1)
    row = compare(moved, drivers)["runs"][0]["deviation"]
    assert row["reference"] == "outer"
    assert row["all"]["max_m"] == pytest.approx(0.4, abs=0.15)
    assert row["off_track_events"] == 0


def test_the_command_line_teaches_and_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path, oval: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        comparison.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "held" in shown or "trained on" in shown
    for flag in ("--adapter", "--courses", "--starts", "--laps", "--variants", "--device", "--reference"):
        assert flag in shown
    assert (
        comparison.main(
            ["--courses", str(oval), "--starts", "1", "--variants", "expert", "--jobs", "1", "--out", str(tmp_path)]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "stays on the road" in shown  # also on 80 columns
    assert "says nothing about the 10B weights" in " ".join(shown.split())
    with pytest.raises(MonoError, match="spelling"):
        CompareConfig(variants=("base-mno",))
    with pytest.raises(MonoError, match="--adapter"):
        CompareConfig(variants=("adapter-mono",))
    with pytest.raises(MonoError, match="one course"):
        CompareConfig(reference="line.csv")
    with pytest.raises(MonoError, match=r"city, random:SEED .*-mirror"):
        compare(CompareConfig(courses=("citty",), out=tmp_path), drivers)


def adapter_for(folder: Path, cameras: str) -> Path:
    """An adapter folder as far as the comparison looks at it before it drives."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "alpamayo_mono.json").write_text(json.dumps({"base": "tiny_base", "cameras": cameras}))
    return folder


def test_default_variants_follow_the_adapter(tmp_path: Path) -> None:
    assert [c.name for c in CompareConfig().chosen] == ["base-four", "base-padded", "base-mono", "expert"]
    for cameras, driven in (
        ("mono", ["base-four", "base-padded", "base-mono", "adapter-mono", "expert"]),
        # Its own base is driven too: one with other cameras would be no "before".
        (
            "mono-4frames",
            ["base-four", "base-padded", "base-mono", "base-mono-4frames", "adapter-mono-4frames", "expert"],
        ),
    ):
        assert [c.name for c in CompareConfig(adapter=adapter_for(tmp_path / cameras, cameras)).chosen] == driven


def test_an_adapter_for_other_cameras_is_refused_before_anything_drives(tmp_path: Path) -> None:
    config = CompareConfig(
        adapter=adapter_for(tmp_path / "adapter", "mono"),
        variants=("base-mono", "adapter-padded"),
        out=tmp_path / "out",
    )
    with pytest.raises(MonoError, match=r"'mono'.*'mono-padded'"):
        compare(config, drivers)
    assert not (tmp_path / "out").exists()


def test_rows_are_weighted_by_distance_and_missing_curves_do_not_count() -> None:
    def run(distance: float, rms: float | None, peak: float | None) -> dict:
        part = {"distance_m": distance, "max_m": peak, "rms_m": rms, "p95_m": peak, "mean_signed_m": rms}
        deviation = {
            "on_curves": part,
            "all": part,
            "duration_s": 10.0,
            "off_track_events": 1,
            "recoveries": 1,
            "laps_finished": 0,
            "laps_asked": 1,
            "laps_driven": 0.5,
        }
        return {"variant": "base-mono", "deviation": deviation, "reasonings": None}

    (row,) = table_rows([VARIANTS["base-mono"]], [run(30.0, 1.0, 2.0), run(10.0, 3.0, 4.0), run(0.0, None, None)])
    assert row["max_on_curves_m"] == 4.0
    assert row["rms_on_curves_m"] == pytest.approx(np.sqrt((30.0 + 90.0) / 40.0))
    assert row["mean_speed_mps"] == pytest.approx(40.0 / 30.0)
    (empty,) = table_rows([VARIANTS["base-mono"]], [run(0.0, None, None)])
    assert empty["max_on_curves_m"] is None


class Told(StraightOn):
    takes_instructions = True


def test_a_script_is_driven_beside_the_usual_drives(oval: Path, tmp_path: Path) -> None:
    asked = CompareConfig(
        courses=(str(oval),),
        starts=2,
        laps=0.1,
        variants=("expert", "base-mono"),
        jobs=1,
        max_off_track=2,
        out=tmp_path,
    )
    told = dataclasses.replace(asked, instructions=("keep left", "turn right"), hold_s=2.0, pause_s=0.0)
    metrics = compare(told, lambda _, variant: None if variant.role == "expert" else Told())
    expert, straight = sorted(metrics["runs"], key=lambda run: run["variant"] == "base-mono")
    assert "instructed" not in expert and "told_drives" not in expert
    found = straight["instructed"]
    assert [row["text"] for row in found["instructions"]] + ["-"] * found["not_given"] == ["keep left", "turn right"]
    assert found["instructions"][0]["obeyed"] is False
    assert len(straight["drives"]) == len(straight["told_drives"]) == 2
    assert load_drive(tmp_path / straight["told_drives"][0])["t_s"][-1] == pytest.approx(8.0, abs=0.1)
    assert "Instructions to the driving kart" in (tmp_path / "table.txt").read_text()
    assert "Obeyed" in (tmp_path / "definitions.txt").read_text()
    films = list((tmp_path / "films").glob("*.webm"))
    written = [film.stat().st_mtime_ns for film in films]
    again = compare(told, lambda _, variant: None if variant.role == "expert" else Told())
    assert again["runs"] == json.loads(json.dumps(metrics["runs"]))
    assert [film.stat().st_mtime_ns for film in films] == written
    # Told something else they are driven anew, and whoever takes no instructions is not asked to.
    with pytest.raises(MonoError, match="takes none"):
        compare(dataclasses.replace(told, instructions=("keep right",)), drivers)


def test_an_instruction_without_room_is_refused_before_anything_is_driven(oval: Path, tmp_path: Path) -> None:
    class Short(Told):
        def check_instruction(self, text: str) -> None:
            raise MonoError(f"the instruction {text!r}", "room", "say less")

        def plan_many(self, _: object) -> list[Plan]:
            raise AssertionError("it was asked to drive")

    told = CompareConfig(
        courses=(str(oval),), starts=1, variants=("base-mono",), jobs=1, instructions=("keep left",), out=tmp_path
    )
    with pytest.raises(MonoError, match="the instruction 'keep left'"):
        compare(told, lambda _, __: Short())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"instructions": ("fly",)}, "'fly' is not understood"),
        ({"instructions": ("all", "fly")}, "'fly' is not understood"),
        ({"instructions": ("usual",)}, "asks for nothing"),
        ({"instructions": ("keep left",), "reasoning": False}, "a model that reasons"),
        ({"hold_s": 0.0}, "hold_s"),
    ],
)
def test_a_script_that_cannot_be_told_is_refused(settings: dict, why: str) -> None:
    with pytest.raises(MonoError, match=why):
        CompareConfig(**settings)
