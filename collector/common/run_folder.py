"""Run folders that explain themselves.

A run folder holds ``config.yaml`` (every setting as used), ``provenance.json`` (commit, versions, hashes of the
inputs) and, at its end, ``metrics.json``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT, write_atomically
from collector.common.output_folder import PROVENANCE_FILE

_PACKAGES = ("alpamayo_mono", "numpy", "opencv-python-headless", "rosbags", "torch", "transformers", "peft", "rclpy")
# Up to here a file in an input folder is hashed by all its bytes, beyond by its size and its two ends.
_SMALL_BYTES, _END_BYTES = 16 * 1024 * 1024, 1024 * 1024


@dataclass(frozen=True)
class RunFolder:
    """A run folder opened by :func:`open_run`."""

    folder: Path

    def write_metrics(self, metrics: Mapping[str, Any]) -> Path:
        """Write ``metrics.json`` (in one step; NaN and infinity become null); returns its path."""
        path = self.folder / "metrics.json"
        write_atomically(path, json.dumps(plain(metrics), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return path


def open_run(folder: Path | str, config: object, inputs: Iterable[Path | str] = (), verb: str = "") -> RunFolder:
    """Make a run folder, which may exist, and write what ran with what: a verb, a dataclass, and hashes of ``inputs``.

    Raises:
        MonoError: the folder cannot be made.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        # First of all: it tells whose the folder is.
        write_atomically(place / PROVENANCE_FILE, json.dumps({"verb": verb, **provenance(inputs)}, indent=2) + "\n")
        write_atomically(place / "config.yaml", yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
    except OSError as error:
        found = f"the run folder {place} cannot be made: {error}"
        raise MonoError(found, "a writable place", "name another folder with --out") from error
    return RunFolder(place)


def provenance(inputs: Iterable[Path | str] = ()) -> dict[str, Any]:
    """Commit, versions, command line and input hashes as plain data. Imports none of the packages it names."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "command": sys.argv,
        "inputs": {str(path): hash_path(path) for path in inputs},
    }


def git_commit() -> str | None:
    """Commit of this source tree, with ``+changes`` when it has any; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        command = ["git", *words]  # the git that the user calls
        return subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL, text=True, timeout=20).strip()

    try:
        commit = git("rev-parse", "HEAD")
        # An installed copy may lie inside somebody else's repository.
        if not git("ls-files", Path(__file__).name):
            return None
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hash_path(path: Path | str) -> str | None:
    """SHA-256 of a file, or of a folder; None if absent.

    Of a folder: names, sizes and bytes of its files, of large ones only the first and last MiB (where bags and weights
    keep their index), because recordings and weights would take minutes.
    """
    place = Path(path)
    if place.is_file():
        return _hash_file(place)
    if not place.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(entry for entry in place.rglob("*") if entry.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(place).as_posix()}\0{size}\0".encode(errors="surrogateescape"))
        if size <= _SMALL_BYTES:
            digest.update(_hash_file(file).encode())
            continue
        with file.open("rb") as stream:
            digest.update(stream.read(_END_BYTES))
            stream.seek(-_END_BYTES, 2)
            digest.update(stream.read())
    return digest.hexdigest()


def hash_sources(root: Path = PROJECT_ROOT, packages: Sequence[str] = ("collector", "finetune", "closed_loop")) -> str:
    """SHA-256 over the Python files of the product: other code, other hash; documentation does not count."""
    digest = hashlib.sha256()
    for file in sorted(file for package in packages for file in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0{_hash_file(file)}\0".encode())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def plain(value: object) -> Any:  # noqa: ANN401, PLR0911 - what comes out is JSON, a return per kind
    """Dataclasses, paths, tuples and numpy numbers as what YAML and JSON know; non-finite numbers as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
