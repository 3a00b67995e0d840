"""A run that fails in one of several processes ends the comparison in one sentence, at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# What a worker's policy does instead of driving, and what is said of it.
FAILURES = {
    "raise MonoError('the weights are broken', 'whole ones', 'copy them again')": "the weights are broken. Expected: w",
    "raise SampleError('sample-7', 'reason', MonoError('no picture'))": "sample sample-7: no picture.",
    "os.kill(os.getpid(), signal.SIGKILL)": "one of 2 processes that drive ended by itself (out of memory?). Ex",
}
SCRIPT = """
import os, signal, sys
from pathlib import Path
from closed_loop.comparison.compare import CompareConfig, compare
from collector.common.errors import MonoError

class SampleError(MonoError):
    def __init__(self, sample_id, reason, error):
        super().__init__(f"sample {{sample_id}}: {{error}}")

def policies(config, variant):
    if variant.role == "expert":
        return None
    {failure}

if __name__ == "__main__":
    try:
        compare(CompareConfig(variants=("base-mono", "expert"), courses=("city", "random:9001"), starts=1, laps=50.0,
                              jobs=2, out=Path(sys.argv[1])), policies)
    except MonoError as error:
        print(f"sentence: {{error}}")
"""


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_worker_is_one_sentence(tmp_path: Path, failure: str) -> None:
    pytest.importorskip("torch")
    (tmp_path / "failing.py").write_text(SCRIPT.format(failure=failure))
    done = subprocess.run(
        [sys.executable, "failing.py", str(tmp_path / "out")],
        check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert f"sentence: {FAILURES[failure]}" in done.stdout, done.stdout
