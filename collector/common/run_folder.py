"""Run folders that explain themselves, and configurations that refuse what they do not know.

A run folder holds ``config.yaml`` (every setting as used), ``provenance.json`` (commit, versions, hashes of the
inputs) and, at its end, ``metrics.json``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import math
import platform
import re
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from collector.common.arguments import FALSE_WORDS, TRUE_WORDS, arguments_of, nearest_name
from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT, check_paths, empty_path, with_homes, write_atomically
from collector.common.output_folder import PROVENANCE_FILE
from collector.common.text_files import read_yaml

Config = TypeVar("Config")
_PACKAGES = ("alpamayo_mono", "numpy", "opencv-python-headless", "rosbags", "torch", "transformers", "peft", "rclpy")
# Up to here a file in an input folder is hashed by all its bytes, beyond by its size and its two ends.
_SMALL_BYTES, _END_BYTES = 16 * 1024 * 1024, 1024 * 1024
_ASSIGNMENT = re.compile(r"([A-Za-z][\w.-]*):=(.*)", re.DOTALL)


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


def command_line(cls: type[Config], argv: Sequence[str] | None, prog: str) -> Config:
    """Parse a command's words into its dataclass with tyro; ``--config FILE`` gives defaults that the words override.

    ``--name value``, ``--name=value`` and ``name:=value`` mean the same, and so do underscores and dashes; of a bool
    also ``--name`` and ``--no-name``.

    Raises:
        MonoError: a wrong word or value, or a file that cannot be read or does not fit.
    """
    import tyro

    words = _as_flags(cls, sys.argv[1:] if argv is None else argv, prog)
    given: dict[str, Any] = {}
    for index, word in enumerate(words):
        name, equals, file = word.partition("=")
        if name == "--config":
            if not equals and index + 1 >= len(words):
                raise MonoError("--config without a file", "--config FILE.yaml", "name the file")
            given["default"] = _with_defaults(cls, file or words[index + 1], tyro.MISSING)
            del words[index : index + (1 if equals else 2)]
            break
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config: Config = tyro.cli(cls, args=words, prog=prog, **given)
    except SystemExit as end:
        if not end.code:
            raise
        raise _one_sentence(cls, said.getvalue(), prog) from None
    config = with_homes(config)
    check_paths(config)
    return config


def check_keys(cls: type, values: Mapping[str, Any], source: Path | str, prefix: str = "") -> None:
    """Refuse a key that is no field of the dataclass (MonoError with the nearest one); nested mappings too."""
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    for key, value in values.items():
        if key not in fields:
            near = nearest_name(str(key), fields)
            found, do = f"{source} has the unknown key {prefix + str(key)!r}", near.replace("'", f"'{prefix}", 1)
            raise MonoError(found, f"a setting of {cls.__name__}", do or "remove it")
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            check_keys(hints[key], value, source, f"{prefix}{key}.")


def _with_defaults(cls: type[Config], file: str, missing: object) -> Config:
    """The dataclass with the file's values as tyro's defaults; what neither has is ``missing`` and must be typed."""
    from pydantic import TypeAdapter, ValidationError

    values = read_yaml(file)
    check_keys(cls, values, file)
    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = object.__new__(cls)  # not constructed: the checks of the whole come when the words are known
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in values:
            try:
                given = values[field.name]
                if typing.get_origin(hints[field.name]) is tuple and type(given) in (int, float):
                    given = [given]  # one number, as some settings were before they took several
                # As JSON, strict takes lists for tuples and texts for paths, and nothing else for something else.
                text = json.dumps(given, default=str)
                value = TypeAdapter(hints[field.name]).validate_json(text, strict=True)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False)[0]
                inner = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
                found, expected = f"{file}: {field.name}{inner} = {first['input']!r}", first["msg"].replace("'", "")
                raise MonoError(found, expected.removeprefix("Input should be "), "correct the value") from error
            if text == '""' and value == Path():
                raise empty_path(f"{file}: {field.name}")
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = missing if field.default is dataclasses.MISSING else field.default
        object.__setattr__(defaults, field.name, value)
    return defaults


def _names(cls: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Name and type of every setting, nested ones as ``outer.inner``; by its flag where that is named otherwise."""
    hints, annotated = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        yield prefix + field.name, kind
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _names(kind, f"{prefix}{field.name}.")
        for named in getattr(annotated[field.name], "__metadata__", ()):
            for other in (getattr(named, "name", None), *(getattr(named, "aliases", None) or ())):
                if other:
                    yield other.lstrip("-").replace("-", "_"), kind


def _bool_flag(name: str, text: str) -> str:
    """The flag that says so (MonoError: neither true nor false)."""
    if text.lower() not in TRUE_WORDS + FALSE_WORDS:
        raise MonoError(f"--{name} {text}", "true or false, a value of type bool", f"write {name}:=true")
    parent, dot, last = name.rpartition(".")
    return f"--{parent}{dot}{'no_' if text.lower() in FALSE_WORDS else ''}{last}"


def _as_flags(cls: type, argv: Sequence[str], prog: str) -> list[str]:
    """Words in the spelling that tyro reads: ``name:=value`` as ``--name=value``, true and false without a value."""
    kinds = dict(_names(cls))
    words, flags = list(argv), []
    holder: object = Path  # of a word: what comes before any flag is a path
    while words:
        word = words.pop(0)
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned:
            word = f"--{assigned[1]}={assigned[2]}"
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        known = name in kinds or re.sub(r"(^|\.)no_", r"\1", name) in kinds or name in ("", "help", "config")
        if word.startswith("--") and not known and not name.startswith("tyro_"):
            verb, help_of = prog.rpartition(" ")[2], f"see the names with: {prog} --help"
            raise MonoError(f"{verb} has no argument {name!r}", nearest_name(name, kinds), help_of)
        if word.startswith("-"):
            holder = kinds.get(name.lstrip("_"))
        if not (text if equals and word.startswith("-") else word) and "Path" in str(holder):
            raise empty_path(f"--{name}" if equals else "a path")
        if word.startswith("--") and kinds.get(name) is bool:
            if not equals and words and words[0].lower() in TRUE_WORDS + FALSE_WORDS:
                equals, text = "=", words.pop(0)
            word = _bool_flag(name, text if equals else TRUE_WORDS[0])
        kind = kinds.get(name) if word.startswith("--") else None
        if typing.get_origin(kind) is tuple and {int, float} & set(typing.get_args(kind)):
            # Numbers may stand in one word, as in 0,0.15,0.6.
            if not equals and words and not words[0].startswith("--"):
                equals, text = "=", words.pop(0)
            flags += [f"--{name}", *(text.split(",") if equals else ())]
            continue
        flags.append(word)
    return flags


def _one_sentence(cls: type, box: str, prog: str) -> MonoError:
    """What tyro says in a box, in a sentence with the nearest name."""
    # A title, perhaps a rule, the message, and from the next rule on the help of the argument.
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines()[1:]]
    parts = re.split(r"[-─]{8,}", " ".join(line for line in lines if line))
    message = next((part.strip() for part in parts if part.strip()), "wrong words").removeprefix("Error parsing ")
    help_of = f"see the names with: {prog} --help"
    unknown = re.match(r"Unrecognized options: (.+?)(, |$)", message)
    if unknown:
        return MonoError(f"the word {unknown[1]!r}", "name:=value or --name value", help_of)
    flag = re.search(r"--([\w.-]+)", message)
    for each in arguments_of(cls) if flag else ():
        if flag and each.name == flag[1].replace("-", "_"):
            return each.refusal(message.partition(". ")[0])
    return MonoError(message, "", help_of)
