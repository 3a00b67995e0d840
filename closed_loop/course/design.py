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

# How people are told to write a name -> an expression for the whole of it, and who makes the course from the parts in
# brackets.
COURSES: Mapping[str, tuple[str, Callable[..., Course]]] = {
    "city": ("city", city_course),
    "random:SEED (a whole number)": (r"random:([0-9]+)", lambda seed: random_course(int(seed))),
}


def course_named(spec: str) -> Course:
    """The course a person asked for: a name of :data:`COURSES`, also with ``-mirror`` behind it, or a file.

    Files are a raceline CSV, MPC CSV, centreline CSV, lane-boundary CSV or Lanelet2 ``.osm``.

    Raises:
        MonoError: neither a known name nor an existing file, or a file that cannot be read as a course.
    """
    if known := _known(spec):
        make, parts = known
        course = make(*parts)
        return course.mirrored() if spec.endswith(MIRROR) else course
    check_named(spec)
    return read_course(Path(spec))


def check_named(spec: str) -> None:
    """Refuse what :func:`course_named` would, but for a file's content, without making the course.

    Raises:
        MonoError: neither a known name nor an existing file.
    """
    if not _known(spec) and not Path(spec).is_file():
        found = f"course {spec!r}"
        expected = f"{', '.join(COURSES)}, each also with {MIRROR}, or an existing {' or '.join(READERS)} file"
        raise MonoError(found, expected, "check the spelling or the path")


def _known(spec: str) -> tuple[Callable[..., Course], tuple[str, ...]] | None:
    for written, make in COURSES.values():
        if parts := re.fullmatch(written, spec.removesuffix(MIRROR)):
            return make, parts.groups()
    return None
