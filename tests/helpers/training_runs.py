"""Finetuning runs in processes of their own, to be killed and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT


def environment() -> dict[str, str]:
    """One thread per process: sums in another order are another run."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def command(model: Path, dataset: Path, out: Path, *options: str, processes: int = 1) -> list[str]:
    """What a person types, with torchrun in front where there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [
        sys.executable,
        *launcher,
        "-m",
        "closed_loop.cli",
        "finetune",
        "--model",
        str(model),
        "--dataset",
        str(dataset),
        "--out",
        str(out),
        *options,
    ]


def finish(words: list[str]) -> str:
    """Run to the end and return what it printed.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_at(words: list[str], out: Path, step: int, delay_s: float = 0.0) -> int:
    """Run until the line of a step is written, wait, and kill without a chance to tidy up.

    Returns:
        Steps written by then.

    Raises:
        AssertionError: the run ended by itself.
    """
    with subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        try:
            until = time.monotonic() + 170
            while last_step(out) < step:
                assert run.poll() is None, (run.stdout.read() if run.stdout else b"").decode()
                assert time.monotonic() < until, f"step {step} was not reached"
                time.sleep(0.005)
            time.sleep(delay_s)
            assert run.poll() is None, "the run was over before it could be killed"
        finally:
            run.send_signal(signal.SIGKILL)
    return last_step(out)


def last_step(out: Path) -> int:
    """The last step whose line is written; -1 before there is any."""
    path = out / "training.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    steps = [-1]
    for line in lines:
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:  # half a line
            continue
    return max(steps)


def curve(out: Path) -> list[dict[str, Any]]:
    """The loss curve without what a clock measured."""
    lines = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_s"} for line in lines]


def adapter(out: Path) -> dict[str, Any]:
    """The saved tensors by name."""
    from safetensors.torch import load_file

    return load_file(str(out / "adapter" / "adapter_model.safetensors"))
