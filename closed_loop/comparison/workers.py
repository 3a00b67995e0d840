"""The runs of a comparison, driven side by side in processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from closed_loop.comparison.config import POLICY_OPTIONS, CompareConfig, Policies, settings_of
from closed_loop.comparison.runs import Driven, RunSettings, Variant, drive_run, run_key
from collector.common.cpu import core_count
from collector.common.errors import MonoError
from collector.common.run_folder import hash_path, hash_sources

# What may last longest is begun first, lest one worker is left alone with it at the end: four cameras cost most, and
# a base that is braked crawls, for how long nobody knows beforehand. One with an adapter drives its lap.
LONGEST_FIRST = ("control", "before", "after", "expert")


@dataclass
class Job:
    """A run still to be driven: its place in the table, and how much of it is done."""

    index: int
    variant: Variant
    course: str
    settings: RunSettings
    key: str
    share: float = 0.0


def jobs_of(config: CompareConfig) -> list[Job]:
    """Every run that was asked for, in the order of the table."""
    code, model = hash_sources(), hash_path(config.model)
    adapter = hash_path(config.adapter) if config.adapter else None
    options = [getattr(config, name) for name in POLICY_OPTIONS]
    jobs: list[Job] = []
    for latency_s, variant, course in itertools.product(config.latency_s, config.chosen, config.courses):
        driver: dict[str, Any] = {"code": code}
        settings = settings_of(config, None if variant.role == "expert" else latency_s)
        if variant.role != "expert":
            driver |= {"model": model, "adapter": adapter if variant.adapted else None, "policy": options}
        elif latency_s != config.latency_s[0]:
            continue  # it makes no plans that could be late, and drives once
        jobs.append(Job(len(jobs), variant, course, settings, run_key(variant, course, settings, driver)))
    return jobs


def driven_jobs(config: CompareConfig, jobs: Sequence[Job], policies: Policies) -> Iterator[tuple[Job, Driven]]:
    """Drive the jobs, side by side where that helps, with one bar over all of them."""
    from tqdm import tqdm

    workers = min(config.jobs or (1 if config.device != "cpu" else core_count()), len(jobs))
    bar = tqdm(
        total=float(len(jobs)),
        desc="compare",
        dynamic_ncols=True,
        disable=not jobs,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}{postfix}]",
    )

    def moved(job: Job, share: float, most: float = 0.99) -> None:
        job.share = max(job.share, min(share, most))  # the last hundredth is measuring and writing
        bar.n = sum(each.share for each in jobs)
        bar.refresh()

    with bar:
        if workers <= 1:
            policy_of = lru_cache(maxsize=1)(policies)  # a model stays loaded from run to run
            for job in jobs:
                bar.set_postfix_str(f"{job.variant.name} on {job.course}")
                policy = policy_of(config, job.variant)
                driven = drive_run(job.variant, job.course, policy, job.settings, partial(moved, job))
                moved(job, 1.0, 1.0)
                yield job, driven
            return
        # Spawned, not forked: torch's threads do not survive a fork. One thread each: contention costs more.
        context, by_index = multiprocessing.get_context("spawn"), {job.index: job for job in jobs}
        others, pending = set(multiprocessing.active_children()), dict[Future[Driven], Job]()
        with starting():
            channel = context.Queue()
        with ProcessPoolExecutor(workers, context, _begin_worker, (channel, _working_folder())) as pool:
            try:
                with starting():
                    pending |= {pool.submit(_work, config, job, policies): job for job in jobs}
                while pending:
                    done, _unfinished = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    while not channel.empty():
                        index, share = channel.get()
                        moved(by_index[index], share)
                    for future in done:
                        job, driven = pending.pop(future), future.result()
                        moved(job, 1.0, 1.0)
                        bar.set_postfix_str(f"{job.variant.name} on {job.course} done")
                        yield job, driven
            except BaseException as error:  # Ctrl-C, too: nobody waits for the drives of the others
                pool.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                if not isinstance(error, BrokenProcessPool):
                    raise
                found = f"one of {workers} processes that drive ended by itself (out of memory?)"
                do = "call the same again with fewer --jobs: finished runs stay"
                raise MonoError(found, "memory for all of them", do) from error


@contextmanager
def starting() -> Iterator[None]:
    """What is started meanwhile computes on one thread, hears no Ctrl-C, and looks for no module where somebody stands.

    numpy's libraries read their variables only when first imported. Before a worker is told where its modules lie,
    it looks for those of its own start in the folder it is born in; it goes to that of this process when it begins.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.environ.update(dict.fromkeys(names, "1"))
        os.chdir(Path(os.__file__).parent)
        yield
    finally:
        os.fchdir(here)
        os.close(here)
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


_CHANNEL: list[Any] = []  # of a worker process: the queue it tells the share of its run that is done


def _working_folder() -> Path | None:
    """Where relative paths begin; None where that folder is gone."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _begin_worker(channel: Any, folder: Path | None) -> None:  # noqa: ANN401 - a context's queue has no type of its own
    """Made once in each worker."""
    if folder is not None:
        os.chdir(folder)
    channel.cancel_join_thread()
    _CHANNEL.append(channel)


def _work(config: CompareConfig, job: Job, policies: Policies) -> Driven:
    """One run in a worker process."""
    if job.variant.role != "expert":
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    policy = policies(config, job.variant)
    return drive_run(job.variant, job.course, policy, job.settings, lambda share: _CHANNEL[0].put((job.index, share)))
