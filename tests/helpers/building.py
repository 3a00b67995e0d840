"""Building a small dataset from one bag, as several tests do."""

from __future__ import annotations

from pathlib import Path

from collector.dataset.build_report import BuildReport
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, read_samples

HISTORY_NS, HORIZON_NS = 1_500_000_000, 6_400_000_000


def build(tmp_path: Path, bag: Path, **settings: object) -> tuple[BuildReport, list[Sample], Path]:
    """Build without validation unless told; the report's sum is checked."""
    out = tmp_path / f"dataset-{bag.name}"
    config = BuildConfig(bags=(bag,), out=out, **({"val_fraction": 0.0} | settings))  # type: ignore[arg-type]
    report = build_dataset(config, show_progress=False)
    report.check_sum()
    return report, list(read_samples(out)), out
