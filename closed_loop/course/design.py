"""Courses by the names people write: made by us, or read from a file, with what a person says about it behind its name.

A new kind of course is a function that returns a :class:`Course` and a line in :data:`COURSES`; a new kind of file is a
reader and a line in ``READERS`` of :mod:`closed_loop.course.files`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from closed_loop.course.city import city_course
from closed_loop.course.course import MIRROR, Course
from closed_loop.course.files import READERS, UNITS, WIDEST_M, Reading, read_course
from closed_loop.course.random import random_course
from collector.common.errors import MonoError
from collector.common.files import with_home

# How people are told to write a name -> an expression for the whole of it, and who makes the course from the parts in
# brackets.
COURSES: Mapping[str, tuple[str, Callable[..., Course]]] = {
    "city": ("city", city_course),
    "random:SEED (a whole number)": (r"random:([0-9]+)", lambda seed: random_course(int(seed))),
}


# What may stand behind a file, each after a colon: how it is written, its pattern, and what it says of the reading.
OPTIONS: Mapping[str, tuple[str, Callable[[str], Mapping[str, Any]]]] = {
    "closed": ("closed", lambda _: {"closed": True}),
    "open": ("open", lambda _: {"closed": False}),
    "backward": ("backward", lambda _: {"backward": True}),
    "lap=N": (r"lap=([0-9]{1,6})", lambda text: {"lap": int(text)}),
    "half_width=METRES": (r"half_width=([0-9]+\.?[0-9]*)", lambda text: {"half_width_m": float(text)}),
    "unit=mm (or cm)": ("unit=(" + "|".join(UNITS) + ")", lambda text: {"unit_m": UNITS[text]}),
    "lanes=ID+ID": (r"lanes=([^+:]+(?:\+[^+:]+)*)", lambda text: {"lanes": tuple(text.split("+"))}),
}


def listed_courses(text: str) -> list[str]:
    """The names in a comma-separated list, each as :func:`course_named` takes it."""
    return [name.strip() for name in text.split(",") if name.strip()]


def course_named(spec: str) -> Course:
    """The course a person asked for: a name of :data:`COURSES`, also with ``-mirror`` behind it, or a file.

    Files are a raceline CSV, MPC CSV, centreline CSV, lane-boundary CSV or Lanelet2 ``.osm``, with any of
    :data:`OPTIONS` behind them: ``map.osm:lanes=14+9169``, ``line.csv:open:half_width=1.5``.

    Raises:
        MonoError: neither a known name nor an existing file, or a file that cannot be read as a course.
    """
    if known := _known(spec):
        make, parts = known
        course = make(*parts)
        return course.mirrored() if spec.endswith(MIRROR) else course
    return read_course(*_file(spec))


def check_named(spec: str) -> None:
    """Refuse what :func:`course_named` would, but for a file's content, without making the course.

    Raises:
        MonoError: neither a known name nor an existing file, or an option behind it that nobody knows.
    """
    if not _known(spec):
        _file(spec)


def course_file(spec: str) -> Path | None:
    """The file that a course is read from, None for one of :data:`COURSES` (MonoError: as :func:`check_named`)."""
    return None if _known(spec) else _file(spec)[0]


def _file(spec: str) -> tuple[Path, Reading]:
    """The file of a spec, and what is said behind it."""
    name, options = str(with_home(spec)) if spec.startswith("~") else spec, list[str]()
    while not _is_file(name) and ":" in name:
        name, _, option = name.rpartition(":")
        options.insert(0, option)
    if not _is_file(name):
        found = f"course {spec!r}"
        expected = f"{', '.join(COURSES)}, each also with {MIRROR}, or an existing {' or '.join(READERS)} file"
        raise MonoError(found, expected, "check the spelling or the path")
    said: dict[str, Any] = {}
    for option in options:
        parts = [(re.fullmatch(pattern, option), meaning) for pattern, meaning in OPTIONS.values()]
        meant = next((meaning(match[match.re.groups]) for match, meaning in parts if match), None)
        if meant is None or set(meant) & set(said) or not 0.0 < meant.get("half_width_m", 1.0) <= WIDEST_M:
            found, expected = f"{option!r} behind the course file {name}", f"each once: {', '.join(OPTIONS)}"
            raise MonoError(found, expected, "correct or remove it")
        said |= meant
    return Path(name), Reading(**said)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False


def _known(spec: str) -> tuple[Callable[..., Course], tuple[str, ...]] | None:
    for written, make in COURSES.values():
        if parts := re.fullmatch(written, spec.removesuffix(MIRROR)):
            return make, parts.groups()
    return None
