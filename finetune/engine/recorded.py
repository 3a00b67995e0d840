"""Work of fixed shapes, recorded once and replayed without its launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_REHEARSALS = 2


class Recorded:
    """A piece of work on fixed tensors; on a GPU a CUDA graph of it, elsewhere the work itself.

    Results lie in the same tensors each time, until the next call.

    Args:
        work: reads and writes tensors that stay where they are, and asks nothing of the GPU.
        device: where.
        pool: of :func:`shared_pool`, for pieces that never run at once.
    """

    def __init__(self, work: Callable[[], Any], device: torch.device, pool: Any = None) -> None:
        self._work, self._graph = work, None
        if device.type != "cuda":
            return
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_REHEARSALS):
                work()
        torch.cuda.current_stream(device).wait_stream(aside)
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._result = work()

    def __call__(self) -> Any:
        """Do it, and answer what it answers."""
        if self._graph is None:
            return self._work()
        self._graph.replay()
        return self._result


def shared_pool(device: torch.device) -> Any:
    """Memory that several pieces of recorded work share."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None
