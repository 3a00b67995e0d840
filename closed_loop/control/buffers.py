"""What the driver remembers: recent poses, recent frames, and how fast the vehicle's time runs.

Pure numpy, filled by a node: each buffer keeps what an observation can still need.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from collector.geometry.constants import STEP_NS
from collector.geometry.discontinuity import LATE, discontinuity
from collector.geometry.poses import FloatArray, interpolate_poses, to_ego
from finetune.policy import FRAMES_PER_CAMERA, HISTORY_STEPS, STEP_S, Observation

HISTORY_SPAN_NS = (HISTORY_STEPS - 1) * STEP_NS
STANDING_MPS = 0.3
GAP_S = 1.0  # poses farther apart than this are not interpolated
KEPT_NS = 10_000_000_000

Pose = tuple[float, float, float]
Images = Mapping[str, NDArray[np.uint8]]


class PoseBuffer:
    """The last seconds of odometry, by stamp."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, Pose, float]] = deque()
        self._arrays: tuple[NDArray[np.int64], FloatArray, FloatArray] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, stamp_ns: int, pose_map: Pose, speed_mps: float) -> bool:
        """Append one odometry message; True when the vehicle or its clock jumped.

        After a reset, a teleport, a stamp far in the past or a long gap everything remembered has been dropped, and
        plans made before mean nothing. A repeated or slightly late message is ignored.
        """
        why = ""
        if self._rows:
            last_ns, last_pose, _ = self._rows[-1]
            why = discontinuity(stamp_ns - last_ns, math.dist(pose_map[:2], last_pose[:2]), max_gap_s=GAP_S)
            if why == LATE:
                return False
            if why:
                self._rows.clear()
        self._arrays = None
        self._rows.append((stamp_ns, pose_map, speed_mps))
        while stamp_ns - self._rows[0][0] > KEPT_NS:
            self._rows.popleft()
        return bool(why)

    @property
    def newest(self) -> tuple[int, FloatArray, float] | None:
        """(stamp_ns, pose (3,) in the map, speed_mps) of the last message, None when empty."""
        if not self._rows:
            return None
        stamp_ns, pose_map, speed_mps = self._rows[-1]
        return stamp_ns, np.array(pose_map), speed_mps

    def covers(self, stamp_ns: int) -> bool:
        """Whether the pose at this stamp lies between two remembered ones."""
        return len(self._rows) >= 2 and self._rows[0][0] <= stamp_ns <= self._rows[-1][0]

    def pose_at(self, stamp_ns: int) -> FloatArray:
        """(3,) map pose at a covered stamp; ValueError otherwise."""
        stamps, poses, _ = self._table()
        return interpolate_poses(stamps, poses, [stamp_ns]).reshape(3)

    def speed_at(self, stamp_ns: int) -> float:
        """Speed at a covered stamp, m/s."""
        stamps, _, speeds = self._table()
        return float(np.interp(stamp_ns - stamps[0], stamps - stamps[0], speeds))

    def history(self, stamp_ns: int) -> FloatArray | None:
        """(16, 3) ego poses at t0-1.5 s ... t0 for a covered stamp t0, or None while too little is known.

        A vehicle that stood still at the oldest pose is taken to have stood there before.
        """
        if not self.covers(stamp_ns):
            return None
        query = stamp_ns - HISTORY_SPAN_NS + STEP_NS * np.arange(HISTORY_STEPS, dtype=np.int64)
        oldest_ns, _, oldest_mps = self._rows[0]
        if query[0] < oldest_ns and abs(oldest_mps) > STANDING_MPS:
            return None
        stamps, poses, _ = self._table()
        shown = interpolate_poses(stamps, poses, np.maximum(query, oldest_ns))
        return to_ego(shown, shown[-1])

    def _table(self) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Stamps (N,), poses (N, 3) and speeds (N,), made once for all who ask at an instant."""
        if self._arrays is None:
            stamps, poses, speeds = zip(*self._rows, strict=True)
            self._arrays = np.array(stamps), np.array(poses), np.array(speeds)
        return self._arrays


@dataclass(frozen=True)
class CameraFrame:
    """What the cameras show at one instant."""

    stamp_ns: int  # the moment shown: header stamp minus the camera's time offset
    images: Images  # camera name -> (H, W, 3) uint8 RGB; only looked into when a plan is asked for


class FrameBuffer:
    """The last four frames, without holes; counts what the stamps say was lost.

    A hole of more than half a frame period beyond it is a lost frame; frames older than a hole of four periods are not
    shown to the model as neighbours.
    """

    MAX_GAP_NS = 4 * STEP_NS

    def __init__(self) -> None:
        self._frames: deque[CameraFrame] = deque(maxlen=FRAMES_PER_CAMERA)
        self.received = self.lost = 0

    def add(self, frame: CameraFrame) -> bool:
        """Append a frame; False for one that is not newer than the last (repeated by the sender)."""
        if self._frames:
            step_ns = frame.stamp_ns - self._frames[-1].stamp_ns
            if -self.MAX_GAP_NS < step_ns <= 0:
                return False
            if step_ns <= 0 or step_ns > self.MAX_GAP_NS:
                self._frames.clear()
            self.lost += max(0, round(step_ns / STEP_NS) - 1)
        self._frames.append(frame)
        self.received += 1
        return True

    def clear(self) -> None:
        """Forget the frames; the counts stay."""
        self._frames.clear()

    @property
    def newest(self) -> CameraFrame | None:
        """The last frame, None when empty."""
        return self._frames[-1] if self._frames else None

    def images(self, count: int = FRAMES_PER_CAMERA) -> dict[str, NDArray[np.uint8]]:
        """Camera name -> (n, H, W, 3) newest frames, n from 1 to ``count``, oldest first; IndexError when empty."""
        shown = list(self._frames)[-count:]
        return {
            name: np.stack([frame.images[name] for frame in shown if frame.images[name].shape == newest.shape])
            for name, newest in shown[-1].images.items()
        }


def newest_observation(
    frames: FrameBuffer, poses: PoseBuffer, count: int = FRAMES_PER_CAMERA, rolling_mps: float = 0.0
) -> Observation | None:
    """The observation at the newest frame, with up to ``count`` frames; see :func:`rolling` for ``rolling_mps``.

    None until odometry surrounds the frame's stamp (it arrives up to 20 ms later) and reaches back far enough.
    """
    newest = frames.newest
    history = None if newest is None else poses.history(newest.stamp_ns)
    if newest is None or history is None:
        return None
    speed_mps = poses.speed_at(newest.stamp_ns)
    return rolling(Observation(newest.stamp_ns, frames.images(count), history, speed_mps), rolling_mps)


def rolling(observation: Observation, speed_mps: float) -> Observation:
    """The observation, with the history of a kart rolling straight at ``speed_mps`` if it is slower than that."""
    if observation.speed_mps is None or observation.speed_mps >= speed_mps:
        return observation
    history = np.zeros((HISTORY_STEPS, 3))
    history[:, 0] = speed_mps * STEP_S * np.arange(1 - HISTORY_STEPS, 1)
    return replace(observation, history=history, speed_mps=speed_mps)


class TimeRate:
    """How many seconds of vehicle time pass per steady second, from message stamps and arrivals.

    AWSIM and our simulator can run faster or slower than real time; control rate and watchdog limits mean vehicle
    time. The estimate looks back over two steady seconds, and is bounded, so that a stalling sender cannot put the
    watchdog to sleep.
    """

    WINDOW_S, LOWEST, HIGHEST = 2.0, 0.25, 8.0

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, int]] = deque()

    def add(self, steady_s: float, stamp_ns: int) -> None:
        """Note a message with ``stamp_ns`` that arrived at ``steady_s``."""
        if self._pairs and stamp_ns < self._pairs[-1][1]:
            self._pairs.clear()
        self._pairs.append((steady_s, stamp_ns))
        while steady_s - self._pairs[0][0] > self.WINDOW_S:
            self._pairs.popleft()

    @property
    def value(self) -> float:
        """The estimate, 1.0 until half a second has been seen."""
        if len(self._pairs) < 2:
            return 1.0
        (first_s, first_ns), (last_s, last_ns) = self._pairs[0], self._pairs[-1]
        if last_s - first_s < 0.5:
            return 1.0
        return min(max((last_ns - first_ns) * 1e-9 / (last_s - first_s), self.LOWEST), self.HIGHEST)
