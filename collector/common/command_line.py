"""The words of a command, or the keys of its YAML file, read into the frozen dataclass that is its settings.

The one parser of every verb. Standard library and YAML only, since the verbs of the nodes run on machines that have no
more. The help is the docstring of the dataclass and, of each field, the text of :func:`argument` or the comment beside
or above it.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from collector.common.arguments import FALSE_WORDS, TRUE_WORDS, nearest_name
from collector.common.errors import MonoError
from collector.common.files import check_paths, empty_path, with_home, with_homes
from collector.common.settings import Setting, help_page, settings_of, unfit
from collector.common.text_files import read_yaml

Config = TypeVar("Config")
_MISSING = dataclasses.MISSING
_ASSIGNMENT = re.compile(r"([A-Za-z][\w.-]*):=(.*)", re.DOTALL)
_FLAG = re.compile(r"-(?!\d|\.\d|inf|nan|$)", re.IGNORECASE)  # a dash that is no negative number's


def command_line(cls: type[Config], argv: Sequence[str] | None, prog: str) -> Config:
    """Parse a command's words into its dataclass; ``--config FILE`` gives defaults that the words override.

    ``--name value``, ``--name=value`` and ``name:=value`` mean the same, and so do underscores and dashes; of a bool
    also ``--name`` and ``--no-name``. ``--help`` prints the help and leaves by SystemExit.

    Raises:
        MonoError: a wrong word or value, or a file that cannot be read or does not fit.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    settings = list(settings_of(cls))
    given = _Words(settings, prog)
    given.read(words)
    if given.wants_help:
        print(help_page(cls, settings, prog), flush=True)
        raise SystemExit(0)
    values = {each.key: each.default for each in settings if each.default is not _MISSING}
    if given.file:
        tree = read_yaml(with_home(given.file))
        check_keys(cls, tree, given.file)
        values |= _of_file(cls, tree, given.file, settings)
    values |= given.values
    if missing := [each for each in settings if each.key not in values]:
        names = ", ".join(each.spelling if not each.flag.is_positional else each.key.upper() for each in missing)
        raise MonoError(f"Missing: {names}", "a value", f"see {prog} --help")
    config = with_homes(_made(cls, values))
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


def _of_file(
    cls: type, tree: Mapping[str, Any], file: str, settings: Sequence[Setting], prefix: str = ""
) -> dict[str, object]:
    known, hints, values = {each.key: each for each in settings}, typing.get_type_hints(cls), {}
    for name, value in tree.items():
        key = prefix + name
        if key in known:
            values[key] = known[key].from_file(value, f"{file}: {key}")
        elif isinstance(value, Mapping):
            values |= _of_file(hints[name], value, file, settings, f"{key}.")
        else:
            raise unfit(value, f"{file}: {key}", "settings of its own, by their names")
    return values


def _made(cls: type[Config], values: Mapping[str, object], prefix: str = "") -> Config:
    hints = typing.get_type_hints(cls)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        key, hint = prefix + field.name, hints[field.name]
        is_inner = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        made[field.name] = _made(hint, values, f"{key}.") if is_inner else values[key]
    return cls(**made)


class _Words:
    """What the words of a command line say."""

    def __init__(self, settings: Sequence[Setting], prog: str) -> None:
        self.values: dict[str, object] = {}
        self.file = ""
        self.wants_help = False
        self._settings, self._prog = settings, prog
        self._names = {each.key: each for each in settings}
        for each in settings:
            for name in (each.flag.name, *each.flag.aliases):
                self._names |= {name.lstrip("-").replace("-", "_"): each} if name else {}

    def read(self, words: list[str]) -> None:
        """Take the words one after the other (MonoError: one that fits nowhere)."""
        loose: list[str] = []
        while words and not self.wants_help:
            word = words.pop(0)
            name, text = self._split(word)
            if not word:
                raise empty_path("a path")
            if not name:
                loose.append(word)
            elif name in ("h", "help"):
                self.wants_help = True
            elif name == "config" and "config" not in self._names:
                self.file = text if text is not None else self._next(words)
                if not self.file:
                    raise MonoError("--config without a file", "--config FILE.yaml", "name the file")
            else:
                self._take(name, text, words, word)
        positional = [each for each in self._settings if each.flag.is_positional]
        for each in positional if loose else ():
            taken = [loose.pop(0) for _ in range(len(loose) if each.is_many else min(1, len(loose)))]
            texts = [each.from_text(text) for text in taken]
            self.values |= {each.key: tuple(texts) if each.is_many else texts[0]} if texts else {}
        if loose and not self.wants_help:
            raise MonoError(f"the word {loose[0]!r}", "name:=value or --name value", self._help)

    @property
    def _help(self) -> str:
        return f"see the names with: {self._prog} --help"

    def _split(self, word: str) -> tuple[str, str | None]:
        """Name and value of ``name:=value`` or ``--name=value``, the name alone of a flag; nothing of another word."""
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned:
            return assigned[1].replace("-", "_"), assigned[2]
        if not _FLAG.match(word):
            return "", None
        name, equals, text = word.partition("=")
        return name.lstrip("-").replace("-", "_"), text if equals else None

    def _is_value(self, word: str) -> bool:
        return not self._split(word)[0]

    def _next(self, words: list[str]) -> str:
        return words.pop(0) if words and self._is_value(words[0]) else ""

    def _take(self, name: str, text: str | None, words: list[str], word: str) -> None:
        """Note the value of a flag, of the words behind it where it stands alone."""
        plain = re.sub(r"(^|\.)no_", r"\1", name)
        each = self._names.get(name) or self._names.get(plain)
        if each is None or (name not in self._names and each.kind is not bool):
            self._refuse(name, word)
        if each.is_many:
            texts = [text] if text is not None else []
            while text is None and words and self._is_value(words[0]):
                texts.append(words.pop(0))
            if each.is_numbers:
                texts = [part for item in texts for part in item.split(",")]
            self.values[each.key] = tuple(each.from_text(item) for item in texts)
        elif each.kind is bool and name not in self._names:
            if text is not None:
                raise MonoError(f"the word {word!r}", f"--{name} alone, or {plain}:=false", self._help)
            self.values[each.key] = False
        elif each.kind is bool and text is None:
            is_said = words and words[0].lower() in TRUE_WORDS + FALSE_WORDS
            self.values[each.key] = each.from_text(words.pop(0) if is_said else TRUE_WORDS[0])
        elif text is None and not (words and self._is_value(words[0])):
            found = f"Missing value for argument '{each.spelling}'"
            raise each.argument.refusal(found) if each.argument else MonoError(found, "", self._help)
        else:
            self.values[each.key] = each.from_text(words.pop(0) if text is None else text)

    def _refuse(self, name: str, word: str) -> NoReturn:
        if not word.startswith("--") and not _ASSIGNMENT.fullmatch(word):
            raise MonoError(f"the word {word!r}", "name:=value or --name value", self._help)
        verb = self._prog.rpartition(" ")[2]
        raise MonoError(f"{verb} has no argument {name!r}", nearest_name(name, self._names), self._help)
