"""Worker threads that compress frames beside the thread that reads the bag."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from collector.common.cpu import core_count

# Reading feeds no more than this; further workers would wait.
_MOST_WORKERS = 8
# glibc's names for what mallopt sets, and how much freed memory stays with the process.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BYTES = 64 << 20, 32 << 20


def default_workers() -> int:
    """The cores this process may use, at most what reading can feed."""
    return min(core_count(), _MOST_WORKERS)


@contextmanager
def compressing(workers: int) -> Iterator[Executor | None]:
    """A pool of threads (OpenCV releases the interpreter while it compresses); None for a single worker.

    What has not begun when the block is left by an error is never done.
    """
    if workers == 1:
        yield None
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jpeg")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def keep_freed_memory() -> None:
    """Let the allocator keep the memory of one frame for the next.

    glibc hands blocks of several megabytes back to the system at once and faults them in again page by page: measured
    at 1920x1080, that made reading poses past raw images ten times as dear. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
