"""Before and after: the same starts on held-out courses, driven by base model, adapter and teacher in this process.

No ROS and no wall clock: the same command gives the same numbers. Every condition drives the same courses from the
same places with the same seeds, and every drive stays in the table, the failed ones first of all.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from closed_loop.comparison.runs import CONDITIONS, CellSettings, CellStore, Condition, cell_key, run_cell
from closed_loop.comparison.table import assemble, rich_table, write_table
from closed_loop.control.controller import ControllerConfig
from closed_loop.course.design import course_named
from collector.common.errors import MonoError
from collector.common.run_folder import command_line, git_commit, hash_path, open_run
from finetune import TINY_BASE
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.model_files.location import resolve_model
from finetune.policy import Policy

NAMES = tuple(CONDITIONS)


@dataclass(frozen=True)
class CompareConfig:
    """Drive base, adapter and teacher on courses nobody trained on, and say how far each strays on curves.

    Attributes:
        model: base model, a folder in the official layout or its id on the Hugging Face hub.
        adapter: adapter folder (what finetune wrote to OUT/adapter).
        courses: city, city-mirror, random:SEED or course files; never ones that were trained on.
        starts: starts per course, evenly spread over the lap.
        laps: continuous laps from each start.
        conditions: base-four, base-padded, base-mono, base-mono-4frames, adapter-padded, adapter-mono,
            adapter-mono-4frames, teacher; none given: base-four, base-padded, base-mono, teacher, and with an adapter
            the one of the cameras it was trained for.
        out: run folder; finished cells in it are not driven again.
        reference: line the deviation is measured from (a raceline or centreline file); empty is each course's own
            centreline. A file fits one course only.
        device: torch device.
        jobs: cells driven side by side; 0 takes one per CPU core (one on a GPU).
        replan_s: simulated seconds between plans.
        latency_s: simulated seconds from a frame to the use of its plan.
        flow_steps: Euler steps of the action expert.
        noise_temperature: scale of the flow noise; 0 drives the most typical path.
        reasoning: think before driving.
        max_speed_mps: the driver is held to this speed, and the teacher drives no faster; 0 leaves the model free.
        max_off_track: a drive ends at this many off-track events; the lap stays unfinished in the table.
        steering_gain: applied over commanded tyre angle, as the controller believes it.
        seed: of scenery, noise and everything drawn; the same for all conditions.
        fresh: drive finished cells again.
    """

    model: Path = TINY_BASE
    adapter: Path | None = None
    courses: tuple[str, ...] = ("city", "city-mirror", "random:9001")
    starts: int = 3
    laps: float = 1.0
    conditions: tuple[str, ...] = ()
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/compare")
    reference: str = ""
    device: str = "cpu"
    jobs: int = 0
    replan_s: float = 0.2
    latency_s: float = 0.15
    flow_steps: int = 10
    noise_temperature: float = 0.0
    reasoning: bool = True
    max_speed_mps: float = 0.0
    max_off_track: int = 5
    steering_gain: float = 0.62
    seed: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.conditions if name not in CONDITIONS]
        if unknown:
            raise MonoError(f"conditions {', '.join(unknown)}", "some of " + ", ".join(NAMES), "check the spelling")
        if self.adapter is None and any(CONDITIONS[name].adapted for name in self.conditions):
            raise MonoError("a condition with the adapter, but no adapter", "its folder", "add --adapter FOLDER")
        if self.starts < 1 or self.laps <= 0.0 or not self.courses:
            raise MonoError(
                f"{self.starts} starts, {self.laps} laps, {len(self.courses)} courses", "at least one of each"
            )
        if self.reference and len(self.courses) != 1:
            raise MonoError("one reference for several courses", "one course", "compare course by course")

    @property
    def chosen(self) -> tuple[Condition, ...]:
        """The conditions to drive, in the table's order."""
        wanted = self.conditions or (
            "base-four",
            "base-padded",
            "base-mono",
            *([self._adapted()] if self.adapter else []),
            "teacher",
        )
        return tuple(CONDITIONS[name] for name in NAMES if name in wanted)

    def _adapted(self) -> str:
        """The condition that drives the adapter with the cameras it was trained for."""
        assert self.adapter is not None
        cameras = adapter_facts(self.adapter).cameras
        fitting = [name for name, condition in CONDITIONS.items() if condition.adapted and condition.cameras == cameras]
        return fitting[0] if fitting else "adapter-mono"


def settings_of(config: CompareConfig) -> CellSettings:
    """What decides a cell besides its driver."""
    limit = config.max_speed_mps or None
    return CellSettings(
        config.starts,
        config.laps,
        config.reference,
        config.replan_s,
        config.latency_s,
        limit or 5.0,
        config.max_off_track,
        config.seed,
        ControllerConfig(steering_gain=config.steering_gain, max_speed_mps=limit),
    )


def make_policy(config: CompareConfig, condition: Condition) -> Policy | None:
    """The driver of a condition; None is the teacher."""
    if condition.role == "teacher":
        return None
    from finetune.alpamayo_policy import AlpamayoPolicy

    return AlpamayoPolicy(
        config.model,
        adapter=config.adapter if condition.adapted else None,
        cameras=condition.cameras,
        flow_steps=config.flow_steps,
        noise_temperature=config.noise_temperature,
        seed=config.seed,
        reasoning=config.reasoning,
        device=config.device,
    )


@dataclass
class _Job:
    """A cell still to be driven."""

    index: int
    condition: Condition
    course: str
    key: str
    share: float = 0.0


def compare(
    config: CompareConfig, policies: Callable[[CompareConfig, Condition], Policy | None] = make_policy
) -> dict[str, Any]:
    """Run the experiment and write ``metrics.json``, ``table.csv``, ``table.txt`` and the drives.

    Args:
        config: what to drive.
        policies: makes the driver of a condition; a picklable function when several jobs run.

    Returns:
        ``metrics.json``, see :func:`closed_loop.comparison.table.assemble`.

    Raises:
        MonoError: unknown course, unusable model or adapter.
    """
    for course in config.courses:
        course_named(course)  # a spelling mistake should not surface after an hour
    config = replace(config, model=resolve_model(config.model))
    for condition in config.chosen:
        if condition.adapted and config.adapter is not None:
            check_belongs(adapter_facts(config.adapter), config.model, condition.cameras)
    inputs = [config.model, *([config.adapter] if config.adapter else [])]
    run = open_run(config.out, config, inputs=inputs)
    store, settings = CellStore(run.folder), settings_of(config)
    commit = (git_commit() or "").replace("+changes", "")
    model_hash, adapter_hash = hash_path(config.model), hash_path(config.adapter) if config.adapter else None
    rows: dict[int, dict[str, Any]] = {}
    jobs: list[_Job] = []
    for condition in config.chosen:
        driver: dict[str, Any] = {"commit": commit}
        if condition.role != "teacher":
            driver |= {
                "model": model_hash,
                "adapter": adapter_hash if condition.adapted else None,
                "policy": (config.flow_steps, config.noise_temperature, config.reasoning),
            }
        for course in config.courses:
            key = cell_key(condition, course, settings, driver)
            row = None if config.fresh else store.load(condition.name, course, key)
            index = len(rows) + len(jobs)
            if row is None:
                jobs.append(_Job(index, condition, course, key))
            else:
                rows[index] = row
    if rows:
        print(f"{len(rows)} of {len(rows) + len(jobs)} cells are finished in {run.folder}", flush=True)
    for job, row, tables in _run(config, settings, jobs, policies):
        rows[job.index] = store.save(row, tables, job.key)
    metrics = assemble(
        config.chosen, config.courses, config.starts, config.laps, [rows[index] for index in sorted(rows)]
    )
    run.write_metrics(metrics)
    write_table(metrics, run.folder)
    return metrics


def _run(
    config: CompareConfig,
    settings: CellSettings,
    jobs: Sequence[_Job],
    policies: Callable[[CompareConfig, Condition], Policy | None],
) -> Iterable[tuple[_Job, dict[str, Any], list[Any]]]:
    """Drive the jobs, side by side where that helps, with one bar over all of them."""
    from tqdm import tqdm

    workers = config.jobs or (1 if config.device != "cpu" else _cores())
    workers = min(workers, len(jobs))
    bar = tqdm(
        total=float(len(jobs)),
        desc="compare",
        dynamic_ncols=True,
        disable=not jobs,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} cells [{elapsed}<{remaining}{postfix}]",
    )

    def moved(job: _Job, share: float, scale: float = 1.0) -> None:
        job.share = max(job.share, scale * min(1.0, share))  # the last hundredth is measuring and writing
        bar.n = sum(each.share for each in jobs)
        bar.refresh()

    with bar:
        if workers <= 1:
            policy, owner = None, ""
            for job in jobs:
                bar.set_postfix_str(f"{job.condition.name} on {job.course}")
                if owner != job.condition.name:
                    policy, owner = policies(config, job.condition), job.condition.name
                row, tables = run_cell(job.condition, job.course, policy, settings, partial(moved, job, scale=0.99))
                moved(job, 1.0)
                yield job, row, tables
            return
        # Spawned, not forked: torch's threads do not survive a fork. One thread each: contention costs more.
        context = multiprocessing.get_context("spawn")
        with _one_thread_each(), context.Manager() as manager:
            channel: Any = manager.Queue()
            with ProcessPoolExecutor(workers, context) as pool:
                pending: dict[Future[Any], _Job] = {
                    pool.submit(_work, config, settings, job, policies, channel): job for job in jobs
                }
                by_index = {job.index: job for job in jobs}
                while pending:
                    done, _unfinished = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    while True:
                        try:
                            index, share = channel.get_nowait()
                        except queue.Empty:
                            break
                        moved(by_index[index], share, scale=0.99)
                    for future in done:
                        job = pending.pop(future)
                        try:
                            row, tables = future.result()
                        except BaseException:
                            pool.shutdown(wait=False, cancel_futures=True)
                            raise
                        moved(job, 1.0)
                        bar.set_postfix_str(f"{job.condition.name} on {job.course} done")
                        yield job, row, tables


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What is started meanwhile computes on one thread: numpy's libraries read these only when first imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _cores() -> int:
    """CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _work(
    config: CompareConfig,
    settings: CellSettings,
    job: _Job,
    policies: Callable[[CompareConfig, Condition], Policy | None],
    channel: Any,
) -> tuple[dict[str, Any], list[Any]]:
    """One cell in a worker process."""
    if job.condition.role != "teacher":
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    policy = policies(config, job.condition)
    return run_cell(job.condition, job.course, policy, settings, lambda share: channel.put((job.index, share)))


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono compare``: the before/after table on held-out courses."""
    from rich.console import Console

    config = command_line(CompareConfig, argv, "alpamayo-mono compare")
    metrics = compare(config)
    console = Console()
    console.print(rich_table(metrics, console.width))
    console.print(metrics["definitions"]["deviation"], style="dim")
    console.print(metrics["honesty"])
    print(f"run folder: {config.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
