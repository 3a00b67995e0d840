"""The other parts of the report page: open loop, training, data, drives over ROS 2, provenance.

Every function reads a run folder, returns plain data for the template and raises MonoError where its input is
missing or unreadable; :func:`closed_loop.report.page.section` turns that into the line on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from closed_loop.comparison.deviation import reference_curves, verdict
from closed_loop.comparison.measure import MeasuredDrive, measure_drive, read_json
from closed_loop.comparison.runs import VARIANTS
from closed_loop.report import losses, plots
from closed_loop.report.comparison import image, image_file, metres, number, percent
from collector.calibration.intrinsics import cameras_of
from collector.common.errors import MonoError
from collector.dataset.gallery import cards_html, make_cards
from collector.dataset.schema import load_manifest
from collector.dataset.statistics import count_rows, survey_dataset
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


def open_loop(folder: Path) -> dict[str, Any]:
    """The open-loop table of an evaluation: ``variants`` -> means, ``by_label``, ``consistency``."""
    metrics = in_todays_words(read_json(folder / "metrics.json"))
    variants = metrics.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise MonoError(f"{folder / 'metrics.json'} has no variants", "the run folder of evaluate")
    distances = ("ade_1s_m", "ade_3s_m", "ade_6.4s_m", "fde_3s_m", "fde_6.4s_m")
    columns = [(key, f"{key[:3].upper()} {key[4:-2]}") for key in distances]
    columns.append(("max_deviation_3s_m", "max within 3s"))
    labels = sorted({label for values in variants.values() for label in values.get("by_label", {})})
    rows = []
    for name, values in variants.items():
        said = values.get("consistency")
        by_label = values.get("by_label", {})
        rows.append(
            {
                "label": name,
                "colour": plots.colour_of(name),
                "samples": values.get("samples", "-"),
                "texts": [number(values.get(key)) for key, _heading in columns],
                "by_label": [number(by_label.get(label, {}).get("ade_3s_m")) for label in labels],
                "consistent": f"{percent(said.get('consistent'))} ({percent(said.get('coverage'))})" if said else "-",
                "symptom": percent(said.get("thinks_curve_drives_straight")) if said else "-",
            }
        )
    compared = None
    if metrics.get("verdicts"):
        title, headings, runs = verdict_texts(metrics, wide=True)
        compared = {"title": title, "headings": headings, "rows": runs}
    return {
        "columns": [heading for _key, heading in columns],
        "labels": labels,
        "rows": rows,
        "compared": compared,
        "definitions": metrics.get("definitions", ""),
        "cameras": metrics.get("cameras", ""),
        "evaluated": metrics.get("evaluated", "split val"),
        "plots": [
            image_file(path, alt)
            for name, alt in OPEN_LOOP_PLOTS.items()
            if (path := folder / "plots" / f"{name}.png").is_file()
        ],
    }


def training(folder: Path) -> dict[str, Any]:
    """Loss curves and counts of a finetuning run."""
    log = folder / "training.jsonl"
    if not log.is_file():
        raise MonoError(f"no training.jsonl in {folder}", "the run folder of finetune")
    curves = losses.read_losses(log)
    if not curves:
        raise MonoError(f"{log} holds no losses", "lines with step, text_loss and flow_loss")
    try:
        metrics = read_json(folder / "metrics.json")
    except MonoError:
        metrics = {}
    facts = [
        (f"{split} samples", metrics.get(f"{key}_samples"))
        for split, key in (("training", "train"), ("validation", "validation"))
    ]
    for part, count in (metrics.get("trainable_parameters") or {}).items():
        facts.append((f"trainable parameters, {str(part).replace('_', ' ')}", count))
    if metrics.get("samples_per_s"):
        facts.append(("samples per second", round(metrics["samples_per_s"], 1)))
    return {
        "plot": image(losses.loss_figure(curves), "Text loss and trajectory loss over training steps"),
        "facts": [(name, f"{value:,}".replace(",", " ")) for name, value in facts if value is not None],
    }


def dataset(folder: Path, samples: int = 8) -> dict[str, Any]:
    """What was kept and refused, and some samples as cards."""
    manifest = load_manifest(folder)
    picked = survey_dataset(folder, samples).picked
    if not picked:
        raise MonoError(f"no sample in {folder}", "a dataset with at least one", "record and build more")
    counts = manifest.get("counts") or {}
    return {
        **count_rows(manifest),
        "labels": sorted((counts.get("labels") or {}).items()),
        "splits": sorted((counts.get("splits") or {}).items()),
        "cards": cards_html(make_cards(picked, folder, cameras_of(manifest))),
    }


def ros_drives(folders: Sequence[Path]) -> dict[str, Any]:
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
    first = measured[0]
    line = (first.road.name, first.summary["reference"])
    same = [drive for drive in measured if (drive.road.name, drive.summary["reference"]) == line]
    curves = reference_curves(first.reference or first.road)
    tables: dict[str, list[Any]] = {}
    for name, drive in zip(names, measured):
        if drive in same:
            tables.setdefault(name, []).append(drive.measured.arrays())
    timings = {
        name: {
            stage.removeprefix("stage_"): values
            for stage, values in (drive.metrics.get("timings_ms") or {}).items()
            if values
        }
        for name, drive in zip(names, measured)
    }
    texts = [_drive_texts(drive) for drive in measured]
    return {
        "broken": broken,
        "names": names,
        "columns": [{"label": plots.label_of(name), "colour": plots.colour_of(name)} for name in names],
        "rows": [(figure, [part[figure] for part in texts]) for figure in texts[0]],
        "map": image(
            plots.map_figure(first.road, curves, tables, None, first.reference, columns=2),
            f"Drives over ROS 2 on {first.road.name}",
        ),
        "along": image(plots.along_figure(first.road, curves, tables, first.reference), "Deviation along the course"),
        "latency": image(plots.latency_figure(timings), "Planning times") if any(timings.values()) else None,
    }


def _drive_name(drive: MeasuredDrive) -> str:
    """Before or after, by whether an adapter drove; colours and legends know these names."""
    parameters = drive.metrics.get("parameters") or {}
    cameras = str(parameters.get("cameras") or "mono")
    name = ("adapter-" if parameters.get("adapter") else "base-") + cameras.removeprefix("mono-")
    return name if name in VARIANTS else f"{'adapter' if parameters.get('adapter') else 'base'}-{cameras}"


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
        "result": verdict(part["off_track_events"], part["laps_asked"], part["laps_finished"]),
        "max deviation on curves": metres(part["on_curves"]["max_m"]),
        "RMS on curves": metres(part["on_curves"]["rms_m"]),
        "reference": part["reference"],
        "leaves the road": f"{part['off_track_events']}x",
        "laps (driven)": f"{part['laps_finished']} of {part['laps_asked']} ({part['laps_driven']:.2f})",
        "mean speed": f"{part['mean_speed_mps']:.2f} m/s",
        "reasoning, path (coverage)": f"{percent(said['consistent'])} ({percent(said['coverage'])})" if said else "-",
        "thinks curve, drives straight": f"{percent(said['thinks_curve_drives_straight'])} of {said['curve_plans']}"
        if said
        else "-",
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


def provenance(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Commit, command, input hashes and resolved configuration of every run folder that has them."""
    found = []
    for name, folder in folders.items():
        try:
            values = read_json(folder / "provenance.json")
        except MonoError:
            continue
        try:
            config = (folder / "config.yaml").read_text("utf-8")
        except OSError:
            config = ""
        found.append(
            {
                "name": name,
                "folder": str(folder),
                "commit": values.get("commit") or "not a checkout",
                "command": " ".join(str(word) for word in values.get("command") or []),
                "packages": ", ".join(f"{key} {value}" for key, value in (values.get("packages") or {}).items()),
                "python": values.get("python", ""),
                "inputs": sorted((values.get("inputs") or {}).items()),
                "config": config,
            }
        )
    return found
