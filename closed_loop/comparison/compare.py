"""Before and after: the same starts on held-out courses, driven by base model, adapter and expert in this process.

No ROS and no wall clock: the same command gives the same numbers. Every variant drives the same courses from the
same places with the same seeds, and every drive stays in the table, the failed ones first of all.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from closed_loop.comparison.latency import write_latency_plot
from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.comparison.runs import (
    BEFORE_AFTER,
    VARIANTS,
    Driven,
    RunSettings,
    RunStore,
    Variant,
    drive_run,
    run_key,
)
from closed_loop.comparison.table import assemble, has_latencies, printed_tables, write_table
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.control.faults import Faults
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig
from collector.common.arguments import MOST_SEED, Arguments, argument, same_as
from collector.common.cpu import core_count
from collector.common.errors import MonoError, require
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import command_line, hash_path, hash_sources, open_run
from finetune import TINY_BASE
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.model_files.location import resolve_model
from finetune.policy import Policy, PolicySettings

DEFAULTS = RunSettings()


@dataclass(frozen=True)
class CompareConfig(Arguments):
    """Drive base, adapter and expert on courses nobody trained on, and say how far each strays on curves."""

    model: Path = TINY_BASE  # base model, a folder in the official layout or its id on the Hugging Face hub.
    adapter: Path | None = None  # adapter folder (what finetune wrote to OUT/adapter).
    # by name, such as city, city-mirror or random:9001, or course files; never ones that were trained on.
    courses: tuple[str, ...] = ("city", "city-mirror", "random:9001")
    starts: int = argument(DEFAULTS.starts, "starts per course, evenly spread over the lap", 1, 10_000)
    laps: float = argument(RolloutConfig.laps, "continuous laps from each start", 0.001, 1000.0)
    # rows of the table, such as base-mono and adapter-mono (a wrong one lists them all); none given: base-four,
    # base-padded, base-mono, expert, and with an adapter the base and the adapter with the cameras it was trained for.
    variants: tuple[str, ...] = ()
    # run folder; finished runs in it are not driven again.
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/compare")
    # line the deviation is measured from (a raceline or centreline file); empty is each course's own centreline. A file
    # fits one course only.
    reference: str = ""
    device: str = PolicySettings.device  # torch device.
    jobs: int = argument(0, "runs driven side by side; 0 takes one per CPU core (one on a GPU)", 0, 1024)
    replan_s: float = same_as(DriverConfig, "replan_s")
    latency_s: tuple[float, ...] = argument(
        (DEFAULTS.rollout.faults.latency_s,),
        "simulated seconds from a frame to the use of its plan; of several, such as 0.15,0.3,0.6, the first is that of "
        "the table, and all are set against each other",
        0.0,
        6.3,
    )
    jitter_s: float = argument(0.0, "each plan comes up to so many simulated seconds later still, drawn", 0.0, 3.0)
    flow_steps: int = same_as(PolicySettings, "flow_steps")
    noise_temperature: float = same_as(PolicySettings, "noise_temperature")
    reasoning: bool = PolicySettings.reasoning  # think before driving.
    max_speed_mps: float = argument(
        0.0, "the driver is held to this speed, and the expert drives no faster; 0 leaves the model free", 0.0, 20.0
    )
    max_off_track: int = argument(
        RolloutConfig.max_off_track,
        "a drive ends at this many off-track events; the lap stays unfinished in the table",
        1,
        1_000_000,
    )
    steering_gain: float = same_as(ControllerConfig, "steering_gain")
    seed: int = argument(
        DEFAULTS.seed, "of scenery, noise and everything drawn; the same for all variants", 0, MOST_SEED
    )
    fresh: bool = False  # drive finished runs again.

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise MonoError(f"variants {', '.join(unknown)}", "some of " + ", ".join(VARIANTS), "check the spelling")
        if self.adapter is None and any(VARIANTS[name].adapted for name in self.variants):
            raise MonoError("a variant with the adapter, but no adapter", "its folder", "add --adapter FOLDER")
        if not self.courses:
            raise MonoError("no course to drive", "at least one", "name one with --courses")
        if len(set(self.latency_s)) < max(1, len(self.latency_s)):
            found = "the latencies " + ", ".join(f"{each:g}" for each in self.latency_s)
            raise MonoError(found, "at least one, and each once", "--latency_s 0,0.15,0.6")
        if self.reference and len(self.courses) != 1:
            raise MonoError("one reference for several courses", "one course", "compare course by course")

    @property
    def chosen(self) -> tuple[Variant, ...]:
        """The variants to drive, in the table's order."""
        wanted = self.variants or ("base-four", "base-padded", "base-mono", "expert")
        if self.adapter and not self.variants:
            cameras = adapter_facts(self.adapter).cameras or PolicySettings.cameras
            wanted += tuple(
                each.name for each in VARIANTS.values() if each.role in BEFORE_AFTER and each.cameras == cameras
            )
        return tuple(variant for name, variant in VARIANTS.items() if name in wanted)


def settings_of(config: CompareConfig, latency_s: float | None) -> RunSettings:
    """What decides a run besides its driver, at one of the latencies; None where no plan can be late."""
    limit = config.max_speed_mps or None
    controller = ControllerConfig(steering_gain=config.steering_gain, max_speed_mps=limit)
    rollout = RolloutConfig(
        laps=config.laps,
        driver=DriverConfig(replan_s=config.replan_s, controller=controller),
        faults=DEFAULTS.rollout.faults if latency_s is None else Faults(latency_s=latency_s, jitter_s=config.jitter_s),
        max_off_track=config.max_off_track,
    )
    expert = ExpertConfig(max_speed_mps=limit) if limit else ExpertConfig()
    return RunSettings(config.starts, config.reference, config.seed, rollout, expert)


def make_policy(config: CompareConfig, variant: Variant) -> Policy | None:
    """The driver of a variant; None is the expert."""
    if variant.role == "expert":
        return None
    from finetune.alpamayo_policy import AlpamayoPolicy

    return AlpamayoPolicy(
        config.model,
        adapter=config.adapter if variant.adapted else None,
        cameras=variant.cameras,
        flow_steps=config.flow_steps,
        noise_temperature=config.noise_temperature,
        seed=config.seed,
        reasoning=config.reasoning,
        device=config.device,
    )


Policies = Callable[[CompareConfig, Variant], Policy | None]


_LONGEST_FIRST = ("after", "control", "before", "expert")


@dataclass
class _Job:
    """A run still to be driven: its place in the table, and how much of it is done."""

    index: int
    variant: Variant
    course: str
    settings: RunSettings
    key: str
    share: float = 0.0


def _jobs(config: CompareConfig) -> list[_Job]:
    """Every run that was asked for, in the order of the table."""
    code, model = hash_sources(), hash_path(config.model)
    adapter = hash_path(config.adapter) if config.adapter else None
    options = (config.flow_steps, config.noise_temperature, config.reasoning)
    jobs: list[_Job] = []
    for latency_s, variant, course in itertools.product(config.latency_s, config.chosen, config.courses):
        driver: dict[str, Any] = {"code": code}
        settings = settings_of(config, None if variant.role == "expert" else latency_s)
        if variant.role != "expert":
            driver |= {"model": model, "adapter": adapter if variant.adapted else None, "policy": options}
        elif latency_s != config.latency_s[0]:
            continue  # it makes no plans that could be late, and drives once
        jobs.append(_Job(len(jobs), variant, course, settings, run_key(variant, course, settings, driver)))
    return jobs


@alone_in_out("compare")
def compare(config: CompareConfig, policies: Policies = make_policy) -> dict[str, Any]:
    """Run the experiment; writes ``metrics.json``, ``table.csv``, ``table.txt`` and the drives.

    With several latencies also ``latency.png``. Returns what :func:`closed_loop.comparison.table.assemble` does.
    ``policies`` makes the driver of a variant; a picklable function when several jobs run.

    Raises:
        MonoError: unknown course, unusable model or adapter.
    """
    if len(config.latency_s) > 1:
        require("matplotlib", "report")
    for course in filter(None, (*config.courses, config.reference)):
        course_named(course)  # a spelling mistake should not surface after an hour
    config = replace(config, model=resolve_model(config.model))
    for variant in config.chosen:
        if variant.adapted and config.adapter is not None:
            check_belongs(adapter_facts(config.adapter), config.model, variant.cameras)
    inputs = [config.model, *([config.adapter] if config.adapter else [])]
    run = open_run(config.out, config, inputs, "compare")
    store = RunStore(run.folder)
    rows: dict[int, dict[str, Any]] = {}
    jobs: list[_Job] = []
    for job in _jobs(config):
        row = None if config.fresh else store.load(job.variant.name, job.course, job.settings, job.key)
        if row is None:
            jobs.append(job)
        else:
            rows[job.index] = row
    # Whole laps take longest; begun first, no worker is left alone with one at the end.
    jobs.sort(key=lambda job: _LONGEST_FIRST.index(job.variant.role))
    if rows:
        print(f"{len(rows)} of {len(rows) + len(jobs)} runs are finished in {run.folder}", flush=True)
    for job, (row, tables) in _driven(config, jobs, policies):
        rows[job.index] = store.save(row, tables, job.settings, job.key)
    finished = [rows[index] for index in sorted(rows)]
    metrics = assemble(config.chosen, config.courses, config.starts, config.laps, finished)
    run.write_metrics(metrics)
    if has_latencies(metrics):
        write_latency_plot(metrics["by_latency"], run.folder)
    write_table(metrics, run.folder)
    return metrics


def _driven(config: CompareConfig, jobs: Sequence[_Job], policies: Policies) -> Iterator[tuple[_Job, Driven]]:
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

    def moved(job: _Job, share: float, most: float = 0.99) -> None:
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
        channel, others = context.Queue(), set(multiprocessing.active_children())
        with _of_workers(), ProcessPoolExecutor(workers, context, _begin_worker, (channel,)) as pool:
            pending = {pool.submit(_work, config, job, policies): job for job in jobs}
            try:
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
            except BrokenProcessPool as error:
                found = f"one of {workers} processes that drive ended by itself (out of memory?)"
                do = "call the same again with fewer --jobs: finished runs stay"
                raise MonoError(found, "memory for all of them", do) from error
            finally:
                if pending:  # a failure or Ctrl-C: nobody waits for the drives of the others
                    pool.shutdown(wait=False, cancel_futures=True)
                    for process in set(multiprocessing.active_children()) - others:
                        process.terminate()


@contextmanager
def _of_workers() -> Iterator[None]:
    """What is started meanwhile computes on one thread, and runs no module of the working folder (Python 3.11 on).

    numpy's libraries read their variables only when first imported.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONSAFEPATH")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


_CHANNEL: list[Any] = []  # of a worker process: the queue it tells the share of its run that is done


def _begin_worker(channel: Any) -> None:  # noqa: ANN401 - a context's queue has no type of its own
    """Made once in each worker; Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel.cancel_join_thread()
    _CHANNEL.append(channel)


def _work(config: CompareConfig, job: _Job, policies: Policies) -> Driven:
    """One run in a worker process."""
    if job.variant.role != "expert":
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    policy = policies(config, job.variant)
    return drive_run(job.variant, job.course, policy, job.settings, lambda share: _CHANNEL[0].put((job.index, share)))


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono compare``: the before/after table on held-out courses."""
    from rich.console import Console

    config = command_line(CompareConfig, argv, "alpamayo-mono compare")
    metrics = compare(config)
    console = Console()
    for table in printed_tables(metrics, console.width):
        console.print(table)
    console.print(metrics["definitions"]["deviation"], style="dim")
    console.print(metrics["disclaimer"])
    print(f"run folder: {config.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
