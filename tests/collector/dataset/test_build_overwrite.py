"""Building over a dataset: only over one of ours, all of it or nothing, and never over what the build reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset, main
from collector.dataset.config import BuildConfig
from collector.dataset.schema import read_samples
from tests.helpers.other_process import held_elsewhere
from tests.helpers.synthetic_bag import drive_course, write_bag

Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("overwrite") / "bag", drive_course())


@pytest.fixture(scope="module")
def built(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("overwrite") / "set"
    build(bag, out)
    return out


def build(bag: Path, out: Path, stride: int = 15, overwrite: bool = False, **settings: object) -> None:
    config = BuildConfig((bag,), out, stride=stride, val_fraction=0.0, overwrite=overwrite, **settings)  # type: ignore[arg-type]
    build_dataset(config, show_progress=False)


def contents(folder: Path) -> Contents:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def photographs(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "wedding.jpg").write_text("a picture")


def web_page(folder: Path) -> None:
    photographs(folder)
    (folder / "manifest.json").write_text('{"name": "my app", "icons": []}')


def of_another_program(folder: Path) -> None:
    photographs(folder)
    (folder / "manifest.json").write_text('{"schema_version": 1, "made_by": "their tool"}')
    (folder / "metadata.jsonl").write_text("")


def of_a_newer_version(folder: Path) -> None:
    photographs(folder)
    (folder / "manifest.json").write_text('{"schema_version": 99, "made_by": "alpamayo_mono x"}')


def torn_manifest(folder: Path) -> None:
    photographs(folder)
    (folder / "manifest.json").write_text('{"schema_version": 1, "made')


def lone_lines(folder: Path) -> None:
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("of somebody\n")


def model_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "quarantine.jsonl").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "make",
    [photographs, web_page, of_another_program, of_a_newer_version, torn_manifest, lone_lines, model_folder],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_build_made_stays(make: Callable[[Path], None], overwrite: bool, bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    before = contents(out)
    with pytest.raises(MonoError, match="choose another --out"):
        build(bag, out, overwrite=overwrite)
    assert contents(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_picture_put_among_ours_stays(bag: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / "images" / "wedding.jpg").write_text("a picture")
    before = contents(out)
    with pytest.raises(MonoError, match=r"holds wedding\.jpg"):
        build(bag, out, overwrite=True)
    assert contents(out) == before


def test_what_the_build_reads_is_not_overwritten(bag: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    shutil.copytree(bag, out / "bag")
    before = contents(out)
    for name in ("quarantine.jsonl", "metadata.jsonl"):
        with pytest.raises(MonoError, match="would be overwritten"):
            build(bag, out, overwrite=True, reasoning=out / name)
        assert contents(out) == before
    build(out / "bag", out, overwrite=True, stride=20)  # beside the dataset it is in nobody's way
    assert (out / "bag" / "metadata.yaml").is_file() and len(list(read_samples(out))) < len(list(read_samples(built)))


def test_nothing_replaces_a_good_dataset(bag: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    with pytest.raises(MonoError, match=r"none of the .* became a sample .* the dataset that was there stays"):
        build(bag, out, overwrite=True, min_speed_mps=99.0)
    assert contents(out) == contents(built)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_second_build_is_refused_and_what_goes_is_named(
    bag: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    with held_elsewhere(out) as pid, pytest.raises(MonoError, match=f"written by process {pid}"):
        build(bag, out, overwrite=True)
    assert contents(out) == contents(built)
    assert main(["--bags", str(bag), "--out", str(out), "--stride", "15", "--val-fraction", "0", "--overwrite"]) == 0
    said = capsys.readouterr().err
    assert f"the dataset in {out} (images, manifest.json, metadata.jsonl, quarantine.jsonl)" in said
    now, then = contents(out), contents(built)
    for facts in (now, then):
        manifest = json.loads(facts.pop("manifest.json"))
        manifest.pop("commit")
        facts["manifest"] = json.dumps(manifest).encode()
    assert now == then


def test_a_dataset_is_built_behind_a_link(bag: Path, built: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "disk" / "set")
    for overwrite in (False, True):
        build(bag, out, overwrite=overwrite)
        assert out.is_symlink() and contents(tmp_path / "disk" / "set").keys() == contents(built).keys()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["set"]
