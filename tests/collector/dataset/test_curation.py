"""The contradiction filter at work: through the real build, texts of both languages on paths of varied courses.

Half of the moments get a text that is true, half one that is false on one axis. Texts come from our own writer and
from sentences put together here in words the writer does not use, some with a remark about another road user.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collector.dataset.build_report import BuildReport
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, load_manifest, read_samples
from collector.reasoning.consistency import Motion, language_of, measure_motion
from collector.reasoning.writing import write_reasoning
from tests.helpers.synthetic_bag import drive_course, write_bag

PLANTED = 500
LATERAL = {
    "en": {
        "side": ("bear {0} with the road", "a {0} curve lies ahead", "turn the wheel {0}", "take the {0}-hander"),
        "straight": ("carry on straight", "there is no curve ahead", "the track ahead is straight"),
    },
    "ja": {
        "side": ("{0}へハンドルを切る", "道は{0}へ湾曲している", "{0}コーナーに入る", "進路を{0}に取る"),
        "straight": ("まっすぐ走る", "カーブはない", "前方はストレートだ"),
    },
}
SPEED = {
    "en": {
        "accelerate": ("pick up speed", "the pace is increasing, so go faster"),
        "decelerate": ("ease off", "lower the speed and do not accelerate"),
        "keep": ("cruise on", "maintain a steady pace"),
        "stop": ("halt", "come to rest"),
    },
    "ja": {
        "accelerate": ("アクセルを踏む", "スピードを上げる"),
        "decelerate": ("スピードを落とす", "加速せず、ブレーキをかける"),
        "keep": ("一定の速度で走る", "ペースを変えない"),
        "stop": ("停車する", "ここで待つ"),
    },
}
REMARKS = {
    "en": ("", " The car ahead turns left.", " The truck behind us is braking and moves to the right."),
    "ja": ("", "前の車が左に曲がる。", "後ろのトラックは減速して右に寄っている。"),
}
SIDE = {"en": {"left": "left", "right": "right"}, "ja": {"left": "左", "right": "右"}}


def compose(lateral: str, longitudinal: str, language: str, draw: random.Random) -> str:
    """A text that says this on both axes, in words our writer does not use."""
    ways = LATERAL[language]["straight" if lateral == "straight" else "side"]
    turn = draw.choice(ways).format(SIDE[language].get(lateral))
    speed, remark = draw.choice(SPEED[language][longitudinal]), draw.choice(REMARKS[language])
    first, second = draw.sample([turn, speed], 2)
    return f"{first}。{second}。{remark}" if language == "ja" else f"{first.capitalize()}; {second}.{remark}"


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three random courses driven at changing speed, each with a stop in the middle."""
    root, paths = tmp_path_factory.mktemp("bags"), []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        course = [(rng.uniform(8, 20), rng.choice([0, 0, 0.06, 0.12, 0.2]) * rng.choice([-1, 1])) for _ in range(16)]

        def speed(t_s: float, phase: float = rng.uniform(0, 6)) -> float:
            return max(0.0, (4.5 + 2.0 * np.sin(0.4 * t_s + phase)) * min(1.0, abs(t_s - 22.0) / 4.0 - 0.1))

        paths.append(write_bag(root / f"course{seed}", drive_course(course, speed)))
    return paths


def build(bags: list[Path], out: Path, **settings: object) -> tuple[BuildReport, list[Sample]]:
    config = BuildConfig(bags=tuple(bags), out=out, val_fraction=0.0, **settings)  # type: ignore[arg-type]
    report = build_dataset(config, show_progress=False)
    report.check_sum()
    return report, list(read_samples(out))


@pytest.fixture(scope="module")
def japanese(bags: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildReport, list[Sample], Path]:
    out = tmp_path_factory.mktemp("sets") / "ja"
    return *build(bags, out, reasoning_language="ja"), out


def test_our_own_japanese_is_never_quarantined(japanese: tuple[BuildReport, list[Sample], Path]) -> None:
    report, samples, out = japanese
    assert report.quarantined == 0 and report.kept == len(samples) >= 2 * PLANTED
    assert all(language_of(sample.reasoning) == "ja" for sample in samples)
    assert len({sample.reasoning for sample in samples}) > 60
    assert load_manifest(out)["config"]["reasoning_language"] == "ja"


def test_all_planted_contradictions_and_no_agreeing_text_are_quarantined(
    tmp_path: Path, bags: list[Path], japanese: tuple[BuildReport, list[Sample], Path]
) -> None:
    draw = random.Random(0)
    samples = draw.sample(japanese[1], 2 * PLANTED)
    motions = [measure_motion(sample.future_array()) for sample in samples]
    planted: dict[str, tuple[str, str]] = {}
    kinds: Counter[tuple[str, ...]] = Counter()
    with (tmp_path / "texts.jsonl").open("w", encoding="utf-8") as lines:
        for number, (sample, motion) in enumerate(zip(samples, motions, strict=True)):
            language, said, axis = ("en", "ja")[number // 2 % 2], motion, "none"
            if number % 2:
                axis = ("lateral", "longitudinal")[number // 4 % 2]
                said = falsify(motion, axis, motions, draw)
                planted[sample.id] = (axis, getattr(said, axis))
            if ours := draw.random() < 0.5:
                text = write_reasoning(said, number, language=language)
            else:
                text = compose(said.lateral, said.longitudinal, language, draw)
            kinds[language, axis, "ours" if ours else "free", getattr(motion, axis, "")] += 1
            line = {"bag": sample.bag, "stamp_ns": sample.stamp_ns, "reasoning": text}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    assert len(planted) == PLANTED
    for axis, values in (("lateral", "left right straight"), ("longitudinal", "accelerate decelerate keep stop")):
        for value in values.split():
            assert sum(n for kind, n in kinds.items() if kind[1] == axis and kind[3] == value) >= 10, (value, kinds)

    report, kept = build(bags, tmp_path / "curated", reasoning=tmp_path / "texts.jsonl")
    lines = (tmp_path / "curated" / "quarantine.jsonl").read_text("utf-8").splitlines()
    quarantined = {line["id"]: line for line in map(json.loads, lines)}
    passed = {sample.id: sample.reasoning for sample in kept}
    assert not set(passed) & set(planted), [passed[name] for name in set(passed) & set(planted)]
    wrongly = {name: line["reasoning"] for name, line in quarantined.items() if name not in planted}
    assert not wrongly, wrongly
    assert (report.quarantined, report.kept) == (PLANTED, PLANTED)
    for name, (axis, said) in planted.items():
        line, other = quarantined[name], "longitudinal" if axis == "lateral" else "lateral"
        verdict = line["verdict"]
        assert line["claim"][axis] == said and verdict["measured"][axis] != said
        assert (verdict[axis], verdict[other]) == ("contradict", "agree")
        assert f"claims {said}" in verdict["reason"]
        assert verdict["thresholds"]["window_s"] == 3.0 and verdict["thresholds"]["speed_change_mps"] == 0.5


def falsify(motion: Motion, axis: str, motions: list[Motion], draw: random.Random) -> Motion:
    """The same motion but for one axis, which is that of another moment and untrue here."""
    while True:
        other = draw.choice(motions)
        if axis == "lateral" and other.lateral != motion.lateral:
            return replace(motion, lateral=other.lateral, curve=other.curve)
        # "Slow down" is true of a kart that comes to a stop.
        true = {motion.longitudinal, "decelerate"} if motion.longitudinal == "stop" else {motion.longitudinal}
        if axis == "longitudinal" and other.longitudinal not in true:
            return replace(motion, longitudinal=other.longitudinal)
