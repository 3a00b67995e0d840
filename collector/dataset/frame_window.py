"""The last few camera frames of a recording, from which the four of a sample are picked."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from collector.geometry.constants import FRAME_STEPS
from collector.ros.images import FrameError, RawFrame, frame_jpeg

NO_HISTORY = "no frame history"
# Stamps that hardly rise (a damaged clock) must not fill the memory.
_MOST_FRAMES = 64


@dataclass
class HeldFrame:
    """A frame with its JPEG bytes, made at most once and only when a sample needs them.

    Raw pixels are let go of as soon as they are compressed.
    """

    frame: RawFrame
    quality: int
    _done: bool = False
    _pending: Future[bytes | None] | None = None

    @property
    def stamp_ns(self) -> int:
        """Header stamp."""
        return self.frame.stamp_ns

    def start(self, pool: Executor) -> None:
        """Have a worker check and compress the frame, so that :meth:`jpeg` need not."""
        if not self._done and self._pending is None:
            self._pending = pool.submit(_jpeg_or_none, self.frame, self.quality)

    def jpeg(self) -> bytes | None:
        """The frame as JPEG, None when it is broken."""
        if not self._done:
            pending, self._pending, self._done = self._pending, None, True
            data = _jpeg_or_none(self.frame, self.quality) if pending is None else pending.result()
            self.frame = replace(self.frame, jpeg=data, pixels=None)
        return self.frame.jpeg


def _jpeg_or_none(frame: RawFrame, quality: int) -> bytes | None:
    # An error kept in a future would keep the frame's pixels as well.
    try:
        return frame_jpeg(frame, quality)
    except FrameError:
        return None


class FrameWindow:
    """Holds just enough recent frames to look back ``(FRAME_STEPS - 1) * step_ns``.

    Args:
        step_ns: spacing of the frames of a sample.
        tolerance_ns: how far a frame may lie from its ideal time.
    """

    def __init__(self, step_ns: int, tolerance_ns: int) -> None:
        self._step_ns, self._tolerance_ns = step_ns, tolerance_ns
        self._frames: deque[HeldFrame] = deque(maxlen=_MOST_FRAMES)

    def clear(self) -> None:
        """Forget everything (the clock has restarted)."""
        self._frames.clear()

    def add(self, frame: HeldFrame) -> None:
        """Remember the newest frame and forget what is too old to be picked again."""
        self._frames.append(frame)
        oldest_ns = frame.stamp_ns - (FRAME_STEPS - 1) * self._step_ns - self._tolerance_ns
        while self._frames[0].stamp_ns < oldest_ns:
            self._frames.popleft()

    def last_four(self) -> list[HeldFrame] | None:
        """The newest frame and the three at one, two and three steps before it, oldest first.

        None when one of them is missing or would serve twice. Whether they decode is not asked here: that costs more
        than all the rest, and frames that no sample needs are never looked at.
        """
        newest = self._frames[-1]
        picked = [newest]
        for back in range(1, FRAME_STEPS):
            ideal_ns = newest.stamp_ns - back * self._step_ns
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - ideal_ns))
            if abs(nearest.stamp_ns - ideal_ns) > self._tolerance_ns or nearest is picked[0]:
                return None
            picked.insert(0, nearest)
        return picked
