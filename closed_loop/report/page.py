"""One self-contained HTML page of a run: what was driven, before and after, and where every number came from.

Pictures are inlined, nothing is loaded from elsewhere, so the page can be mailed and opened from a disk. A part
whose input is missing becomes a line with the command that makes it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from closed_loop.comparison.table import DISCLAIMER
from collector.common.arguments import OUT
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.files import write_atomically
from collector.common.run_folder import git_commit
from collector.common.text_files import read_json

TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html.j2"


@dataclass(frozen=True)
class ReportConfig:
    """Write one HTML page from the runs: table, maps, curves, losses, samples, ROS 2 drives, provenance."""

    # a folder made by `alpamayo-mono demo` (parts in compare, finetune, evaluate, dataset, drive_*), or the run folder
    # of a comparison.
    run: Path
    # the page to write; empty is report.html in the run folder.
    out: Annotated[Path | None, OUT] = None
    compare: Path | None = None  # run folder of compare, where it is not RUN/compare.
    # run folder of compare with --instructions, where that is neither RUN/steer nor the comparison's own.
    steering: Path | None = None
    training: Path | None = None  # run folder of finetune, where it is not RUN/finetune.
    evaluation: Path | None = None  # run folder of evaluate, where it is not RUN/evaluate.
    dataset: Path | None = None  # dataset folder, where it is not RUN/dataset.
    drives: tuple[Path, ...] = ()  # folders of drives over ROS 2, where they are not RUN/drive*.
    title: str = "One camera: before and after"  # headline of the page.

    @property
    def folders(self) -> dict[str, Path]:
        """The parts' folders by name; drives apart."""
        compare = self.compare
        if compare is None:
            compare = self.run if (self.run / "runs").is_dir() else self.run / "compare"
        told = self.run / "steer"
        return {
            "compare": compare,
            "steer": self.steering or (told if told.is_dir() else compare),
            "finetune": self.training or self.run / "finetune",
            "evaluate": self.evaluation or self.run / "evaluate",
            "dataset": self.dataset or self.run / "dataset",
        }

    @property
    def drive_folders(self) -> tuple[Path, ...]:
        """Drives over ROS 2, before ahead of after."""
        found = sorted(path.parent for path in self.run.glob("drive*/metrics.json"))
        return self.drives or tuple(sorted(found, key=lambda path: ("after" in path.name, path.name)))


# What is said where a part of the page is missing, and the command that makes it.
MISSING = {
    "comparison": ("No comparison here", "compare --model MODEL --adapter ADAPTER --out {compare}"),
    "steering": (
        "No kart was told how to drive here",
        "compare --model MODEL --adapter ADAPTER --instructions all --out {steer}",
    ),
    "open_loop": (
        "No open-loop evaluation here",
        "evaluate --model MODEL --adapter ADAPTER --dataset {dataset} --out {evaluate}",
    ),
    "training": ("No training log here", "finetune --model MODEL --dataset {dataset} --out {finetune}"),
    "dataset": ("No dataset here", "build --bags BAG --out {dataset}"),
    "ros": ("No drive over ROS 2 here", "drive simulator:=true course:=city adapter:=ADAPTER out:={run}/drive_after"),
}


def context(config: ReportConfig) -> dict[str, object]:
    """Everything the template shows; a part that cannot be made is ``{"why", "command"}``."""
    from closed_loop.report import comparison, sections, steering

    folders, drives, stages = config.folders, config.drive_folders, _stages(config.run)
    origins = {name: path for name, path in folders.items() if name == "compare" or path != folders["compare"]}
    makers: dict[str, Callable[[], dict[str, object]]] = {
        "comparison": partial(comparison.comparison, folders["compare"]),
        "steering": partial(steering.steering, folders["steer"]),
        "open_loop": partial(sections.open_loop, folders["evaluate"]),
        "training": partial(sections.training, folders["finetune"]),
        "dataset": partial(sections.dataset, folders["dataset"]),
        "ros": partial(sections.ros_drives, drives),
    }
    parts: dict[str, object] = {}
    for name, make in makers.items():
        what, command = MISSING[name]
        try:
            parts[name] = make()
        # Input is files of other runs, of other versions or half written: a wrong one must cost its part only.
        except (MonoError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            kind = "" if isinstance(error, MonoError) else f"its files do not fit, {type(error).__name__}: "
            command = f"alpamayo-mono {command.format(run=config.run, **folders)}"
            parts[name] = {"why": f"{what}: {kind}{error}", "command": command}
    return {
        **parts,
        "title": config.title,
        "disclaimer": DISCLAIMER,
        "origins": sections.provenance({**origins, **{f"drive {path.name}": path for path in drives}}),
        "stages": stages,
        "total_minutes": sum(seconds for _name, seconds in stages) / 60.0,
        "commit": git_commit() or "not a checkout",
        "made": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "run": str(config.run),
    }


def _stages(run: Path) -> list[tuple[str, float]]:
    """Seconds of each stage of a demo; none where the run is not one."""
    try:
        return [(name, float(seconds)) for name, seconds in read_json(run / "stages.json").items()]
    except (MonoError, ValueError, TypeError):
        return []


def write_report(config: ReportConfig) -> Path:
    """Write the page; returns its path (MonoError: the run folder does not exist, or the page cannot be written)."""
    require("matplotlib", "report")
    if not config.run.is_dir():
        raise MonoError(f"no folder {config.run}", "a run folder", "run `alpamayo-mono demo` or `compare` first")
    from collector.dataset.gallery import check_page_place, rendered

    page = config.out or config.run / "report.html"
    check_page_place(page)
    text = rendered(TEMPLATE, **context(config))
    try:
        write_atomically(page, text)
    except OSError as error:
        raise MonoError(f"{page} cannot be written: {error}", "a writable place", "choose --out") from error
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono report``."""
    config = command_line(ReportConfig, argv, "alpamayo-mono report")
    page = write_report(config)
    print(f"report: {page.resolve()} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
