"""The settings of a command as one frozen dataclass, told to everyone who offers them.

Flags, YAML keys, ROS parameters and launch arguments are all read off the fields: name, type, default, choices (a
``Literal``), range and help. Standard library only, so that a node runs where neither tyro nor pydantic is installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from collector.common.errors import MonoError

Value = bool | int | float | str
Default = TypeVar("Default", bound=Value)

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

    ``text`` is one sentence with the unit and the meaning of zero or empty.
    """
    limits = _limits(minimum, maximum)
    metadata = {"help": f"{text} ({limits})" if limits else text, "range": (minimum, maximum)}
    return dataclasses.field(default=default, metadata=metadata)


def _limits(minimum: float, maximum: float) -> str:
    if math.isfinite(maximum):
        return f"{minimum:.7g} to {maximum:.10g}"
    return f"at least {minimum:g}" if math.isfinite(minimum) else ""


@dataclass(frozen=True)
class Argument:
    """One field made with :func:`argument`; ``choices`` are the allowed texts, empty for any."""

    name: str
    type: type[Value]
    default: Value
    help: str
    choices: tuple[str, ...]
    minimum: float
    maximum: float

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

    def fitted(self, value: object) -> Value:
        """The value in the type of the field; a whole number serves as a float.

        Raises:
            MonoError: of another type, not one of the choices, or out of range.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        # Compared exactly: for isinstance a bool would also be an int.
        fits = type(value) is self.type and (not self.choices or value in self.choices)
        if isinstance(value, (int, float)):
            fits = fits and math.isfinite(value) and self.minimum <= value <= self.maximum
        if not fits or not isinstance(value, (bool, int, float, str)):
            raise MonoError(f"{self.name}:={value!r}", self.expected, self.text)
        return value


def arguments_of(cls: type) -> tuple[Argument, ...]:
    """The fields of a settings dataclass, in their order."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if "range" in field.metadata and isinstance(field.default, (bool, int, float, str)):
            hint = hints[field.name]
            choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
            kind, (low, high) = type(field.default), field.metadata["range"]
            found.append(Argument(field.name, kind, field.default, field.metadata["help"], choices, low, high))
    return tuple(found)


@dataclass(frozen=True)
class Arguments:
    """Base of settings dataclasses whose fields are made with :func:`argument`: each value is checked."""

    def __post_init__(self) -> None:
        for each in arguments_of(type(self)):
            object.__setattr__(self, each.name, each.fitted(getattr(self, each.name)))


def nearest_name(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: its new name, the nearest known one, or nothing."""
    names = sorted(known)
    for old, new in _RENAMED.items():
        if old in name and name.replace(old, new) in names:
            return f"{name.replace(old, new)!r}, as {name!r} is called since version 0.2"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"perhaps {near[0]!r}" if near else ""
