"""``alpamayo-mono view``: one self-contained HTML page of a dataset, to look at before anything is trained on it.

Nothing is loaded from elsewhere, so the page can be mailed. The dataset is read once, in flat memory, and whatever is
broken in it is counted and shown rather than an end to the page.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from collector.calibration.intrinsics import DatasetCameras, cameras_of
from collector.common.arguments import MOST_SEED, OUT, POSITIONAL, Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.files import write_atomically
from collector.dataset import statistics as spread
from collector.dataset.schema import QUARANTINE_FILE, Sample

# Bytes of pictures in a page; as base64 four thirds of it, which with text and drawings stays below 15 MB.
PICTURE_BYTES = 9_000_000
MOST_SAMPLES = 500


@dataclass(frozen=True)
class ViewConfig(Arguments):
    """Write one HTML page of a dataset: counts, histograms, and samples with the future path drawn on the road.

    Wrong pitch: the dashed horizon misses the picture's, and the ribbon leaves the road. Swapped sign: the ribbon bends
    against the road. The page loads nothing from the network.
    """

    dataset: Annotated[Path, POSITIONAL]  # dataset folder, as build wrote it.
    # the page to write; by default beside the folder, DATASET-view.html.
    out: Annotated[Path | None, OUT] = None
    samples: int = argument(
        120, "how many kept samples to show, drawn by seed, evenly over the curve labels", 0, MOST_SAMPLES
    )
    quarantined: int = argument(48, "how many quarantined ones, drawn likewise", 0, MOST_SAMPLES)
    seed: int = argument(0, "of the draw", 0, MOST_SEED)
    pitch_deg: float | None = argument(
        None, "the camera's pitch, positive looks down; by default what the manifest says", -89.0, 89.0
    )
    hfov_deg: float | None = argument(
        None, "the camera's horizontal field of view; by default the recorded intrinsics", 1.0, 179.0
    )
    camera_height_m: float | None = argument(
        None, "the lens over the road; by default what the manifest says", 0.01, 100.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.samples + self.quarantined <= MOST_SAMPLES:
            found = f"{self.samples} samples and {self.quarantined} quarantined ones to show"
            do = "a page shows a draw: choose another --seed to see others"
            raise MonoError(found, f"together 1 to {MOST_SAMPLES}", do)

    @property
    def page(self) -> Path:
        """Where the page goes; not into the dataset, whose hash it would change."""
        folder = self.dataset.resolve()
        return self.out if self.out is not None else folder.with_name(f"{folder.name}-view.html")


def write_view(config: ViewConfig, show_progress: bool = True) -> Path:
    """Write the page; returns its path.

    Raises:
        MonoError: no dataset there, a camera that is none, jinja2 missing, or the page cannot be written.
    """
    jinja2 = require("jinja2", "report")
    from collector.dataset.gallery import TEMPLATES, check_page_place, gallery_html, rendered

    check_page_place(config.page)
    statistics = spread.dataset_statistics(
        config.dataset, config.samples, config.quarantined, config.seed, show_progress
    )
    cameras = cameras_of(statistics.manifest, config.pitch_deg, config.hfov_deg, config.camera_height_m)
    pairs = spread.pairs_of(config.dataset, statistics.picked)
    chosen: list[Sample] = [*_once_each(statistics.picked), *statistics.picked_quarantined]
    most_bytes = PICTURE_BYTES // max(1, len(chosen))
    gallery, unreadable = gallery_html(chosen, config.dataset, cameras, most_bytes, show_progress, pairs)
    cards = {"gallery": jinja2.utils.markupsafe.Markup(gallery), "shown": len(chosen), "unreadable": unreadable}
    text = rendered(TEMPLATES / "view.html.j2", **_context(config, statistics, cameras), **cards)
    try:
        write_atomically(config.page, text)
    except OSError as error:
        raise MonoError(f"{config.page} cannot be written: {error}", "a writable place", "choose --out") from error
    return config.page


def _once_each(samples: Sequence[Sample]) -> list[Sample]:
    """Of each pair the first one: its card shows them all."""
    first = {one.pair: one for one in reversed(samples) if one.pair}
    return [one for one in samples if not one.pair or first[one.pair] is one]


def _context(config: ViewConfig, statistics: spread.DatasetStatistics, cameras: DatasetCameras) -> dict[str, Any]:
    """Everything the template shows but the samples."""
    kept, refused, said = statistics.kept, statistics.quarantined, spread.manifest_counts(statistics.manifest)
    faults = [statistics.manifest_fault] if statistics.manifest_fault else []
    for name, tally in (("kept", kept), ("quarantined", refused)):
        if name in said and said[name] != tally.lines:
            faults.append(f"the manifest counts {said[name]} {name}, {tally.lines} lines can be read")
    broken, missing = kept.broken + refused.broken, kept.missing + refused.missing
    if broken:
        faults.append(f"{broken} broken lines")
    if missing:
        faults.append(f"{missing} samples whose image is missing")
    edges = [*spread.RADIUS_FROM_M[1:], None]
    radii = {
        low: f"{low} to {high} m" if high else f"over {low} m"
        for low, high in zip(spread.RADIUS_FROM_M, edges, strict=True)
    }
    speeds = {low: f"{low} to {low + 1} m/s" for low in range(spread.FASTEST_BIN_MPS)}
    speeds[spread.FASTEST_BIN_MPS] = f"over {spread.FASTEST_BIN_MPS} m/s"
    return {
        "name": config.dataset.resolve().name,
        "made": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": statistics.manifest.get("commit") or "",
        "bags": [str(bag.get("name")) for bag in statistics.manifest.get("bags") or () if isinstance(bag, dict)],
        "table": spread.count_rows(statistics.manifest) if statistics.manifest else None,
        "kept": kept,
        "refused": refused,
        "quarantine_file": QUARANTINE_FILE,
        "faults": faults,
        "named": [*kept.named, *refused.named],
        "camera": cameras.sources,
        "pitch_deg": f"{np.degrees(cameras.other.pitch_rad):+.1f}",
        "height_m": f"{cameras.other.z_m:.2f}",
        "ahead_m": f"{cameras.other.x_m:.2f}",
        "charts": [
            ("curve label", _bars({name: name for name in spread.LABELS}, kept.labels, refused.labels)),
            ("smallest radius in the reasoning's window", _bars(radii, kept.radius_m, refused.radius_m)),
            ("speed at t0", _bars(speeds, kept.speed_mps, refused.speed_mps)),
            ("split", _bars({name: name for name in ("train", "val")}, kept.splits, refused.splits)),
            *(
                (title, _bars({name: name for name in sorted({*mine, *theirs})}, mine, theirs))
                for title, mine, theirs in (
                    ("manner", kept.manners, refused.manners),
                    ("place or pace claimed", kept.claims, refused.claims),
                )
                if mine or theirs
            ),
        ],
        "filters": [
            ("label", [name for name in spread.LABELS if kept.labels[name] or refused.labels[name]]),
            ("split", [name for name in ("train", "val") if kept.splits[name] or refused.splits[name]]),
            ("state", ["kept", "quarantined"]),
        ],
        "seed": config.seed,
    }


def _bars(
    names: Mapping[Any, str], kept: Mapping[Any, int], refused: Mapping[Any, int]
) -> list[tuple[str, int, int, float, float]]:
    """Rows of a bar chart, empty ones at its ends left out; the two last figures are percent of the longest."""
    rows = [(text, kept.get(key, 0), refused.get(key, 0)) for key, text in names.items()]
    filled = [index for index, row in enumerate(rows) if row[1] or row[2]]
    rows = rows[filled[0] : filled[-1] + 1] if filled else []
    most = max((held + out for _text, held, out in rows), default=1)
    return [(text, held, out, 100.0 * held / most, 100.0 * out / most) for text, held, out in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono view``."""
    page = write_view(command_line(ViewConfig, argv, "alpamayo-mono view"))
    print(f"view: {page.resolve()} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0
