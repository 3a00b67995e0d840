"""The settings of a command as one frozen dataclass, told to everyone who offers them.

Flags, YAML keys, ROS parameters and launch arguments are all read off the fields: name, type, default, choices (a
``Literal``), range and help. Standard library only, so that a node runs where nothing else is installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from collector.common.errors import MonoError

Value = bool | int | float | str
Setting = Value | tuple[Value, ...] | None
Default = TypeVar("Default", bound=Setting)
MOST_SEED = 2**31 - 1  # what every generator takes
TRUE_WORDS, FALSE_WORDS = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
_LARGEST_WHOLE = 1 << 1000  # beyond it a whole number is no float

# Words of version 0.1 in names of settings, and what they are called since.
_RENAMED = {
    "teacher": "expert",
    "perturbation": "disturbance",
    "thoughts": "reasoning",
    "thought": "reasoning",
    "conditions": "variants",
    "condition": "variant",
}


def argument(default: Default, text: str, minimum: float = -math.inf, maximum: float = math.inf) -> Default:
    """A field of a settings dataclass; numbers from ``minimum`` to ``maximum`` are allowed, both included.

    Every number of a command has both. ``text`` is one sentence with the unit and the meaning of zero or empty. A
    ``default`` of None means that None is allowed; of a tuple each item is held to the limits.
    """
    limits = _limits(minimum, maximum)
    metadata = {"help": f"{text} ({limits})" if limits else text, "range": (minimum, maximum)}
    return dataclasses.field(default=default, metadata=metadata)


def same_as(cls: type, name: str) -> Any:  # noqa: ANN401 - of the type of that field
    """A field with default, help and range of another settings dataclass's field of this name."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclass(frozen=True)
class Flag:
    """How a command line spells a field, as a mark of its type: ``Annotated[Path, Flag(aliases=("-o",))]``."""

    name: str = ""  # in place of the field's own
    aliases: tuple[str, ...] = ()  # with their dashes
    is_positional: bool = False  # given as a word without a flag


PLAIN = Flag()
POSITIONAL = Flag(is_positional=True)
OUT = Flag(aliases=("-o",))  # of the place where a command writes


def _limits(minimum: float, maximum: float) -> str:
    if math.isfinite(maximum):
        return f"{minimum:.7g} to {maximum:.10g}"
    return f"at least {minimum:g}" if math.isfinite(minimum) else ""


@dataclass(frozen=True)
class Argument:
    """One field made with :func:`argument`; ``choices`` are the allowed texts, empty for any."""

    name: str
    type: type[Value]
    default: Setting
    help: str
    choices: tuple[str, ...]
    minimum: float
    maximum: float
    length: int = 0  # of a tuple; 0 for any

    @property
    def default_text(self) -> str:
        """The default as YAML spells it (true and false in lower case)."""
        return str(self.default).lower() if self.type is bool else str(self.default)

    @property
    def expected(self) -> str:
        """What a value must be, in a few words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return f"a value of type {self.type.__name__}" + (f", {self.limits}" if self.limits else "")

    @property
    def text(self) -> str:
        """The help without the range."""
        return self.help.removesuffix(f" ({self.limits})")

    @property
    def limits(self) -> str:
        """The range in words, empty for none."""
        return _limits(self.minimum, self.maximum)

    def refusal(self, found: str) -> MonoError:
        """What to raise for a value that does not fit."""
        return MonoError(found, self.expected, f"set {self.name}: {self.text}")

    def from_text(self, text: str) -> Setting:
        """The value that a text spells, as a launch argument does (MonoError: no such value)."""
        value: object = text
        if self.type is bool:
            value = True if text.lower() in TRUE_WORDS else False if text.lower() in FALSE_WORDS else text
        elif self.type in (int, float) and is_number(text):
            with suppress(ValueError):
                value = self.type(text)
        return self.fitted(value)

    def fitted(self, value: object) -> Setting:
        """The value in the type of the field; a whole number serves as a float.

        Raises:
            MonoError: of another type, not one of the choices, or out of range.
        """
        if value is None and self.default is None:
            return None
        if isinstance(self.default, tuple) and not self.length and type(value) in (int, float):
            value = (value,)  # a setting that was one number in an older file
        if isinstance(self.default, tuple) and isinstance(value, (tuple, list)):
            if len(value) != (self.length or len(value)):
                raise self.refusal(f"{self.name}:={value!r} with {len(value)} values instead of {self.length}")
            return tuple(self._fitted_item(item) for item in value)
        return self._fitted_item(value)

    def _fitted_item(self, value: object) -> Value:
        if self.type is float and type(value) is int:
            value = float(value) if abs(value) <= _LARGEST_WHOLE else math.inf
        # Compared exactly: for isinstance a bool would also be an int.
        fits = type(value) is self.type and (not self.choices or value in self.choices)
        if isinstance(value, (int, float)):
            fits = fits and self.minimum <= value <= self.maximum and (isinstance(value, int) or math.isfinite(value))
        if not fits or not isinstance(value, (bool, int, float, str)):
            raise self.refusal(f"{self.name}:={value!r}")
        return value


_KNOWN: dict[type, tuple[Argument, ...]] = {}  # settings are made often, and resolving their types takes a while


def arguments_of(cls: type) -> tuple[Argument, ...]:
    """The fields of a settings dataclass made with :func:`argument`, in their order."""
    if cls not in _KNOWN:
        hints = typing.get_type_hints(cls)
        _KNOWN[cls] = tuple(
            _argument_of(field, hints[field.name]) for field in dataclasses.fields(cls) if "range" in field.metadata
        )
    return _KNOWN[cls]


def _argument_of(field: dataclasses.Field[Any], hint: object) -> Argument:
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    # Of `float | None` and `tuple[int, ...]` the number's type.
    kinds = [] if choices else [kind for kind in typing.get_args(hint) if kind in (int, float)]
    kind: type[Any] = kinds[0] if kinds else type(field.default)
    minimum, maximum = field.metadata["range"]
    length = 0 if ... in typing.get_args(hint) or not isinstance(field.default, tuple) else len(field.default)
    return Argument(field.name, kind, field.default, field.metadata["help"], choices, minimum, maximum, length)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Arguments:
    """Base of settings dataclasses: each value of a field made with :func:`argument` is checked.

    A subclass with checks of its own (``__post_init__``) calls this one first.
    """

    def __post_init__(self) -> None:
        for each in arguments_of(type(self)):
            object.__setattr__(self, each.name, each.fitted(getattr(self, each.name)))


def is_number(text: str) -> bool:
    """Whether a text may be a number for a person, too: Python also takes 1_000 and the digits of every script."""
    return text.isascii() and "_" not in text


def nearest_name(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: its new name, the nearest known one, or nothing."""
    names = sorted(known)
    for old, new in _RENAMED.items():
        if old in name and name.replace(old, new) in names:
            return f"{name.replace(old, new)!r}, as {name!r} is called since version 0.2"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"perhaps {near[0]!r}" if near else ""
