"""Before and after: the same starts on held-out courses, driven by base model, adapter and expert in this process.

No ROS and no wall clock: the same command gives the same numbers. Every variant drives the same courses from the
same places with the same seeds, and every drive stays in the table, the failed ones first of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from closed_loop.comparison.config import CompareConfig, Policies, make_policy
from closed_loop.comparison.latency import write_latency_plot
from closed_loop.comparison.runs import RunStore, films_of_told
from closed_loop.comparison.table import assemble, has_latencies, printed_tables, write_table
from closed_loop.comparison.workers import LONGEST_FIRST, Job, driven_jobs, jobs_of
from closed_loop.course.design import course_named
from collector.common.command_line import command_line
from collector.common.errors import require
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import open_run
from collector.common.tables import Console
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.model_files.location import resolve_model


@alone_in_out("compare")
def compare(config: CompareConfig, policies: Policies = make_policy) -> dict[str, Any]:
    """Run the experiment; writes ``metrics.json``, ``table.csv``, ``table.txt`` and the drives.

    With several latencies also ``latency.png``, with instructions a film of each told drive's first start. Returns what
    :func:`closed_loop.comparison.table.assemble` does.
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
    asked = jobs_of(config)  # which reads the vehicles: before a folder is made
    inputs = [config.model, *([config.adapter] if config.adapter else [])]
    run = open_run(config.out, config, inputs, "compare")
    store = RunStore(run.folder)
    rows: dict[int, dict[str, Any]] = {}
    jobs: list[Job] = []
    for job in asked:
        row = None if config.fresh else store.load(job.variant.name, job.course, job.settings, job.key)
        if row is None:
            jobs.append(job)
        else:
            rows[job.index] = row
    jobs.sort(key=lambda job: LONGEST_FIRST.index(job.variant.role))
    if rows:
        print(f"{len(rows)} of {len(rows) + len(jobs)} runs are finished in {run.folder}", flush=True)
    for job, (row, tables) in driven_jobs(config, jobs, policies):
        rows[job.index] = store.save(row, tables, job.settings, job.key)
    finished = [rows[index] for index in sorted(rows)]
    metrics = assemble(config.chosen, config.courses, config.starts, config.laps, finished)
    run.write_metrics(metrics)
    films_of_told([(rows[job.index], job.settings) for job in asked], run.folder)
    if has_latencies(metrics):
        write_latency_plot(metrics["by_latency"], run.folder)
    write_table(metrics, run.folder)
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono compare``: the before/after table on held-out courses."""
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
