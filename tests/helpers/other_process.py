"""Another process that writes to an output folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.paths import ROOT


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """Another process that writes to a folder."""
    code = "import sys; from collector.common.output_folder import OutputFolder as O\n"
    code += "with O(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other.pid
