"""The settings of a command one by one: what each takes from a word or from a file, and the help made of them."""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import inspect
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.common.arguments import FALSE_WORDS, PLAIN, TRUE_WORDS, Argument, Flag, arguments_of, is_number
from collector.common.errors import MonoError
from collector.common.files import empty_path

_MISSING = dataclasses.MISSING
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
_MOST_COLUMNS = 100


@dataclass(frozen=True)
class Setting:
    """One value that a command takes; of a dataclass within the settings each field is one, as ``outer.inner``."""

    key: str
    kind: type[Any]  # bool, int, float, str or Path
    default: object  # MISSING where a value must be given
    choices: tuple[str, ...] = ()
    is_many: bool = False  # a tuple of such values
    is_optional: bool = False  # None is a value too
    flag: Flag = PLAIN
    argument: Argument | None = None  # with its limits, where it was made with one
    owner: type = object  # the dataclass that declares it
    group: str = ""  # the field that holds the owner, empty for the settings themselves

    @property
    def is_numbers(self) -> bool:
        """Whether several numbers may stand in one word, as in 0,0.15,0.6."""
        return self.is_many and self.kind in (int, float)

    @property
    def spelling(self) -> str:
        """The flag, as a message names it."""
        return f"--{self.flag.name or self.key}"

    def from_text(self, text: str) -> object:
        """The value that a word says (MonoError: it says none)."""
        if self.is_optional and text == "None":
            return None
        if self.kind is Path and not text:
            raise empty_path(self.spelling)
        if self.kind is bool and text.lower() not in TRUE_WORDS + FALSE_WORDS:
            raise MonoError(f"{self.spelling} {text}", "true or false, a value of type bool", f"write {self.key}:=true")
        if self.kind in (int, float) and not is_number(text):
            raise self._refusal(text)
        try:
            value = text.lower() in TRUE_WORDS if self.kind is bool else self.kind(text)
        except ValueError:
            raise self._refusal(text) from None
        if self.choices and value not in self.choices:
            raise self._refusal(text)
        return value

    def from_file(self, value: object, place: str) -> object:
        """The value that a file gives in YAML's types; ``place`` is what a message calls it."""
        if value is None and self.is_optional:
            return None
        if self.is_many:
            if self.is_numbers and type(value) in (int, float):
                value = [value]  # one number, as some settings were before they took several
            if not isinstance(value, list):
                raise unfit(value, place, "a list")
            return tuple(self._item(item, f"{place}[{k}]") for k, item in enumerate(value))
        return self._item(value, place)

    def _item(self, value: object, place: str) -> object:
        if self.kind in (str, Path) and isinstance(value, dt.date):
            value = str(value)  # YAML takes some names for dates
        if self.kind is float and type(value) is int:
            return value  # whoever has limits makes it a float of a size that fits
        expected = " or ".join(self.choices) or _KINDS[self.kind]
        # Compared exactly: for isinstance a bool would also be an int.
        if type(value) is not (str if self.kind is Path else self.kind) or (self.choices and value not in self.choices):
            raise unfit(value, place, expected)
        if self.kind is Path:
            if not value:
                raise empty_path(place)
            return Path(str(value))
        return value

    def _refusal(self, text: str) -> MonoError:
        if self.argument:
            return self.argument.refusal(f"{self.spelling} {text}")
        expected = "one of " + ", ".join(self.choices) if self.choices else f"a value of type {self.kind.__name__}"
        return MonoError(f"{self.spelling} {text}", expected, f"set {self.key}")


def unfit(value: object, place: str, expected: str) -> MonoError:
    """What to raise for a value of a file that does not fit."""
    return MonoError(f"{place} = {value!r}", expected, "correct the value")


def settings_of(cls: type, prefix: str = "", defaults: object = None) -> Iterator[Setting]:
    """Every setting of a dataclass in order, those of dataclasses within it in their place."""
    hints, limited = typing.get_type_hints(cls, include_extras=True), {each.name: each for each in arguments_of(cls)}
    for field in dataclasses.fields(cls):
        hint, default = hints[field.name], field.default
        if defaults is not None:
            default = getattr(defaults, field.name)
        elif field.default_factory is not _MISSING:
            default = field.default_factory()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{prefix}{field.name}.", None if default is _MISSING else default)
            continue
        flag = PLAIN
        if typing.get_origin(hint) is typing.Annotated:
            hint, *marks = typing.get_args(hint)
            flag = next((mark for mark in marks if isinstance(mark, Flag)), flag)
        is_optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
        if is_optional:
            hint = next(each for each in typing.get_args(hint) if each is not type(None))
        is_many = typing.get_origin(hint) is tuple
        if is_many:
            hint = typing.get_args(hint)[0]
        if is_many and flag.is_positional and default is _MISSING:
            default = ()  # whoever needs one says so in its own words
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        kind = str if choices else hint
        argument = limited.get(field.name)
        key, group = prefix + field.name, prefix.rstrip(".")
        yield Setting(key, kind, default, choices, is_many, is_optional, flag, argument, cls, group)


def help_page(cls: type, settings: Sequence[Setting], prog: str) -> str:
    """What ``--help`` prints."""
    columns = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)

    def wrapped(text: str, indent: str = "") -> list[str]:
        return textwrap.wrap(
            text,
            columns,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    words = [_metavar(each, each.key.upper()) for each in settings if each.flag.is_positional]
    lines = [" ".join(["usage:", prog, "[OPTIONS]", *words])]
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        lines += ["", *wrapped(" ".join(paragraph.split()))]
    group = None
    for each in settings:
        if each.group != group:
            group = each.group
            lines += ["", f"{group} options:" if group else "options:"]
            if group:
                holder = next(other.owner for other in settings if other.group == group.rpartition(".")[0])
                lines += wrapped(_comments(holder).get(group.rpartition(".")[2], ""), "  ")
            else:
                lines += ["  -h, --help", "      show this help message and exit"]
                lines += ["  --config FILE.yaml", "      the same settings from a file; flags override it"]
        text = each.argument.help if each.argument else _comments(each.owner).get(each.key.rpartition(".")[2], "")
        default = "required" if each.default is _MISSING else f"default: {_shown(each.default)}"
        lines += [f"  {_flags(each)}", *wrapped(f"{text} ({default})", "      ")]
    return "\n".join(lines)


def _flags(each: Setting) -> str:
    if each.flag.is_positional:
        return _metavar(each, each.key.upper())
    parent, dot, last = each.key.rpartition(".")
    spelled = f"--{parent}{dot}{each.flag.name or last}".replace("_", "-")
    if each.kind is bool:
        return f"{spelled}, --{parent}{dot}no-{last}".replace("_", "-")
    names = ", ".join([*each.flag.aliases, spelled])
    return f"{names} {_metavar(each, each.kind.__name__.upper())}"


def _metavar(each: Setting, name: str) -> str:
    name = "{" + ",".join(each.choices) + "}" if each.choices else name
    return f"[{name} ...]" if each.is_many else f"{{None}}|{name}" if each.is_optional else name


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "''" if value == "" else str(value)


def _comments(cls: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, or else the one above it."""
    found: dict[str, str] = {}
    for base in reversed([each for each in cls.__mro__ if dataclasses.is_dataclass(each)]):
        lines = textwrap.dedent(inspect.getsource(base)).splitlines()
        tree = ast.parse("\n".join(lines)).body[0]
        for node in tree.body if isinstance(tree, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                beside = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset or 0 :].decode().strip()
                above = lines[: node.lineno - 1]
                start = len(above)
                while start and above[start - 1].strip().startswith("#"):
                    start -= 1
                text = [beside] if beside.startswith("#") else above[start:]
                found[node.target.id] = " ".join(line.strip().lstrip("#").strip() for line in text)
    return found
