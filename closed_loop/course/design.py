"""Courses by the names people write: one list of who makes them.

A new kind of course is a function that returns a :class:`Course` and a line in :data:`COURSES`; a new kind of file
is a reader in :data:`closed_loop.course.files.READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from closed_loop.course.city import city_course
from closed_loop.course.course import MIRROR, Course
from closed_loop.course.files import READERS, read_course
from closed_loop.course.random import random_course
from collector.common.errors import MonoError

# How a name is written (an expression for the whole of it) -> who makes the course from the parts in brackets.
COURSES: Mapping[str, Callable[..., Course]] = {
    "city": city_course,
    r"random:([0-9]+)": lambda seed: random_course(int(seed)),
}


def course_named(spec: str) -> Course:
    """The course a person asked for.

    Args:
        spec: ``city``, ``city-mirror``, ``random:SEED`` (also ``random:SEED-mirror``), or the path of a
            raceline CSV, MPC CSV, centreline CSV, lane-boundary CSV or Lanelet2 ``.osm``.

    Raises:
        MonoError: neither a known name nor an existing file, or a file that cannot be read as a course.
    """
    name = spec.removesuffix(MIRROR)
    for written, make in COURSES.items():
        if parts := re.fullmatch(written, name):
            course = make(*parts.groups())
            return course.mirrored() if name != spec else course
    if Path(spec).is_file():
        return read_course(Path(spec))
    raise MonoError(
        f"course {spec!r}",
        f"city, city-mirror, random:SEED (a whole number), or an existing {' or '.join(READERS)} file",
        "check the spelling or the path",
    )
