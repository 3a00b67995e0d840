"""Camera frames on their way into samples: compressed at most once, when one needs them, and the four of a sample."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from collector.geometry.constants import FRAME_STEPS, STEP_NS
from collector.ros.images import BadFrame, FrameError, RawFrame, frame_jpeg
from collector.ros.jpeg import UPRIGHT, orientation

# Stamps that hardly rise (a damaged clock) must not fill the memory.
_MOST_FRAMES = 64


@dataclass
class HeldFrame:
    """A frame and its JPEG bytes, made at most once, when a sample needs them; raw pixels are then let go of."""

    frame: RawFrame
    quality: int
    bad: BadFrame | None = None  # why it cannot serve, once that is known
    cut_bytes: int = 0  # what lay behind the end of its JPEG
    orientation: int = UPRIGHT  # as its Exif says
    _done: bool = False
    _pending: Future[bytes | BadFrame] | None = None

    @property
    def stamp_ns(self) -> int:
        """Header stamp."""
        return self.frame.stamp_ns

    def start(self, pool: Executor) -> None:
        """Have a worker check and compress the frame, so that :meth:`jpeg` need not."""
        if not self._done and self._pending is None:
            self._pending = pool.submit(_jpeg_or_bad, self.frame, self.quality)

    def jpeg(self) -> bytes | None:
        """The frame as JPEG, None when it is broken."""
        if not self._done:
            pending, self._pending, self._done = self._pending, None, True
            found = _jpeg_or_bad(self.frame, self.quality) if pending is None else pending.result()
            self.bad, data = (found, None) if isinstance(found, BadFrame) else (None, found)
            recorded = self.frame.jpeg
            if data is not None and recorded is not None and len(data) < len(recorded) and recorded.startswith(data):
                self.cut_bytes = len(recorded) - len(data)
            self.orientation = orientation(data or b"")
            self.frame = replace(self.frame, jpeg=data, pixels=None)
        return self.frame.jpeg


def _jpeg_or_bad(frame: RawFrame, quality: int) -> bytes | BadFrame:
    # An error kept in a future would keep the frame's pixels as well.
    try:
        return frame_jpeg(frame, quality)
    except FrameError as error:
        return BadFrame.of(error)


class FrameWindow:
    """Just enough recent frames to pick the four of a sample from, each at most ``tolerance_ns`` off its ideal time."""

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._frames: deque[HeldFrame] = deque(maxlen=_MOST_FRAMES)

    def clear(self) -> None:
        """Forget everything (the clock has restarted)."""
        self._frames.clear()

    def add(self, frame: HeldFrame) -> None:
        """Remember the newest frame and forget what is too old to be picked again."""
        self._frames.append(frame)
        oldest_ns = frame.stamp_ns - (FRAME_STEPS - 1) * STEP_NS - self._tolerance_ns
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
            ideal_ns = newest.stamp_ns - back * STEP_NS
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - ideal_ns))
            if abs(nearest.stamp_ns - ideal_ns) > self._tolerance_ns or nearest is picked[0]:
                return None
            picked.insert(0, nearest)
        return picked
