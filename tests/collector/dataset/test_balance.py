"""Curve balancing: bins level within the ratio, every frame still accounted for, validation untouched."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.dataset.balance import BALANCED, bin_limit
from collector.dataset.builder import build_dataset, main
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, load_manifest, read_samples
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from tests.helpers.synthetic_bag import drive_course, write_bag

# Mostly straight, with gentle, medium and sharp bends and an S.
ROADS = (
    ((90, 0.0), (18, 0.06), (60, 0.0), (9, -0.12), (40, 0.0)),
    ((60, 0.0), (8, 0.2), (70, 0.0), (10, -0.06), (7, 0.12), (40, 0.0)),
    ((80, 0.0), (8, 0.2), (50, 0.0), (12, -0.12), (40, 0.0)),
)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("roads")
    return tuple(
        write_bag(folder / f"road{n}", drive_course(road).moved(0.0, 50.0 * n, 0.0)) for n, road in enumerate(ROADS)
    )


def bins_of(samples: list[Sample]) -> Counter[str]:
    radius_bin = DEFAULT_THRESHOLDS.radius_bin
    return Counter(radius_bin(s.curve.label, s.curve.max_abs_curvature_1pm) for s in samples if s.split == "train")


def test_bins_are_level_and_the_sum_still_checks(tmp_path: Path, bags: tuple[Path, ...]) -> None:
    everything = build_dataset(BuildConfig(bags, tmp_path / "all", val_fraction=0.2), show_progress=False)
    whole = {sample.id: sample for sample in read_samples(tmp_path / "all")}
    config = BuildConfig(
        bags, tmp_path / "level", val_fraction=0.2, balance=True, balance_ratio=1.5, balance_rare_share=0.02
    )
    report = build_dataset(config, show_progress=False)
    samples = list(read_samples(tmp_path / "level"))
    before, after = bins_of(list(whole.values())), bins_of(samples)
    assert before["straight"] > 4 * min(before.values()) and len(before) >= 5

    total = sum(before.values())
    common = {name: count for name, count in after.items() if before[name] >= config.balance_rare_share * total}
    assert len(common) >= 4 and max(common.values()) <= 1.5 * min(common.values())
    assert max(after.values()) == max(common.values()) and after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if before[name] <= max(common.values()))

    report.check_sum()
    left_out = report.rejected[BALANCED]
    assert report.kept == len(samples) == everything.kept - left_out and left_out > 100
    assert report.seen == everything.seen and report.quarantined == everything.quarantined
    assert report.labels == Counter(s.curve.label for s in samples)
    assert report.splits == Counter(s.split for s in samples)
    assert all(whole[sample.id] == sample for sample in samples)
    assert [s for s in samples if s.split == "val"] == [s for s in whole.values() if s.split == "val"]

    said = load_manifest(tmp_path / "level")["balance"]
    assert said["train_before"] == before and said["train_after"] == after
    assert said["ratio"] == 1.5 and said["most_per_bin"] == max(common.values())
    assert load_manifest(tmp_path / "level")["counts"]["rejected"][BALANCED] == left_out
    assert "balance" not in load_manifest(tmp_path / "all")


def test_pictures_go_with_the_last_line_that_needs_them(tmp_path: Path, bags: tuple[Path, ...]) -> None:
    texts = tmp_path / "texts.jsonl"
    build_dataset(BuildConfig(bags, tmp_path / "all"), show_progress=False)
    with texts.open("w") as lines:
        for number, sample in enumerate(read_samples(tmp_path / "all")):
            text = "Turn right." if number % 7 == 0 else sample.reasoning
            lines.write(json.dumps({"bag": sample.bag, "stamp_ns": sample.stamp_ns, "reasoning": text}) + "\n")
    out = tmp_path / "out"
    report = build_dataset(
        BuildConfig(bags, out, balance=True, balance_ratio=1.0, reasoning=texts), show_progress=False
    )
    assert report.quarantined > 20
    needed = {name for sample in read_samples(out) for name in sample.frames}
    for line in (out / "quarantine.jsonl").read_text().splitlines():
        needed |= set(json.loads(line)["frames"])
    stored = {f"images/{path.name}" for path in (out / "images").iterdir()}
    assert stored == needed
    assert len(stored) < len(list((tmp_path / "all" / "images").iterdir()))
    assert not list(out.glob("*.part"))


def test_the_seed_draws_and_the_same_seed_draws_the_same(tmp_path: Path, bags: tuple[Path, ...]) -> None:
    lines = {}
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        config = BuildConfig(bags, tmp_path / name, val_fraction=0.0, seed=seed, balance=True)
        build_dataset(config, show_progress=False)
        lines[name] = (tmp_path / name / "metadata.jsonl").read_bytes()
    assert lines["a"] == lines["again"]
    one, two = ({s.id for s in read_samples(tmp_path / name)} for name in ("a", "b"))
    assert one != two and len(one) == len(two)


def test_what_a_bin_may_have() -> None:
    assert bin_limit({"straight": 900, "left sharp": 60, "right sharp": 40}, 2.0, 0.02) == 80
    # Three of a thousand neither level the others down nor are left out themselves.
    assert bin_limit({"straight": 900, "left sharp": 97, "s sharp": 3}, 2.0, 0.02) == 194
    assert bin_limit({"straight": 900, "left sharp": 97, "s sharp": 3}, 2.0, 0.0) == 6
    assert bin_limit({"straight": 5}, 1.0, 0.0) == 5
    assert bin_limit({}, 2.0, 0.02) > 10**9
    bins = [DEFAULT_THRESHOLDS.radius_bin("left", kappa) for kappa in (0.05, 0.1, 0.2)]
    assert bins == ["left gentle", "left medium", "left sharp"]
    assert DEFAULT_THRESHOLDS.radius_bin("straight", 0.3) == "straight"


def test_wrong_settings_are_refused_and_an_empty_dataset_is_not_a_crash(tmp_path: Path, bags: tuple[Path, ...]) -> None:
    with pytest.raises(MonoError, match="balance_ratio"):
        BuildConfig(bags, tmp_path / "x", balance_ratio=0.5)
    with pytest.raises(MonoError, match="at least one"):
        main(["--bags", str(bags[0]), "--out", str(tmp_path / "none"), "--balance", "--min-speed-mps", "99"])
    assert load_manifest(tmp_path / "none")["balance"]["train_before"] == {}
