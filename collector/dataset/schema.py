"""The dataset folder: one definition of a sample, reading it, writing it.

A folder holds ``metadata.jsonl`` (a line per sample; Hugging Face's imagefolder convention), ``images/``,
``quarantine.jsonl`` (what was refused for its text, with the reason) and ``manifest.json``. It appears as a whole when
a build has finished; a folder without a manifest is unfinished, and nothing trains on it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from typing_extensions import Self

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.output_folder import OutputFolder, named
from collector.common.replacement import UNFINISHED, Replacement, settle
from collector.common.text_files import MOST_LINE_BYTES, read_json
from collector.dataset.sample import AnySample, Curve, QuarantinedSample, Sample, Split, TextClaim, written

# Whoever reads a dataset finds what a sample is made of here too.
__all__ = ["AnySample", "Curve", "QuarantinedSample", "Sample", "Split", "TextClaim"]

SCHEMA_VERSION = 1
METADATA_FILE = "metadata.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
MANIFEST_FILE = "manifest.json"
IMAGE_FOLDER = "images"
OWN_NAMES = (METADATA_FILE, QUARANTINE_FILE, MANIFEST_FILE, IMAGE_FOLDER)
_MADE_BY = "alpamayo_mono"  # how `made_by` of a manifest of ours begins, in every version

# Hugging Face takes a file name with one of these words in it for a split of its own, and then loads the pictures
# without the metadata: a bag called "test" would cost all texts.
_SPLIT_WORD = re.compile(
    r"(?<![^-._ 0-9/])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![^-._ 0-9])"
)
_MARKED = r"\1~"
_IMAGE_NAME = re.compile(r".+_-?\d+\.jpg", re.DOTALL)


class SchemaError(MonoError):
    """A line of a dataset does not fit; the message names file, line and field."""


def parse_sample(line: str, file: Path | str, line_number: int, kind: type[AnySample]) -> AnySample:
    """One JSON line as a sample of a kind.

    Raises:
        SchemaError: the line is no JSON object, or a field is missing, unknown or of the wrong kind.
    """
    try:
        return kind.model_validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field, value = ".".join(map(str, first["loc"])) or "the line itself", repr(first.get("input"))
        value = value if len(value) <= 60 else value[:57] + "..."
        found = f"{file}, line {line_number}, field {field}: {first['msg']} (found {value})"
        expected = "a sample as collector.dataset.schema.Sample describes it"
        raise SchemaError(found, expected, "rebuild the dataset, or repair or remove this line") from error


def read_samples(folder: Path | str, split: Split | None = None) -> Iterator[Sample]:
    """Stream the samples of a dataset folder, or of one split, one line in memory at a time.

    Raises:
        MonoError: no ``metadata.jsonl`` there, or no manifest: a build, or a copy, that did not finish.
        SchemaError: a line does not fit; it names file, line and field.
    """
    file = Path(folder) / METADATA_FILE
    settle(Path(folder))
    if not file.is_file():
        do = "build one: alpamayo-mono build --help"
        raise MonoError(f"no {METADATA_FILE} in {Path(folder)}", "a dataset folder", do)
    load_manifest(folder)
    return stream_samples(file, split)


def stream_samples(file: Path, split: Split | None = None) -> Iterator[Sample]:
    """The samples of a file, or those of one split (SchemaError: a line does not fit)."""
    for sample in scan_samples(file, Sample):
        if isinstance(sample, SchemaError):
            raise sample
        if split is None or sample.split == split:
            yield sample


def scan_samples(file: Path, kind: type[AnySample]) -> Iterator[AnySample | SchemaError]:
    """Stream a file of samples, one line in memory at a time; a line that does not fit comes as its error."""
    with file.open("rb") as lines:
        number = 0
        while raw := lines.readline(MOST_LINE_BYTES):
            number += 1
            if not raw.strip():
                continue
            if len(raw) == MOST_LINE_BYTES and not raw.endswith(b"\n"):
                while (rest := lines.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                where = f"{file}, line {number}, field the line itself: more than {MOST_LINE_BYTES / 1e6:.3g} MB"
                yield SchemaError(where, "a sample of some kilobytes", "rebuild the dataset, or remove this line")
                continue
            try:
                found: AnySample | SchemaError = parse_sample(raw.decode("utf-8"), file, number, kind)
            except UnicodeDecodeError as error:
                where = f"{file}, line {number}, field the line itself: {error}"
                found = SchemaError(where, "UTF-8 text", "rebuild the dataset")
            except SchemaError as error:
                found = error
            yield found


def load_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of a finished dataset folder.

    Raises:
        MonoError: there is none (the build did not finish), or it is not JSON, or of a newer schema.
    """
    file = Path(folder) / MANIFEST_FILE
    settle(Path(folder))
    if not file.is_file():
        do = "build it again, into a new folder where this one is not empty"
        raise MonoError(f"no {MANIFEST_FILE} in {Path(folder)}", "a finished dataset folder", do)
    manifest = read_json(file, "build the dataset again")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        do = "build the dataset again with this version"
        raise MonoError(f"{file} has schema version {version!r}", f"version {SCHEMA_VERSION}", do)
    return manifest


class DatasetWriter:
    """Writes a dataset folder; use it as a context manager and end with :meth:`finish`.

    Until then all of it lies aside, and then it takes its place in one step: whenever a build fails, is interrupted or
    killed, the folder holds what it held before, or the whole new dataset. One process at a time writes to a folder.

    The folder must be absent or empty, unless a dataset in it may be overwritten: only one of ours, and only what a
    dataset consists of.

    Raises:
        MonoError: the folder is not empty, is being written by another process, holds no dataset of ours to overwrite,
            or cannot be written, here and later.
    """

    def __init__(self, folder: Path | str, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._out = OutputFolder(folder)
        try:
            settle(self._out.path, is_held=True)
            self.replaces = _replaced(self._out, overwrite)  # names of the old dataset that go when this one is whole
            with self._writing():
                self._replacement = Replacement(self._out, OWN_NAMES)
                self._part = self._replacement.new
                (self._part / IMAGE_FOLDER).mkdir()
                self._metadata = (self._part / METADATA_FILE).open("w", encoding="utf-8")
                self._quarantine = (self._part / QUARANTINE_FILE).open("w", encoding="utf-8")
        except BaseException:
            self._out.close()
            raise

    def add_image(self, bag: str, stamp_ns: int, jpeg: bytes) -> str:
        """Store one camera frame once; returns its name relative to the folder."""
        name = image_name(bag, stamp_ns)
        path = self._part / name
        if not path.exists():
            with self._writing():
                path.write_bytes(jpeg)
        return name

    def write(self, sample: Sample) -> None:
        """Append a sample that may train."""
        with self._writing():
            self._metadata.write(written(sample) + "\n")

    def quarantine(self, sample: Sample, verdict: Mapping[str, Any]) -> None:
        """Append a refused sample: all its fields, and under ``verdict`` why."""
        line = json.loads(written(sample)) | {"verdict": dict(verdict)}
        with self._writing():
            self._quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")

    def written(self) -> Path:
        """The folder in which all written so far lies until :meth:`finish`, for a last pass over its lines."""
        with self._writing():
            self._metadata.flush()
            self._quarantine.flush()
        return self._part

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Put the dataset in its place, in one step."""
        text = json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=2, ensure_ascii=False, allow_nan=False)
        with self._writing():
            self._metadata.close()
            self._quarantine.close()
            write_atomically(self._part / MANIFEST_FILE, text + "\n")
            self._replacement.swap()

    def close(self) -> None:
        """Throw away what was not finished."""
        for lines in (self._metadata, self._quarantine):
            # On a full disk even closing fails.
            with suppress(OSError):
                lines.close()
        with suppress(OSError):
            self._replacement.discard()
        self._out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            found, do = f"{self.folder} cannot be written: {error}", "see to it, or choose another --out"
            raise MonoError(found, "room and the right to write", do) from error


def _replaced(out: OutputFolder, overwrite: bool) -> list[str]:
    """What a new dataset replaces, said aloud (MonoError: a folder in use that is no dataset of ours to overwrite)."""
    entries = [entry for entry in out.entries() if entry.name != UNFINISHED]
    if not entries:
        return []
    found, do = f"{out.path} is not empty: it holds {named(entries)}", "choose another --out"
    if not overwrite:
        raise MonoError(found, "an absent or empty folder", f"{do} or add --overwrite")
    replaced = [entry for entry in entries if entry.name in OWN_NAMES]
    if not replaced:
        return []
    try:
        made_by = str(load_manifest(out.path).get("made_by"))
    except MonoError as error:
        what = f"{named(replaced)} in {out.path} are of no dataset of ours: {error.found}"
        raise MonoError(what, "an absent or empty folder, or a dataset", do) from error
    if not made_by.startswith(_MADE_BY):
        raise MonoError(f"{out.path} holds a dataset made by {made_by}", f"one made by {_MADE_BY}", do)
    pictures = out.path / IMAGE_FOLDER
    inside = [] if pictures.is_symlink() or not pictures.is_dir() else sorted(pictures.iterdir())
    if strange := [entry for entry in inside if not _IMAGE_NAME.fullmatch(entry.name)]:
        expected = "nothing but pictures of the dataset"
        raise MonoError(f"{pictures} holds {named(strange)}", expected, f"move them away, or {do}")
    print(f"replacing, once the new one is whole: the dataset in {out.path} ({named(replaced)})", file=sys.stderr)
    return [entry.name for entry in replaced]


def image_name(bag: str, stamp_ns: int) -> str:
    """Where a camera frame lies, relative to the dataset folder."""
    return f"{IMAGE_FOLDER}/{_SPLIT_WORD.sub(_MARKED, bag)}_{stamp_ns}.jpg"
