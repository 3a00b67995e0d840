"""Errors a person can act on, and the one way to import something optional."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

_MOST_SHOWN = 1500  # characters of each part of a message: names in files may be of any length
# Characters that a terminal would obey, that turn the direction of reading, or that no encoding has.
_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
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


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say (MonoError) which extra of this package brings it, e.g. ``"gpu"``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # An installed module may fail on one of its own imports: name the one that is really missing.
        found = f"the Python module {error.name or module!r} cannot be imported ({error})"
        expected = f"the packages of the extra [{extra}]"
        raise MonoError(found, expected, f"pip install 'alpamayo_mono[{extra}]'") from error
