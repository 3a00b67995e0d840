"""Paths that fail in every way a file system knows."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def _private(root: Path) -> Path:
    folder = root / "private"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0)
    return folder


def _loop(root: Path) -> Path:
    (root / "loop").symlink_to("pool")
    (root / "pool").symlink_to("loop")
    return root / "loop"


def _file(root: Path) -> Path:
    (root / "file").write_text("somebody's")
    return root / "file"


def _dangling(root: Path) -> Path:
    (root / "dangling").symlink_to(root / "nowhere" / "at" / "all")
    return root / "dangling"


def _socket(root: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "socket"))
    return root / "socket"


KINDS: dict[str, Callable[[Path], Path]] = {
    "loop": _loop,
    "through": lambda root: _loop(root) / "inner",
    "long": lambda root: root / ("あ" * 90),  # 270 bytes
    "deep": lambda root: root.joinpath(*["deep" * 20] * 60),  # over 4096 bytes in all
    "zero": lambda root: root / "zero\0byte",
    "behind": lambda root: _private(root) / "inner",
    "private": _private,
    "below": lambda root: _file(root) / "inner",
    "file": _file,
    "dangling": _dangling,
    "device": lambda _: Path("/dev/null"),
    "socket": _socket,
}


@contextmanager
def broken_path(kind: str) -> Iterator[Path]:
    """One broken path, in a folder that everybody may enter (pytest's own keeps others out)."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o777)
    try:
        yield KINDS[kind](root)
    finally:
        if (root / "private").exists():
            (root / "private").chmod(0o700)
        shutil.rmtree(root)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Look at files as somebody without rights: for root no folder is private."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
