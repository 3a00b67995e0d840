"""The processes of one training: accelerate's, so that one process and many run the same code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from collector.common.errors import MonoError, require

# Encoding and saving are the main process's; the others wait for it that long.
_PATIENCE = timedelta(hours=12)


def processes(device: str) -> Any:
    """Accelerate's view of this run's processes: ``device``, ``num_processes``, ``is_main_process`` and so on."""
    accelerate = require("accelerate", "model")
    patience = accelerate.InitProcessGroupKwargs(timeout=_PATIENCE)
    return accelerate.Accelerator(cpu=device == "cpu", kwargs_handlers=[patience])


def on_main(accelerator: Any, work: Callable[[], None]) -> None:
    """Let the main process do something while the others wait; where it cannot, all end, and it alone says why.

    Raises:
        MonoError: of the work, in the main process; the others leave with its exit code.
    """
    failed: MonoError | None = None
    if accelerator.is_main_process:
        try:
            work()
        except MonoError as error:
            failed = error
    told = torch.tensor([float(failed is not None)], device=accelerator.device)
    told = accelerator.reduce(told, "sum")
    if failed is not None:
        raise failed
    if bool(told):
        raise SystemExit(2)
