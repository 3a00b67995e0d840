"""Run folders that explain themselves, and configurations that refuse what they do not know.

A run folder holds ``config.yaml`` (every setting as used), ``provenance.json`` (commit, versions, hashes of the
inputs) and, at its end, ``metrics.json``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT, write_atomically

Config = TypeVar("Config")
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


def open_run(folder: Path | str, config: Any, inputs: Iterable[Path | str] = ()) -> RunFolder:
    """Make a run folder and write what it ran with.

    Args:
        folder: may exist; ``config.yaml`` and ``provenance.json`` are replaced.
        config: a dataclass.
        inputs: files and folders whose hashes are recorded; one that is absent is recorded as such.

    Raises:
        MonoError: the folder cannot be made.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MonoError(f"the run folder {place} cannot be made: {error}", "a writable place", "use --out") from error
    write_atomically(place / "config.yaml", yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
    write_atomically(place / "provenance.json", json.dumps(provenance(inputs), indent=2) + "\n")
    return RunFolder(place)


def provenance(inputs: Iterable[Path | str] = ()) -> dict[str, Any]:
    """Commit, versions, command line and input hashes as plain data. Imports none of the packages it names."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
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
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

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
        digest.update(f"{file.relative_to(place).as_posix()}\0{size}\0".encode())
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


def plain(value: Any) -> Any:
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


def load_config(cls: type[Config], path: Path | str | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """A frozen dataclass from a YAML file and overrides (which win); nested dataclasses from nested mappings.

    Raises:
        MonoError: unreadable YAML; a key the dataclass does not have (with the nearest it has); a value of the wrong
            kind; a value missing.
    """
    values = read_yaml(path) if path is not None else {}
    return _construct(cls, _merged(values, overrides or {}), str(path or "the given values"), "")


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        MonoError: absent, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MonoError(f"{path} cannot be read: {error}", "a YAML file", "check the path and the text") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MonoError(f"{path} holds a {type(values).__name__}", "a mapping of settings", "write `key: value` lines")
    return values


def command_line(cls: type[Config], argv: Sequence[str] | None, prog: str) -> Config:
    """Parse a command's words into its dataclass with tyro; ``--config FILE`` gives defaults that flags override.

    Raises:
        MonoError: from the file, as :func:`load_config`. Wrong flags end the process with tyro's explanation.
    """
    import tyro

    words = list(sys.argv[1:] if argv is None else argv)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--config":
            continue
        if not equals and index + 1 >= len(words):
            raise MonoError("--config without a file", "--config FILE.yaml", "name the file")
        file = value if equals else words[index + 1]
        rest = words[:index] + words[index + (1 if equals else 2) :]
        values = read_yaml(file)
        _check_keys(cls, values, file, "")
        words = _as_flags(values, "") + rest
        break
    return tyro.cli(cls, args=words, prog=prog)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _check_keys(cls: Any, values: Mapping[str, Any], source: str, prefix: str) -> None:
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), sorted(fields), n=1, cutoff=0.0)
            raise MonoError(
                f"{source} has the unknown key {prefix + str(key)!r}",
                f"a setting of {cls.__name__}",
                f"perhaps {prefix + near[0]!r}" if near else "remove it",
            )
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            _check_keys(hints[key], value, source, f"{prefix}{key}.")


def _as_flags(values: Mapping[str, Any], prefix: str) -> list[str]:
    flags: list[str] = []
    for key, value in values.items():
        name = prefix + str(key).replace("_", "-")
        if isinstance(value, Mapping):
            flags += _as_flags(value, name + ".")
        elif isinstance(value, bool):
            parent, _, last = name.rpartition(".")
            flags.append(f"--{name}" if value else f"--{parent + '.' if parent else ''}no-{last}")
        elif isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        else:
            flags += [f"--{name}", str(value)]
    return flags


def _construct(cls: Any, values: Mapping[str, Any], source: str, prefix: str) -> Any:
    _check_keys(cls, values, source, prefix)
    hints = typing.get_type_hints(cls)
    arguments = {}
    for field in dataclasses.fields(cls):
        if field.name in values:
            arguments[field.name] = _fitted(hints[field.name], values[field.name], source, prefix + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and field.init:
            raise MonoError(f"{source} lacks {prefix + field.name!r}", f"a setting of {cls.__name__}", "add it")
    return cls(**arguments)


def _fitted(kind: Any, value: Any, source: str, name: str) -> Any:
    """``value`` as the annotated kind, without silent conversions other than int to float and list to tuple."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    wrong = MonoError(f"{source}: {name} = {value!r}", str(getattr(kind, "__name__", kind)), "correct the value")
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise wrong
        return _construct(kind, value, source, name + ".")
    if origin is typing.Annotated:
        return _fitted(parts[0], value, source, name)
    if origin is typing.Literal:
        if value not in parts:
            raise MonoError(f"{source}: {name} = {value!r}", " or ".join(map(str, parts)), "choose one of these")
        return value
    if origin is typing.Union or type(kind).__name__ == "UnionType":
        for part in parts:
            try:
                return _fitted(part, value, source, name)
            except MonoError:
                continue
        raise wrong
    if origin in (tuple, list, Sequence):
        if not isinstance(value, (list, tuple)):
            raise wrong
        kinds = parts if origin is tuple and not (len(parts) == 2 and parts[1] is Ellipsis) else parts[:1] * len(value)
        if len(kinds) != len(value):
            raise wrong
        items = [_fitted(part, item, source, f"{name}[{n}]") for n, (part, item) in enumerate(zip(kinds, value))]
        return items if origin is list else tuple(items)
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind is type(None) and value is None:
        return None
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise wrong
