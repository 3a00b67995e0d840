"""Samples to look at on a page: the picture with the path on the road, the path from above, the reasoning."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from collector.calibration.intrinsics import DatasetCameras
from collector.common.errors import MonoError, require
from collector.common.files import check_file_place
from collector.common.pictures import read_picture
from collector.common.tables import progress
from collector.dataset.schema import Sample
from collector.dataset.statistics import radius_m
from collector.geometry.path_drawing import (
    AboveView,
    Image,
    above_svg,
    draw_fan,
    draw_seen,
    fan_rgb,
    fan_svg,
    ground_from_above,
)
from collector.geometry.poses import FloatArray
from collector.ros.images import encode_jpeg

TEMPLATES = Path(__file__).resolve().parent / "templates"
# In the head of every page of ours: what ours say since 0.3, and a colour of the pages before.
_PAGE_MARKS, _HEAD_BYTES = (b'content="alpamayo-mono"', b"--ink: #20262e"), 2048
# Width and JPEG quality to try, until a picture fits the bytes a sample may have.
_SIZES = ((480, 82), (480, 70), (400, 62), (320, 55), (240, 45))


@dataclass(frozen=True)
class GalleryItem:
    """What a page shows of a sample (the words are the template's)."""

    sample: Sample
    radius_m: float
    image: str  # JPEG as a data URI, empty where the frame cannot be read, and then `fault` says why
    fault: str
    above: str  # the path from above, SVG
    others: tuple[tuple[str, Sample], ...] = ()  # of a pair: all its samples, each with the colour of its path


def gallery_item(
    sample: Sample, folder: Path, cameras: DatasetCameras, most_bytes: int = 60_000, pair: Sequence[Sample] = ()
) -> GalleryItem:
    """One sample to show; its picture becomes smaller and coarser until it fits, and is left out where it is broken.

    Of a pair, whose samples may be given, the futures of all are drawn into one picture.
    """
    image = ground = fault = ""
    try:
        image, ground = _pictures(sample, folder, cameras, most_bytes, [one.future_array() for one in pair])
    except MonoError as error:
        fault = error.found
    if pair:
        above = fan_svg(sample.history_array(), [one.future_array() for one in pair], ground)
        coloured = tuple(("#{:02x}{:02x}{:02x}".format(*fan_rgb(number)), one) for number, one in enumerate(pair))
        return GalleryItem(sample, radius_m(sample), image, fault, above, coloured)
    above = above_svg(sample.history_array(), sample.future_array(), ground)
    return GalleryItem(sample, radius_m(sample), image, fault, above)


def gallery_html(
    samples: Sequence[Sample],
    folder: Path,
    cameras: DatasetCameras,
    most_bytes: int = 60_000,
    show_progress: bool = False,
    pairs: Mapping[str, Sequence[Sample]] | None = None,
) -> tuple[str, int]:
    """The samples as one HTML fragment that needs no page around it, and how many have no readable picture.

    ``pairs`` are all the samples of the pairs among them, by the pair's id.
    """
    require("jinja2", "report")
    shown = progress(samples, "draw", "sample", show=show_progress)
    items = [
        gallery_item(sample, folder, cameras, most_bytes, (pairs or {}).get(sample.pair or "", ())) for sample in shown
    ]
    return rendered(TEMPLATES / "gallery.html.j2", items=items), sum(1 for item in items if item.fault)


def check_page_place(page: Path) -> None:
    """Refuse before the work a place where no page can be written, or where somebody else's file is (MonoError)."""
    check_file_place(page)
    if page.is_file():
        with page.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if head and not any(mark in head for mark in _PAGE_MARKS):
            raise MonoError(f"{page} is no page of ours", "a new file, or a page made before", "choose another --out")


def rendered(template: Path, **values: object) -> str:
    """A page or a part of one; what a template asks of a value that is not there is empty."""
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    return str(environment.from_string(template.read_text("utf-8")).render(**values))


def _pictures(
    sample: Sample, folder: Path, cameras: DatasetCameras, most_bytes: int, fan: Sequence[FloatArray]
) -> tuple[str, str]:
    """Data URIs of the frame with its path, and of the frame laid flat; together at most so many bytes of JPEG.

    ``fan`` are several futures to draw in its place.
    """
    image: Image = read_picture(folder / sample.file_name)
    view = AboveView.around(sample.history_array(), np.vstack(fan) if fan else sample.future_array())
    flat = ground_from_above(image, cameras.of(sample.bag, image.shape[1], image.shape[0]), view)
    for most_px, quality in _SIZES:
        width = min(most_px, image.shape[1])
        height = max(8, round(image.shape[0] * width / image.shape[1]))
        small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        camera = cameras.of(sample.bag, width, height)
        drawn = draw_fan(small, fan, camera) if fan else draw_seen(small, sample.future_array(), camera)
        pair = encode_jpeg(drawn, quality), encode_jpeg(flat, quality - 15)
        if sum(map(len, pair)) <= most_bytes:
            break
    seen, above = ("data:image/jpeg;base64," + base64.b64encode(data).decode() for data in pair)
    return seen, above
