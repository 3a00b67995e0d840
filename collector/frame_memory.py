"""The last few camera frames of a recording, from which the four of a sample are picked."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from collector.bags import FrameError, RawFrame, frame_jpeg
from collector.samples import FRAME_STEPS

NO_HISTORY = "no frame history"


@dataclass
class HeldFrame:
    """A frame with its JPEG bytes, made at most once; raw pixels are let go of as soon as they are compressed."""

    frame: RawFrame
    quality: int
    is_broken: bool = False
    _done: bool = False

    @property
    def stamp_ns(self) -> int:
        """Header stamp."""
        return self.frame.stamp_ns

    def check(self) -> bool:
        """Whether the frame decodes. Raw pixels were checked when they were read."""
        return self.frame.pixels is not None or self.jpeg() is not None

    def jpeg(self) -> bytes | None:
        """The frame as JPEG, None when it is broken."""
        if self._done:
            return self.frame.jpeg
        if self.is_broken:
            return None
        try:
            data = frame_jpeg(self.frame, self.quality)
        except FrameError:
            self.is_broken = True
            return None
        self.frame = replace(self.frame, jpeg=data, pixels=None)
        self._done = True
        return data


class FrameMemory:
    """Holds just enough recent frames to look back ``(FRAME_STEPS - 1) * step_ns``.

    Args:
        step_ns: spacing of the frames of a sample.
        tolerance_ns: how far a frame may lie from its ideal time.
    """

    def __init__(self, step_ns: int, tolerance_ns: int) -> None:
        self._step_ns, self._tolerance_ns = step_ns, tolerance_ns
        self._frames: deque[HeldFrame] = deque()

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

        None when one of them is missing, broken, or would serve twice.
        """
        newest = self._frames[-1]
        picked = [newest]
        for back in range(1, FRAME_STEPS):
            ideal_ns = newest.stamp_ns - back * self._step_ns
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - ideal_ns))
            if (
                abs(nearest.stamp_ns - ideal_ns) > self._tolerance_ns
                or nearest is picked[0]
                or not nearest.check()
            ):
                return None
            picked.insert(0, nearest)
        return picked
