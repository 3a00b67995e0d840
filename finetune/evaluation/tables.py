"""The tables of an open-loop evaluation: variants side by side, before against after, as data, text and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collector.common.tables import Console, Table, metres, number, percent, write_csv
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from finetune.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Difference, Groups, Measure, compare
from finetune.evaluation.consistency import RATES, SYMPTOM_DEFINITION
from finetune.evaluation.metrics import (
    HORIZONS_S,
    MAIN_HORIZON_S,
    MAX_DEVIATION,
    Mask,
    Scores,
    better_of,
    label_masks,
    radius_masks,
)

WIDE = 150
# What is compared on each curve label and radius bin; everything else over all samples only.
_BY_CURVE = (MAX_DEVIATION, f"max_lateral_{MAIN_HORIZON_S:g}s_m", f"ade_{MAIN_HORIZON_S:g}s_m")
_NAMES = {"ade": "ADE", "fde": "FDE", "max_deviation": "max deviation", "max_lateral": "max lateral"}

# Words of version 0.1 in metrics.json, and today's.
_FORMER = {
    "condition": "variant", "conditions": "variants",
    "thought_right": "reasoning_right", "speed_thought_right": "speed_reasoning_right",
}  # fmt: skip


def in_todays_words(metrics: Any) -> Any:  # noqa: ANN401 - raw JSON
    """What a ``metrics.json`` holds, keys and measures that version 0.1 called otherwise in today's words."""
    if isinstance(metrics, dict):
        renamed = {_FORMER.get(key, key): in_todays_words(value) for key, value in metrics.items()}
        return renamed | (
            {"measure": _FORMER.get(metrics["measure"], metrics["measure"])} if "measure" in metrics else {}
        )
    return [in_todays_words(value) for value in metrics] if isinstance(metrics, list) else metrics


def definitions(draws: int) -> str:
    """What stands under the tables."""
    limits = DEFAULT_THRESHOLDS
    k = (
        f"minADE_{draws}: the least ADE of {draws} plans drawn with seeded noise at temperature 1 from one and the "
        "same greedy reasoning; all other figures are of the one plan with zero noise that drives. "
        if draws > 1
        else "minADE_1 is the ADE: one plan per sample, with zero noise, as it drives. "
    )
    return (
        "Distances in metres, means over samples. ADE: mean distance between planned and driven positions up to the "
        "horizon; FDE: the distance at it; max deviation: the largest distance up to it "
        f"({MAIN_HORIZON_S:g} s where none is named); max lateral: the largest distance from the driven line, whatever "
        f"the time. {k}"
        f"Curves are those of the driven path in the next {limits.window_s:g} s: gentle above "
        f"{1 / limits.gentle_curvature_1pm:.4g} m radius, sharp below {1 / limits.sharp_curvature_1pm:.4g} m. "
        "Coverage: share of plans whose text claims something on that axis (direction or speed); the others count "
        "nowhere as consistent. Consistent: among those, the plan's first 3 s do what the text says. "
        f"{SYMPTOM_DEFINITION[0].upper()}{SYMPTOM_DEFINITION[1:]}. "
        f"Verdict: paired bootstrap, {RESAMPLES:,} resamples of whole groups of neighbouring samples; better or worse "
        f"where the {CONFIDENCE:.0%} interval of the difference leaves zero out, else undecided. Each interval stands "
        "for itself: of twenty rows without any change one may show one."
    )


def measure_name(key: str, draws: int) -> str:
    """A measure's key in words: ``ade_3s_m`` is "ADE 3 s"."""
    if key in RATES:
        return RATES[key]
    stem, horizon, _ = key.rsplit("_", 2)
    return f"{f'minADE_{draws}' if stem == 'min_ade' else _NAMES[stem]} {horizon[:-1]} s"


def compare_before_after(
    before: Scores, after: Scores, chosen: Mask, groups: Groups, draws: int, seed: int
) -> list[dict[str, Any]]:
    """Every row of before against after, on the chosen samples; ``groups`` are those of all samples.

    Dicts with ``curves`` (all, a label or a bin), ``measure`` (key), ``name``, ``samples`` (that count before, and
    after), ``before``, ``after``, ``low``, ``high``, ``verdict``, ``why``.
    """
    curves = {**label_masks(before.samples), **radius_masks(before.samples)}
    # By kind first, then by horizon.
    distances = [f"{kind}_{horizon:g}s_m" for kind in (*_NAMES, "min_ade") for horizon in HORIZONS_S]
    sides: list[dict[str, Measure]] = []
    for scores in (before, after):
        found = scores.measures(chosen)
        whole = {key: found[key] for key in (*distances, *RATES) if key in found}
        measures = {f"all/{key}": measure for key, measure in whole.items()}
        for part, mask in curves.items():
            if (mask & chosen).any():
                found = scores.measures(mask & chosen)
                measures |= {f"{part}/{key}": found[key] for key in _BY_CURVE}
        sides.append(measures)
    if draws == 1:
        sides[0] = {key: measure for key, measure in sides[0].items() if "/min_ade" not in key}
    better = {key: better_of(key.partition("/")[2]) for key in sides[0]}
    rows = []
    for key, difference in compare(sides[0], sides[1], better, groups, seed=seed).items():
        part, _, measure = key.partition("/")
        counts = [int(side[key].weights.sum()) for side in sides]
        row = {"curves": part, "measure": measure, "name": measure_name(measure, draws), "samples": counts}
        rows.append({**row, **_plain(difference)})
    return rows


def headline(
    variants: Sequence[Scores], summaries: Mapping[str, Any], chosen: Mask, groups: Groups, seed: int
) -> list[dict[str, Any]]:
    """``variant | max deviation | result``: every variant against the first one."""
    rows = []
    for scores in variants:
        summary = summaries[scores.name]
        row: dict[str, Any] = {
            "variant": scores.name,
            "max_deviation_m": summary[MAX_DEVIATION],
            "worst_m": summary[f"worst_{MAX_DEVIATION}"],
            "verdict": None,
            "result": "what the others are compared with" if len(variants) > 1 else "",
        }
        if scores is not variants[0]:
            first, own = ({MAX_DEVIATION: side.measures(chosen)[MAX_DEVIATION]} for side in (variants[0], scores))
            found = _plain(compare(first, own, {MAX_DEVIATION: "lower"}, groups, seed=seed)[MAX_DEVIATION])
            row |= {"verdict": found["verdict"], "result": f"{found['verdict']}: {_interval(found)}"}
            row |= {f"{key}_m": found[key] for key in ("change", "low", "high")}
        rows.append(row)
    return rows


def _plain(found: Difference) -> dict[str, Any]:
    return {**asdict(found), "change": found.change}


def _interval(row: Mapping[str, Any], scale: float = 1.0, digits: int = 2) -> str:
    if row["low"] is None:
        return str(row["why"])
    change, low, high = (f"{scale * row[key]:+.{digits}f}" for key in ("change", "low", "high"))
    return f"{change} ({low} to {high})"


Cells = tuple[str, list[str], list[list[str]]]


def headline_texts(metrics: Mapping[str, Any], wide: bool) -> Cells:
    """Title, headings and cells of the first table; a narrow one has the first three columns."""
    headings = [
        "variant", "max deviation", f"result: change ({CONFIDENCE:.0%} interval)", "worst",
        "path as reasoning\n(coverage)", "speed as reasoning\n(coverage)", "direction\nis true",
        "thinks curve,\ndrives straight",
    ]  # fmt: skip
    rows = []
    for row in metrics["table"]:
        said = metrics["variants"][row["variant"]].get("consistency")
        rates = ["-"] * 4
        if said:
            rates = [
                f"{percent(said['consistent'])} ({percent(said['coverage'])})",
                f"{percent(said['longitudinal_consistent'])} ({percent(said['longitudinal_coverage'])})",
                percent(said["reasoning_right"]),
                f"{percent(said['thinks_curve_drives_straight'])} of {said['curve_plans']}",
            ]
        rows.append([row["variant"], metres(row["max_deviation_m"]), row["result"], metres(row["worst_m"]), *rates])
    shown = None if wide else 3
    title = f"Open loop, {metrics['evaluated']}, cameras {metrics['cameras']}: {metrics['samples']} samples"
    return title, headings[:shown], [row[:shown] for row in rows]


def horizon_texts(metrics: Mapping[str, Any], wide: bool) -> Cells:
    """Title, headings and cells of the table by horizon; a narrow one has ADE and FDE only."""
    draws = metrics["draws"]
    kinds = [("ade", "ADE"), ("fde", "FDE")]
    if wide:
        kinds += [("max_lateral", "lateral"), *([("min_ade", f"minADE_{draws}")] if draws > 1 else [])]
    keys = [(f"{kind}_{horizon:g}s_m", f"{name}\n{horizon:g} s") for kind, name in kinds for horizon in HORIZONS_S]
    rows = [[name, *(number(values[key]) for key, _ in keys)] for name, values in metrics["variants"].items()]
    return "By horizon (m)", ["variant", *(heading for _, heading in keys)], rows


def curve_texts(metrics: Mapping[str, Any], wide: bool) -> Cells:
    """Title, headings and cells of the table by curve."""
    parts = {name: {**values["by_label"], **values["by_radius"]} for name, values in metrics["variants"].items()}
    headings = ["curve", "samples", *(name if wide else name.replace(" ", "\n", 1) for name in parts)]
    rows = [
        [part, str(values["samples"]), *(number(of[part][MAX_DEVIATION]) for of in parts.values())]
        for part, values in next(iter(parts.values())).items()
    ]
    return f"Max deviation up to {MAIN_HORIZON_S:g} s, by curve (m)", headings, rows


def verdict_texts(metrics: Mapping[str, Any], wide: bool) -> Cells:
    """Title, headings and cells of before against after; of curves the max deviation only (the rest is in the CSV)."""
    rows = []
    for row in metrics["verdicts"]:
        if row["curves"] != "all" and row["measure"] != MAX_DEVIATION:
            continue
        show, form = (percent, (100.0, 0)) if row["measure"] in RATES else (number, (1.0, 2))
        name = row["name"] if row["curves"] == "all" else f"{row['name']}, {row['curves']}"
        counts = " / ".join(str(count) for count in dict.fromkeys(row["samples"]))
        figures = [show(row["before"]), show(row["after"]), _interval(row, *form), row["verdict"]]
        rows.append([name, *([counts] if wide else []), *figures])
    headings = ["before", "after", f"change ({CONFIDENCE:.0%} interval)", "verdict"]
    boot = metrics["bootstrap"]
    title = f"Before and after: {boot['groups']} groups ({boot['group']})"
    return title, ["measure", *(["samples"] if wide else []), *headings], rows


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """All tables on a console, the definitions under them; a narrow one gets what matters most."""
    makers = [headline_texts, horizon_texts, curve_texts, *([verdict_texts] if metrics["verdicts"] else [])]
    colours = {"better": "green", "worse": "red"}
    for make in makers:
        title, headings, rows = make(metrics, console.width >= WIDE)
        words = [at for at, heading in enumerate(headings) if at == 0 or heading == "verdict" or "interval" in heading]
        styles = [colours.get(row[-1]) for row in rows]
        console.print(Table(title, headings, rows, left=words, styles=styles))
    for note in metrics["notes"]:
        console.print(note)
    console.print(metrics["definitions"], style="dim")


def write_tables(metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """``table.csv`` (the headline), ``errors.csv`` (every figure), ``verdicts.csv`` and ``tables.txt``."""
    table, errors, verdicts, texts = (
        folder / name for name in ("table.csv", "errors.csv", "verdicts.csv", "tables.txt")
    )
    columns = ["variant", "max_deviation_m", "result", "worst_m", "verdict", "change_m", "low_m", "high_m"]
    write_csv(table, metrics["table"], columns)
    write_csv(errors, _error_lines(metrics))
    columns = ["curves", "measure", "name", "samples_before", "samples_after"]
    write_csv(
        verdicts,
        [
            {**row, "samples_before": row["samples"][0], "samples_after": row["samples"][1]}
            for row in metrics["verdicts"]
        ],
        [*columns, "before", "after", "change", "low", "high", "verdict", "why"],
    )
    with texts.open("w", encoding="utf-8") as file:
        print_tables(metrics, Console(file=file, width=WIDE))
    return [table, errors, verdicts, texts]


def _error_lines(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for variant, values in metrics["variants"].items():
        for part, means in {"all": values, **values["by_label"], **values["by_radius"]}.items():
            line = {"variant": variant, "curves": part}
            for key, value in means.items():
                if key.endswith("s_m") and isinstance(value, float):
                    yield {**line, "measure": key, "samples": means["samples"], "value": value}
        for rate, value in values.get("consistency", {}).items():
            yield {"variant": variant, "curves": "all", "measure": rate, "samples": values["samples"], "value": value}
