"""What the driver remembers: recent poses, recent frames, and how fast the vehicle's time runs.

Pure numpy, filled by a node: each buffer keeps what an observation can still need.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.geometry.constants import STEP_NS
from collector.geometry.discontinuity import LATE, discontinuity
from collector.geometry.poses import FloatArray, interpolate_poses, to_ego
from finetune.policy import FRAMES_PER_CAMERA, HISTORY_STEPS, STEP_S, Observation

HISTORY_SPAN_NS = (HISTORY_STEPS - 1) * STEP_NS
STANDING_MPS = 0.3
WAY_STEP_M = 0.1  # the way a vehicle came is remembered in steps of this length
GAP_S = 1.0  # poses farther apart than this are not interpolated
KEPT_NS = 10_000_000_000

Pose = tuple[float, float, float]
Images = Mapping[str, NDArray[np.uint8]]


class PoseBuffer:
    """The last seconds of odometry, by stamp."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, Pose, float, float]] = deque()
        self._arrays: tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray] | None = None
        # Driven forwards since the beginning; by speed, which noise on the places does not lengthen.
        self.travelled_m = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, stamp_ns: int, pose_map: Pose, speed_mps: float) -> bool:
        """Append one odometry message; True when the vehicle or its clock jumped.

        After a reset, a teleport, a stamp far in the past or a long gap everything remembered has been dropped, and
        plans made before mean nothing. A repeated or slightly late message is ignored.
        """
        why = ""
        if self._rows:
            last_ns, last_pose, last_mps, _ = self._rows[-1]
            why = discontinuity(stamp_ns - last_ns, math.dist(pose_map[:2], last_pose[:2]), max_gap_s=GAP_S)
            if why == LATE:
                return False
            if why:
                self._rows.clear()
            else:
                self.travelled_m += (max(last_mps, 0.0) + max(speed_mps, 0.0)) * 0.5e-9 * (stamp_ns - last_ns)
        self._arrays = None
        self._rows.append((stamp_ns, pose_map, speed_mps, self.travelled_m))
        while stamp_ns - self._rows[0][0] > KEPT_NS:
            self._rows.popleft()
        return bool(why)

    def clear(self) -> None:
        """Forget the poses; the way travelled stays."""
        self._rows.clear()
        self._arrays = None

    @property
    def newest(self) -> tuple[int, FloatArray, float] | None:
        """(stamp_ns, pose (3,) in the map, speed_mps) of the last message, None when empty."""
        if not self._rows:
            return None
        stamp_ns, pose_map, speed_mps, _ = self._rows[-1]
        return stamp_ns, np.array(pose_map), speed_mps

    def covers(self, stamp_ns: int) -> bool:
        """Whether the pose at this stamp lies between two remembered ones."""
        return len(self._rows) >= 2 and self._rows[0][0] <= stamp_ns <= self._rows[-1][0]

    def pose_at(self, stamp_ns: int) -> FloatArray:
        """(3,) map pose at a covered stamp; ValueError otherwise."""
        stamps, poses, _, _ = self._table()
        return interpolate_poses(stamps, poses, [stamp_ns]).reshape(3)

    def speed_at(self, stamp_ns: int) -> float:
        """Speed at a covered stamp, m/s."""
        stamps, _, speeds, _ = self._table()
        return float(np.interp(stamp_ns - stamps[0], stamps - stamps[0], speeds))

    def travelled_at(self, stamp_ns: int) -> float:
        """What ``travelled_m`` was at a covered stamp."""
        stamps, _, _, travelled_m = self._table()
        return float(np.interp(stamp_ns - stamps[0], stamps - stamps[0], travelled_m))

    def rolling(self, stamp_ns: int, speed_mps: float) -> FloatArray:
        """(16, 3) ego poses of a vehicle that came the same way to where it was at a covered stamp, at this speed.

        Beyond the oldest place remembered it came straight.
        """
        stamps, poses, _, _ = self._table()
        now = self.pose_at(stamp_ns)
        asked_m = speed_mps * STEP_S * np.arange(HISTORY_STEPS - 1, -1, -1)
        # The way back from now, in steps that noise on a standing vehicle does not make.
        way, back_m = [now], [0.0]
        before = poses[: int(np.searchsorted(stamps, stamp_ns))]
        while back_m[-1] < asked_m[0]:
            away_m = np.hypot(*(before[:, :2] - way[-1][:2]).T)
            far = np.flatnonzero(away_m >= WAY_STEP_M)
            if not len(far):
                break
            way.append(before[far[-1]])
            back_m.append(back_m[-1] + float(away_m[far[-1]]))
            before = before[: far[-1]]
        x, y, yaw_rad = np.array(way).T
        yaw_rad = np.unwrap(yaw_rad)
        beyond_m = np.maximum(asked_m - back_m[-1], 0.0)
        shown = np.stack([np.interp(asked_m, back_m, each) for each in (x, y, yaw_rad)], axis=1)
        shown[:, :2] -= beyond_m[:, None] * (math.cos(yaw_rad[-1]), math.sin(yaw_rad[-1]))
        return to_ego(shown, now)

    def history(self, stamp_ns: int) -> FloatArray | None:
        """(16, 3) ego poses at t0-1.5 s ... t0 for a covered stamp t0, or None while too little is known.

        A vehicle that stood still at the oldest pose is taken to have stood there before.
        """
        if not self.covers(stamp_ns):
            return None
        query = stamp_ns - HISTORY_SPAN_NS + STEP_NS * np.arange(HISTORY_STEPS, dtype=np.int64)
        oldest_ns, _, oldest_mps, _ = self._rows[0]
        if query[0] < oldest_ns and abs(oldest_mps) > STANDING_MPS:
            return None
        stamps, poses, _, _ = self._table()
        shown = interpolate_poses(stamps, poses, np.maximum(query, oldest_ns))
        return to_ego(shown, shown[-1])

    def _table(self) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray]:
        """Stamps (N,), poses (N, 3), speeds (N,) and metres travelled (N,), made once for all who ask at an instant."""
        if self._arrays is None:
            stamps, poses, speeds, travelled_m = zip(*self._rows, strict=True)
            self._arrays = np.array(stamps), np.array(poses), np.array(speeds), np.array(travelled_m)
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

    def is_news(self, stamp_ns: int) -> bool:
        """Whether a frame of this moment is newer than the last, or of a clock that began anew."""
        return not self._frames or not -self.MAX_GAP_NS < stamp_ns - self._frames[-1].stamp_ns <= 0

    def add(self, frame: CameraFrame) -> bool:
        """Append a frame; False for one that is not newer than the last (repeated by the sender)."""
        if not self.is_news(frame.stamp_ns):
            return False
        if self._frames:
            step_ns = frame.stamp_ns - self._frames[-1].stamp_ns
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
    """The observation at the newest frame, with up to ``count`` frames; a slower kart is shown at ``rolling_mps``.

    None until odometry surrounds the frame's stamp (it arrives up to 20 ms later) and reaches back far enough.
    """
    newest = frames.newest
    history = None if newest is None else poses.history(newest.stamp_ns)
    if newest is None or history is None:
        return None
    speed_mps = poses.speed_at(newest.stamp_ns)
    if speed_mps < rolling_mps:
        history, speed_mps = poses.rolling(newest.stamp_ns, rolling_mps), rolling_mps
    return Observation(newest.stamp_ns, frames.images(count), history, speed_mps)


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
