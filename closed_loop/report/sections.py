"""The other parts of the report page: open loop, training, data, drives over ROS 2, provenance.

Every function reads a run folder, returns plain data for the template and raises MonoError where its input is
missing or unreadable; :func:`closed_loop.report.page.context` turns that into the line on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from closed_loop.comparison.deviation import result_text
from closed_loop.comparison.measure import MeasuredDrive, measure_drive
from closed_loop.comparison.runs import VARIANTS
from closed_loop.comparison.table import consistency, symptom
from closed_loop.report import plots
from closed_loop.report.comparison import image, named
from collector.calibration.intrinsics import cameras_of
from collector.common.errors import MonoError
from collector.common.tables import metres, number, percent
from collector.common.text_files import read_json, read_json_lines, read_text
from collector.dataset.gallery import gallery_html
from collector.dataset.schema import load_manifest
from collector.dataset.statistics import count_rows, dataset_statistics
from finetune.evaluation.tables import in_todays_words, verdict_texts

# What `evaluate` draws, in the order shown.
OPEN_LOOP_PLOTS = {
    "error_by_horizon": "Mean distance from the driven path over the time ahead",
    "before_after": "Max deviation of every sample before and after",
    "error_by_curve": "Max deviation by curve label and radius",
    "consistency": "Reasoning against path and against the truth",
    "min_ade": "minADE over the number of plans drawn",
    "examples": "Plans from above",
}
OPEN_LOOP_COLUMNS = {
    "ade_1s_m": "ADE 1s",
    "ade_3s_m": "ADE 3s",
    "ade_6.4s_m": "ADE 6.4s",
    "fde_3s_m": "FDE 3s",
    "fde_6.4s_m": "FDE 6.4s",
    "max_deviation_3s_m": "max within 3s",
}


def open_loop(folder: Path) -> dict[str, object]:
    """The open-loop table of an evaluation: ``variants`` -> means, ``by_label``, ``consistency``."""
    metrics = in_todays_words(read_json(folder / "metrics.json"))
    variants = metrics.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise MonoError(f"{folder / 'metrics.json'} has no variants", "the run folder of evaluate")
    labels = sorted({label for values in variants.values() for label in values.get("by_label", {})})
    rows = []
    for name, values in variants.items():
        said, by_label = values.get("consistency"), values.get("by_label", {})
        figures = [number(values.get(key)) for key in OPEN_LOOP_COLUMNS]
        figures += [number(by_label.get(label, {}).get("ade_3s_m")) for label in labels]
        thinks = percent(said.get("thinks_curve_drives_straight")) if said else "-"
        texts = [name, str(values.get("samples", "-")), *figures, consistency(said), thinks]
        rows.append(named(name, texts=texts))
    pictures = {folder / "plots" / f"{name}.png": alt for name, alt in OPEN_LOOP_PLOTS.items()}
    return {
        "columns": list(OPEN_LOOP_COLUMNS.values()),
        "labels": labels,
        "rows": rows,
        "compared": verdict_texts(metrics, wide=True) if metrics.get("verdicts") else None,
        "definitions": metrics.get("definitions", ""),
        "cameras": metrics.get("cameras", ""),
        "evaluated": metrics.get("evaluated", "split val"),
        "plots": [image(path, alt) for path, alt in pictures.items() if path.is_file()],
    }


def training(folder: Path) -> dict[str, object]:
    """Loss curves and counts of a finetuning run."""
    log = folder / "training.jsonl"
    if not log.is_file():
        raise MonoError(f"no training.jsonl in {folder}", "the run folder of finetune")
    curves = read_losses(log)
    if not curves:
        raise MonoError(f"{log} holds no losses", "lines with step, text_loss and flow_loss")
    try:
        metrics = read_json(folder / "metrics.json")
    except MonoError:
        metrics = {}
    facts = {"training samples": metrics.get("train_samples"), "validation samples": metrics.get("validation_samples")}
    for part, count in (metrics.get("trainable_parameters") or {}).items():
        facts[f"trainable parameters, {str(part).replace('_', ' ')}"] = count
    if metrics.get("samples_per_s"):
        facts["samples per second"] = round(metrics["samples_per_s"], 1)
    return {
        "plot": image(plots.loss_figure(curves), "Text loss and trajectory loss over training steps"),
        "facts": [(name, f"{value:,}".replace(",", " ")) for name, value in facts.items() if value is not None],
    }


def read_losses(path: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Curves of a ``training.jsonl``: name -> (steps, values).

    Expected keys per line: ``step`` and any of ``text_loss, flow_loss, validation_text_loss, validation_flow_loss``.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for step, values in read_json_lines(path, "the log", lambda values: (float(values["step"]), values)):
        for key, value in values.items():
            if key.endswith("_loss") and isinstance(value, (int, float)) and np.isfinite(value):
                found.setdefault(key, []).append((step, float(value)))
    return {key: (np.array(rows)[:, 0], np.array(rows)[:, 1]) for key, rows in found.items()}


def dataset(folder: Path, samples: int = 8) -> dict[str, object]:
    """What was kept and refused, and some samples as cards."""
    manifest = load_manifest(folder)
    picked = dataset_statistics(folder, samples).picked
    if not picked:
        raise MonoError(f"no sample in {folder}", "a dataset with at least one", "record and build more")
    counts = manifest.get("counts") or {}
    kept = [
        (f"{what} {name}", count)
        for what, key in (("curve label", "labels"), ("split", "splits"))
        for name, count in sorted((counts.get(key) or {}).items())
    ]
    return {**count_rows(manifest), "kept": kept, "cards": gallery_html(picked, folder, cameras_of(manifest))[0]}


def ros_drives(folders: Sequence[Path]) -> dict[str, object]:
    """Drives over ROS 2: how well the loop ran, and the same deviation figures."""
    measured, broken = [], []
    for folder in folders:
        try:
            measured.append(measure_drive(folder))
        except MonoError as error:
            broken.append(str(error))
    if not measured:
        raise MonoError("; ".join(broken) or "no drive folder", "the folder of a drive")
    names = [_drive_name(drive) for drive in measured]
    first = measured[0].measured
    road, reference = first.road, None if first.line is first.road else first.line
    tables: dict[str, list[plots.Table]] = {}
    timings: dict[str, dict[str, Mapping[str, float]]] = {}
    for name, drive in zip(names, measured, strict=True):
        if (drive.measured.road.name, drive.measured.reference) == (road.name, first.reference):
            tables.setdefault(name, []).append(drive.measured.arrays())
        stages = (drive.metrics.get("timings_ms") or {}).items()
        timings[name] = {stage.removeprefix("stage_"): values for stage, values in stages if values}
    texts = [_drive_texts(drive) for drive in measured]
    return {
        "broken": broken,
        "columns": [named(name) for name in names],
        "rows": [(figure, *(part[figure] for part in texts)) for figure in texts[0]],
        "map": image(plots.map_figure(road, tables, None, reference, columns=2), f"Drives over ROS 2 on {road.name}"),
        "along": image(plots.along_figure(road, tables, reference), "Deviation along the course"),
        "latency": image(plots.latency_figure(timings), "Planning times") if any(timings.values()) else None,
    }


def _drive_name(drive: MeasuredDrive) -> str:
    """Before or after, by whether an adapter drove; colours and legends know these names."""
    parameters = drive.metrics.get("parameters") or {}
    driver, cameras = "adapter" if parameters.get("adapter") else "base", str(parameters.get("cameras") or "mono")
    short = f"{driver}-{cameras.removeprefix('mono-')}"
    return short if short in VARIANTS else f"{driver}-{cameras}"


def _drive_texts(drive: MeasuredDrive) -> dict[str, str]:
    """The figures of one drive, name -> text, in the order shown."""
    metrics, part, said = drive.metrics, drive.summary, drive.reasonings

    def spread(key: str, unit: str = " s", digits: int = 2) -> str:
        values = metrics.get(key)
        if not isinstance(values, dict):
            return "-"
        return f"{number(values.get('p50'), digits)} / {number(values.get('p95'), digits)}{unit}"

    frames, braked = metrics.get("frames") or {}, metrics.get("braked_s") or {}
    return {
        "result": result_text(part),
        "max deviation on curves": metres(part["on_curves"]["max_m"]),
        "RMS on curves": metres(part["on_curves"]["rms_m"]),
        "reference": part["reference"],
        "leaves the road": f"{part['off_track_events']}x",
        "laps (driven)": f"{part['laps_finished']} of {part['laps_asked']} ({part['laps_driven']:.2f})",
        "mean speed": f"{part['mean_speed_mps']:.2f} m/s",
        "reasoning, path (coverage)": consistency(said),
        "thinks curve, drives straight": symptom(said),
        "control rate": number(metrics.get("control_rate_hz"), 1, " Hz"),
        "control gap p50 / p95": spread("control_gap_ms", " ms", 1),
        "plan age in use p50 / p95": spread("plan_age_s"),
        "plan age on arrival p50 / p95": spread("plan_age_on_arrival_s"),
        "plans": f"{metrics.get('plans', '-')} ({number(metrics.get('plans_per_s'), 1)} per s)",
        "frames received / lost": f"{frames.get('received', '-')} / {frames.get('lost', '-')}",
        "time, simulated / wall": f"{number(metrics.get('simulated_s'), 0)} / {number(metrics.get('wall_s'), 0, ' s')}",
        "braked for": ", ".join(f"{reason} {number(seconds, 1, ' s')}" for reason, seconds in braked.items()) or "-",
        "ended because": str(metrics.get("ended", "-")),
    }


def provenance(folders: Mapping[str, Path]) -> list[dict[str, object]]:
    """Commit, command, input hashes and resolved configuration of every run folder that has them."""
    found: list[dict[str, object]] = []
    for name, folder in folders.items():
        try:
            values = read_json(folder / "provenance.json")
        except MonoError:
            continue
        config = folder / "config.yaml"
        found.append(
            {
                "name": name,
                "folder": str(folder),
                "commit": values.get("commit") or "not a checkout",
                "command": " ".join(str(word) for word in values.get("command") or []),
                "packages": ", ".join(f"{key} {value}" for key, value in (values.get("packages") or {}).items()),
                "python": values.get("python", ""),
                "inputs": sorted((values.get("inputs") or {}).items()),
                "config": read_text(config, "the configuration") if config.is_file() else "",
            }
        )
    return found
