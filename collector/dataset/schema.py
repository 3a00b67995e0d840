"""The dataset folder: one definition of a sample, reading it, writing it.

A folder holds ``metadata.jsonl`` (a line per sample; Hugging Face's imagefolder convention), ``images/``,
``quarantine.jsonl`` (what was refused for its text, with the reason) and ``manifest.json``. It appears as a whole when
a build has finished; a folder without a manifest is unfinished.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.geometry.constants import FRAME_STEPS, FUTURE_STEPS, HISTORY_STEPS, STEP_S
from collector.geometry.curvature import PathLabel
from collector.reasoning.claims import LateralClaim, LongitudinalClaim

SCHEMA_VERSION = 1
METADATA_FILE = "metadata.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
MANIFEST_FILE = "manifest.json"
IMAGE_FOLDER = "images"
_PART_FOLDER = ".unfinished"

# Hugging Face takes a file name with one of these words in it for a split of its own, and then loads the pictures
# without the metadata: a bag called "test" would cost all texts.
_SPLIT_WORD = re.compile(
    r"(?<![^-._ 0-9/])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![^-._ 0-9])"
)
_MARKED = r"\1~"

Finite = Annotated[float, Field(allow_inf_nan=False)]
PoseRow = tuple[Finite, Finite, Finite]
Split = Literal["train", "val"]


class SchemaError(MonoError):
    """A line of a dataset does not fit; the message names file, line and field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Curve(_Strict):
    """The curve label of the reasoning's window (:class:`collector.geometry.curvature.CurveLabel`).

    A straight path has in ``entry_m`` the length driven in the window, before which no curve begins: Hugging Face
    learns the type of a column from the first lines, and many straights in a row would teach it "always null". (A
    null, from older datasets, is read.)
    """

    label: PathLabel
    max_abs_curvature_1pm: Finite
    entry_m: Finite | None
    turn_rad: Finite


class TextClaim(_Strict):
    """What the reasoning claims (:class:`collector.reasoning.claims.Claim`)."""

    lateral: LateralClaim
    longitudinal: LongitudinalClaim


class Sample(_Strict):
    """One line of ``metadata.jsonl``; poses are in the ego frame at t0, metres and radians."""

    file_name: str = Field(min_length=1)  # the front frame at t0, relative to the dataset folder
    # the last four front frames at 10 Hz, oldest first; the last one is `file_name`
    frames: Annotated[tuple[str, ...], Field(min_length=FRAME_STEPS, max_length=FRAME_STEPS)]
    id: str = Field(min_length=1)  # unique within the dataset
    bag: str  # name of the recording
    lap: int  # lap count at t0, 0 where not recorded
    stamp_ns: int  # header stamp of the frame at t0; t0 is earlier by the lag of the manifest's calibration
    reasoning: str  # the reasoning
    # 16 poses [x, y, yaw] at t0-1.5 s ... t0, the last one the origin.
    history: Annotated[tuple[PoseRow, ...], Field(min_length=HISTORY_STEPS, max_length=HISTORY_STEPS)]
    # 64 poses at t0+0.1 ... t0+6.4 s.
    future: Annotated[tuple[PoseRow, ...], Field(min_length=FUTURE_STEPS, max_length=FUTURE_STEPS)]
    dt_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = STEP_S  # time between poses
    speed_mps: Finite  # wheel speed at t0 where recorded, else from the poses
    curve: Curve  # label of the path within the reasoning's window
    claim: TextClaim  # what the reasoning claims
    split: Split = "train"  # train or val

    def history_array(self) -> NDArray[np.float64]:
        """The history as (16, 3)."""
        return np.array(self.history, np.float64)

    def future_array(self) -> NDArray[np.float64]:
        """The future as (64, 3)."""
        return np.array(self.future, np.float64)


class QuarantinedSample(Sample):
    """One line of ``quarantine.jsonl``: a sample, and under ``verdict`` why it must not train."""

    verdict: dict[str, Any]


AnySample = TypeVar("AnySample", bound=Sample)


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
        MonoError: no ``metadata.jsonl`` there.
        SchemaError: a line does not fit; it names file, line and field.
    """
    file = Path(folder) / METADATA_FILE
    if not file.is_file():
        do = "build one: alpamayo-mono build --help"
        raise MonoError(f"no {METADATA_FILE} in {Path(folder)}", "a dataset folder", do)

    def stream() -> Iterator[Sample]:
        for sample in scan_samples(file, Sample):
            if isinstance(sample, SchemaError):
                raise sample
            if split is None or sample.split == split:
                yield sample

    return stream()


def scan_samples(file: Path, kind: type[AnySample]) -> Iterator[AnySample | SchemaError]:
    """Stream a file of samples, one line in memory at a time; a line that does not fit comes as its error."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
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
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        do = "build it again with --overwrite"
        raise MonoError(f"no {MANIFEST_FILE} in {Path(folder)}", "a finished dataset folder", do) from error
    except (ValueError, OSError) as error:
        raise MonoError(f"{file} cannot be read: {error}", "JSON", "build the dataset again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or version != SCHEMA_VERSION:
        do = "build the dataset again with this version"
        raise MonoError(f"{file} has schema version {version!r}", f"version {SCHEMA_VERSION}", do)
    return manifest


class DatasetWriter:
    """Writes a dataset folder; use it as a context manager and end with :meth:`finish`.

    Until then everything lies in a hidden folder inside: a build that fails or is interrupted leaves what was there
    before, and one that is killed leaves that hidden folder, which the next one empties.

    The folder must be absent or empty, unless a dataset in it may be overwritten (only what a dataset consists of).

    Raises:
        MonoError: the folder is not empty or cannot be written, here and later.
    """

    def __init__(self, folder: Path | str, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._part = self.folder / _PART_FOLDER
        if self.folder.exists() and not self.folder.is_dir():
            raise MonoError(f"{self.folder} is a file", "a folder to write to", "choose another --out")
        self._is_new = not self.folder.exists()
        if not overwrite and not self._is_new and any(entry != self._part for entry in self.folder.iterdir()):
            do = "choose another --out or add --overwrite"
            raise MonoError(f"{self.folder} is not empty", "an absent or empty folder", do)
        with self._writing():
            if self._part.exists():
                shutil.rmtree(self._part)
            (self._part / IMAGE_FOLDER).mkdir(parents=True)
            self._metadata = (self._part / METADATA_FILE).open("w", encoding="utf-8")
            self._quarantine = (self._part / QUARANTINE_FILE).open("w", encoding="utf-8")

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
            self._metadata.write(sample.model_dump_json() + "\n")

    def quarantine(self, sample: Sample, verdict: Mapping[str, Any]) -> None:
        """Append a refused sample: all its fields, and under ``verdict`` why."""
        line = sample.model_dump(mode="json") | {"verdict": dict(verdict)}
        with self._writing():
            self._quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")

    def written(self) -> Path:
        """The folder in which all written so far lies until :meth:`finish`, for a last pass over its lines."""
        with self._writing():
            self._metadata.flush()
            self._quarantine.flush()
        return self._part

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Put the dataset in its place, in a few renames; the manifest goes first and comes last."""
        text = json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=2, ensure_ascii=False, allow_nan=False)
        with self._writing():
            self._metadata.close()
            self._quarantine.close()
            write_atomically(self._part / MANIFEST_FILE, text + "\n")
            (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
            if (self.folder / IMAGE_FOLDER).exists():
                (self.folder / IMAGE_FOLDER).rename(self._part / "replaced")
            for name in (IMAGE_FOLDER, QUARANTINE_FILE, METADATA_FILE, MANIFEST_FILE):
                (self._part / name).replace(self.folder / name)
            shutil.rmtree(self._part)

    def close(self) -> None:
        """Throw away what was not finished."""
        for lines in (self._metadata, self._quarantine):
            # On a full disk even closing fails.
            with suppress(OSError):
                lines.close()
        shutil.rmtree(self._part, ignore_errors=True)
        if self._is_new:
            # Refuses unless it is empty.
            with suppress(OSError):
                self.folder.rmdir()

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


def image_name(bag: str, stamp_ns: int) -> str:
    """Where a camera frame lies, relative to the dataset folder."""
    return f"{IMAGE_FOLDER}/{_SPLIT_WORD.sub(_MARKED, bag)}_{stamp_ns}.jpg"
