"""The cores there are, workers on them, and what torch must be told before its import: how threads wait."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, MutableMapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

# Reading a bag feeds no more workers than this; further ones would wait.
_MOST_WORKERS = 8
# glibc's names for what mallopt sets, and how much freed memory stays with the process.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BYTES = 64 << 20, 32 << 20


def share_cores() -> None:
    """Let idle OpenMP threads spin briefly and then sleep; call before torch is imported.

    Threads that spin for long hold the core that the thread they wait for needs: beside one other busy process on two
    cores, a finetuning step took 14 s instead of 1.3 s. Threads that sleep at once are woken thousands of times a
    step: on two quiet cores that made 15.4 samples/s of 19.0. On a card, segments that grow keep what is reserved near
    what is used. A person's own settings of these stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def plan_in_one_thread(environment: MutableMapping[str, str]) -> None:
    """Let the process that plans compute in one thread, where nobody has said otherwise; before torch is imported.

    Beside a driver and a simulator on two cores, two threads wait for each other for longer than they compute: a plan
    of the tiny model took 155 ms instead of 81, and alone no less than in one. A card computes by itself.
    """
    environment.setdefault("OMP_NUM_THREADS", "1")


def core_count() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
