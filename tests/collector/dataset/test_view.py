"""The page of a dataset: every number is the manifest's, every card has its picture, nothing broken ends it."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import tracemalloc
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.report.page import ReportConfig, write_report
from collector.calibration.intrinsics import cameras_of
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.gallery import gallery_item
from collector.dataset.schema import METADATA_FILE, QUARANTINE_FILE, load_manifest, read_samples
from collector.dataset.statistics import StratifiedPick, count_rows, dataset_statistics
from collector.dataset.view import PICTURE_BYTES, ViewConfig, main, write_view
from tests.helpers.synthetic_bag import camera_stamps, compressed_cdr, drive_course, write_bag

pytest.importorskip("jinja2")


class Page(HTMLParser):
    """The cards, their pictures and the rows of the count table of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cards: list[dict[str, str]] = []
        self.images: list[str] = []
        self.counts: dict[str, int] = {}
        self.filters: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        if tag == "article":
            self.cards.append(values)
        elif tag == "img":
            self.images.append(values["src"])
        elif tag == "tr" and "data-count" in values:
            self.counts[values["data-name"]] = int(values["data-count"])
        elif tag == "input":
            self.filters.append((values["name"], values["value"]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept, quarantined (every third frame is said to turn left) and rejected frames."""
    folder = tmp_path_factory.mktemp("view")
    drive = drive_course()
    stamps = camera_stamps(drive)
    rng = np.random.default_rng(3)
    picture = cv2.imencode(".jpg", cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (160, 90)))[1].tobytes()
    bag = write_bag(folder / "bag", drive, frames=[(int(ns), compressed_cdr(int(ns), picture)) for ns in stamps])
    plain = folder / "plain"
    build_dataset(BuildConfig((bag,), plain, stride=2, val_fraction=0.0), show_progress=False)
    texts = [
        {"stamp_ns": sample.stamp_ns, "reasoning": "Turn left <now>." if number % 3 == 0 else sample.reasoning}
        for number, sample in enumerate(read_samples(plain))
        if number % 5
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    config = BuildConfig((bag,), folder / "dataset", stride=2, reasoning=folder / "texts.jsonl", val_fraction=0.0)
    report = build_dataset(config, show_progress=False)
    assert report.kept and report.quarantined and len(report.rejected) >= 2
    return folder / "dataset"


def view(folder: Path, out: Path, **settings: object) -> tuple[Page, str]:
    text = write_view(ViewConfig(folder, out=out, **settings), show_progress=False).read_text("utf-8")  # type: ignore[arg-type]
    return Page(text), text


def test_the_counts_are_those_of_the_manifest_and_the_cards_those_of_the_lines(dataset: Path, tmp_path: Path) -> None:
    page, text = view(dataset, tmp_path / "page.html", samples=12, quarantined=5)
    counts = load_manifest(dataset)["counts"]
    assert page.counts["kept"] == counts["kept"] and page.counts["seen"] == counts["seen"]
    assert sum(page.counts.values()) == 2 * counts["seen"]
    assert {name: page.counts[name] for name in counts["rejected"]} == counts["rejected"]
    assert "the rows add up" in text and "Something is broken" not in text
    for label, count in counts["labels"].items():
        assert re.search(rf'<tr data-bin="{label}"><td>{label}</td><td>{count}\b', text)
    assert Counter(card["data-state"] for card in page.cards) == {"kept": 12, "quarantined": 5}
    kept = Counter(card["data-label"] for card in page.cards if card["data-state"] == "kept")
    assert set(kept) == set(counts["labels"]) and max(kept.values()) - min(kept.values()) <= 1
    lines = [json.loads(line) for line in (dataset / QUARANTINE_FILE).read_text().splitlines()]
    shown = [line for line in lines if f"{line['id']}," in text]
    assert len(shown) == 5
    for line in shown:
        verdict = line["verdict"]
        assert f"quarantined: {verdict['reason']}" in text
        assert f"measured {verdict['measured']['lateral']} / {verdict['measured']['longitudinal']}" in text
    assert "Turn left &lt;now&gt;." in text and "<now>" not in text


def test_every_card_has_a_picture_and_is_found_by_the_filters(dataset: Path, tmp_path: Path) -> None:
    page, text = view(dataset, tmp_path / "page.html", samples=6, quarantined=2)
    flat = re.findall(r'<image href="data:image/jpeg;base64,([^"]+)"', text)
    assert len(page.images) == len(flat) == len(page.cards) == text.count('<svg class="above"') == 8
    for data in [source.partition("base64,")[2] for source in page.images] + flat:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) is not None
    choices = set(page.filters)
    for card in page.cards:
        assert all((group, card[f"data-{group}"]) in choices for group in ("label", "split", "state"))
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:image/jpeg;base64,)""", text)
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "http" not in bare and "url(" not in bare and "@import" not in bare and "fetch(" not in bare


def test_the_same_seed_draws_the_same_cards(dataset: Path, tmp_path: Path) -> None:
    pages = [view(dataset, tmp_path / "p.html", samples=3, seed=seed)[0].images for seed in (1, 1, 2)]
    assert pages[0] == pages[1] != pages[2]


def test_a_mirrored_future_is_drawn_mirrored(dataset: Path, tmp_path: Path) -> None:
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    (mirrored / "images").symlink_to(dataset / "images")
    lines = [json.loads(line) for line in (dataset / METADATA_FILE).read_text().splitlines()]
    bent = [line for line in lines if line["curve"]["label"] == "left"][:1]
    ends = []
    for sign in (1.0, -1.0):
        line = bent[0] | {"future": [[x, sign * y, sign * yaw] for x, y, yaw in bent[0]["future"]]}
        (mirrored / METADATA_FILE).write_text(json.dumps(line))
        page, text = view(mirrored, tmp_path / "p.html")
        assert len(page.cards) == 1
        borders = re.findall(r'<polyline points="([^"]+)" fill="none" stroke="(#[0-9a-f]+)" stroke-width="1.6"', text)
        ends.append(
            {
                colour: float(points.split()[-1].split(",")[0]) - float(points.split()[0].split(",")[0])
                for points, colour in borders
            }
        )
    assert all(moved < -5.0 for moved in ends[0].values()) and all(moved > 5.0 for moved in ends[1].values())
    # Mirrored, the left border runs as the right one did.
    assert ends[0]["#2979ff"] == pytest.approx(-ends[1]["#ff1744"], abs=0.2)


def test_broken_lines_missing_and_undecodable_images_are_counted_and_shown(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    lines = (copy / METADATA_FILE).read_text().splitlines()
    names = [json.loads(line)["file_name"] for line in lines]
    lines[3] = lines[3][:100]
    lines[5] = json.dumps(json.loads(lines[5]) | {"speed_mps": "fast"})
    (copy / names[0]).unlink()
    (copy / names[1]).write_bytes(b"no picture")
    (copy / names[2]).write_bytes(b"")
    raw = "\n".join(lines).encode() + b"\n\xff\xfe\n"
    (copy / METADATA_FILE).write_bytes(raw)
    page, text = view(copy, tmp_path / "page.html", samples=400, quarantined=100)
    assert len(page.cards) == len(lines) - 2 + len((copy / QUARANTINE_FILE).read_text().splitlines())
    assert len(page.images) == len(page.cards) - 3 == len(page.cards) - text.count("frame cannot be read")
    for words in (
        "3 broken lines",
        "1 samples whose image is missing",
        "3 of the cards below without a readable",
        "line 4",
        "line 6, field speed_mps",
        f"the manifest counts {len(lines)} kept, {len(lines) - 2} lines",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    "manifest",
    [None, "{", '{"schema_version": 1}', '{"schema_version": 1, "counts": {"kept": "x", "rejected": 3}, "bags": [1]}'],
)
def test_an_odd_manifest_costs_its_table_only(dataset: Path, tmp_path: Path, manifest: str | None) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "images").symlink_to(dataset / "images")
    shutil.copy(dataset / METADATA_FILE, copy)
    if manifest is not None:
        (copy / "manifest.json").write_text(manifest)
    page, text = view(copy, tmp_path / "page.html", samples=2)
    assert len(page.cards) == len(page.images) == 2
    assert ("manifest.json" in text) == (manifest is None or not manifest.startswith('{"'))


def test_the_report_shows_the_same_cards(dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = write_report(ReportConfig(tmp_path, dataset=dataset)).read_text("utf-8")
    page = Page(text)
    assert len(page.cards) == len(page.images) == 8
    assert {card["data-label"] for card in page.cards} == set(load_manifest(dataset)["counts"]["labels"])
    assert "No dataset here" not in text and "do not add up" not in text and "&lt;article" not in text


def test_an_empty_dataset_and_none_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MonoError, match=r"no metadata\.jsonl"):
        main([str(tmp_path)])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / METADATA_FILE).write_text("")
    assert main([str(tmp_path / "set")]) == 0
    page = tmp_path / "set-view.html"  # beside the folder: the folder's hash stays
    assert str(page) in capsys.readouterr().out and "No sample to show" in page.read_text()
    with pytest.raises(MonoError, match="together 1 to"):
        ViewConfig(tmp_path, samples=500, quarantined=1)


def test_pictures_shrink_until_they_fit(dataset: Path, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    (noisy / "images").mkdir(parents=True)
    sample = next(read_samples(dataset))
    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    cv2.imwrite(str(noisy / sample.file_name), noise)
    sizes = [len(gallery_item(sample, noisy, cameras_of({}), most).image) for most in (10**6, 50_000, 25_000)]
    assert sizes[0] > 4 * 50_000 / 3 > sizes[1] > sizes[2] and sizes[2] < 4 * 25_000 / 3
    # By default 168 cards, each as large as it may be, with their texts and drawings.
    assert 4 * PICTURE_BYTES / 3 + 168 * 12_000 < 15e6


def test_the_draw_is_even_over_the_strata_and_over_the_stream() -> None:
    stream = [("straight", n) for n in range(2000)] + [("left", n) for n in range(5)] + [("s", n) for n in range(300)]
    random.Random(1).shuffle(stream)
    pick: StratifiedPick[tuple[str, int]] = StratifiedPick(45, seed=4)
    for name, number in stream:
        pick.add(name, (name, number))
    chosen = pick.picked()
    assert Counter(name for name, _ in chosen) == {"straight": 20, "left": 5, "s": 20}
    assert [name for name, _ in chosen[:6]] == ["straight", "left", "s"] * 2
    assert len(set(chosen)) == 45 and pick.picked() == chosen
    places = [stream.index(item) for item in chosen if item[0] == "straight"]
    assert places == sorted(places) and places[9] < 1600 and places[10] > 700
    means = []
    for seed in range(60):
        again: StratifiedPick[int] = StratifiedPick(10, seed)
        for number in range(500):
            again.add("x", number)
        means.append(np.mean(again.picked()))
    assert np.mean(means) == pytest.approx(249.5, abs=25.0)  # 4 standard errors


def test_counts_that_do_not_add_up_are_called_out() -> None:
    good = {"counts": {"seen": 7, "kept": 4, "quarantined": 1, "rejected": {"teleport": 2}}}
    assert count_rows(good)["adds_up"]
    assert not count_rows({"counts": good["counts"] | {"seen": 8}})["adds_up"]


def test_memory_does_not_grow_with_the_dataset(dataset: Path, tmp_path: Path) -> None:
    lines = (dataset / METADATA_FILE).read_text().splitlines()
    peaks = []
    for name, count in (("warm", 50), ("short", 200), ("long", 2000)):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / METADATA_FILE).open("w") as file:
            for number in range(count):
                file.write(lines[number % len(lines)] + "\n")
        tracemalloc.start()
        found = dataset_statistics(folder, samples=20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.kept.lines, found.kept.missing, len(found.picked)) == (count, count, 20)
    assert peaks[2] < 1.2 * peaks[1]
