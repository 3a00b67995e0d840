"""Errors a person can act on, and the one way to import something optional."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from types import ModuleType

_MOST_SHOWN = 1500  # characters of each part of a message: names in files may be of any length
# Characters that a terminal would obey, that turn the direction of reading, or that no encoding has.
_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ROOT = Path(__file__).resolve().parents[2]
EXIT_USAGE = 2  # of a command, after a sentence that says what the user can mend


class MonoError(Exception):
    """Something a user gave us does not fit; the message says what to do about it.

    Args:
        found: what was there, with its name or path.
        expected: what should have been there.
        do: the next step for the person reading it.
    """

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        self.found, self.expected, self.do = shown(found), shown(expected), shown(do)
        parts = [self.found.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected: {self.expected.rstrip('.')}.")
        if do:
            parts.append(f"Do: {self.do.rstrip('.')}.")
        super().__init__(" ".join(parts))

    def __reduce__(self) -> tuple[type[MonoError], tuple[str, str, str]]:
        """From one process to another: the sentence, whatever a subclass was made of."""
        return MonoError, (self.found, self.expected, self.do)


def shown(text: str) -> str:
    """A text as a terminal may show it, control characters written out; of a long one the two ends."""
    half = _MOST_SHOWN // 2
    text = _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"


def require(module: str, extra: str = "") -> ModuleType:
    """Import an optional module, or say (MonoError) how to install it: alone, or with an extra of this package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # An installed module may fail on one of its own imports: name the one that is really missing.
        missing = error.name or module
        found = f"the Python module {missing!r} cannot be imported ({error})"
        raise MonoError(found, _expected(extra), pip_install(extra, missing)) from error


def _expected(extra: str) -> str:
    return f"the packages of the extra [{extra}]" if extra else ""


def pip_install(extra: str, module: str = "") -> str:
    """The command that installs an extra's packages, or of an empty one what ``module`` comes with.

    This project is on no package index. From a checkout its folder is named; a wheel and a colcon workspace know what
    is asked for, and not where they came from.
    """
    asked = _requirements(extra)
    if not extra:
        name = module.partition(".")[0]
        return f"pip install '{next((each for each in asked if each.startswith(name)), name)}'"
    if (_ROOT / "setup.py").is_file():
        return f"pip install '{_ROOT}[{extra}]'"
    return " ".join(["pip install", *(f"'{each}'" for each in asked)]) if asked else f"pip install '.[{extra}]'"


def _requirements(extra: str) -> list[str]:
    """What the installed package asks for, without an extra or for this one."""
    try:
        asked = importlib.metadata.requires("alpamayo_mono") or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for requirement, _, marker in (each.partition(";") for each in asked):
        named = re.search(r"extra == ['\"]([\w-]+)", marker)
        found += [requirement.strip()] if (named[1] if named else "") == extra else []
    return found


def install_ros() -> str:
    """What to do where rclpy or a message package is missing."""
    return f"source /opt/ros/<distribution>/setup.bash and your workspace, or without any ROS: {pip_install('ros')}"
