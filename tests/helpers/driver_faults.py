"""What can go wrong with a driver's inputs, each fault as plain functions, in process and over ROS 2 the same.

A fault begins at a moment and ends at another; between them every message of its stream passes through it. Streams are
``frame``, ``odometry`` (localisation), ``wheels`` (speed alone, which dead reckoning makes poses of), ``steering``
(its ``speed`` is the tyre angle), ``clock`` and ``plan``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Frame:
    stamp_ns: int
    image: np.ndarray  # (H, W, 3) RGB
    encoding: str = "bgr8"
    late_s: float = 0.0


@dataclass(frozen=True)
class Odometry:
    stamp_ns: int
    x: float
    y: float
    yaw: float
    speed: float
    rate: float = 0.0
    late_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """Of a policy: a plan's poses, or an error, silence or its death."""

    poses: np.ndarray
    late_s: float = 0.0
    what: str = "plan"  # or error, hang, die
    reasoning: str | None = "Follow the road."


Memory = dict[str, Any]  # what a fault keeps between messages
Change = Callable[[Memory, float, Any], Any]  # memory, seconds since it began, message -> message, several, or None


@dataclass(frozen=True)
class Fault:
    """One kind; ``expected`` is ``brake``, ``none`` (nothing may brake) or ``degrade`` (documented)."""

    name: str
    changes: dict[str, Change]
    expected: str = "brake"
    recovers: bool = True  # the kart drives on after the fault has ended
    processes_only: bool = False
    signals: str = ""  # of processes: which one is stopped now and again


@dataclass
class Injected:
    """A fault at work on the streams of one drive."""

    fault: Fault
    memory: Memory = field(default_factory=dict)

    def passed(self, stream: str, since_s: float | None, message: Any) -> Iterator[Any]:
        """What becomes of a message; ``since_s`` is None while the fault is not on."""
        change = self.fault.changes.get(stream)
        if change is None:
            yield message
            return
        if since_s is None:
            self.memory.setdefault("before", {})[stream] = message
            yield message
            return
        changed = change(self.memory, since_s, message)
        if changed is None:
            return
        yield from changed if isinstance(changed, list) else [changed]


# Pictures.


def picture(paint: Callable[[np.ndarray], np.ndarray]) -> dict[str, Change]:
    return {"frame": lambda memory, t, f: replace(f, image=paint(f.image))}


def noise_of(image: np.ndarray, cell: int = 1) -> np.ndarray:
    height, width = image.shape[:2]
    small = np.random.default_rng().integers(0, 256, (-(-height // cell), -(-width // cell), 3), dtype=np.uint8)
    return small.repeat(cell, 0).repeat(cell, 1)[:height, :width].copy()


def part(image: np.ndarray, rows: slice, columns: slice, value: int = 0) -> np.ndarray:
    image = image.copy()
    height, width = image.shape[:2]
    cut = [
        slice(*(round(share * size) for share in (part.start or 0.0, part.stop or 1.0)))
        for part, size in ((rows, height), (columns, width))
    ]
    image[cut[0], cut[1]] = value
    return image


ALL = slice(0.0, 1.0)


def first(memory: Memory, stream: str, message: Any) -> Any:
    """The last message before the fault."""
    return memory.get("before", {}).get(stream, message)


def frozen(noise: int = 0) -> Change:
    def change(memory: Memory, t: float, frame: Frame) -> Frame:
        image = first(memory, "frame", frame).image
        if noise:
            trembling = np.random.default_rng(frame.stamp_ns % 2**31).integers(-noise, noise + 1, image.shape)
            image = (image.astype(np.int16) + trembling).clip(0, 255).astype(np.uint8)
        return replace(frame, image=image)

    return change


def stamped(shift: Callable[[Memory, float, Any], int]) -> Change:
    return lambda memory, t, m: replace(m, stamp_ns=shift(memory, t, m))


def bursts(memory: Memory, t: float, frame: Frame) -> list[Frame] | None:
    waiting = memory.setdefault("waiting", [])
    waiting.append(frame)
    if len(waiting) < 6:
        return None
    memory["waiting"] = []
    return waiting


def slow(memory: Memory, t: float, frame: Frame) -> Frame | None:
    memory["count"] = memory.get("count", -1) + 1
    return frame if memory["count"] % 6 == 5 else None


def swapped_pairs(memory: Memory, t: float, frame: Frame) -> list[Frame] | None:
    before = memory.pop("pair", None)
    if before is None:
        memory["pair"] = frame
        return None
    return [frame, before]


# Odometry.


def moved(**changes: Callable[[Odometry], float]) -> Change:
    return lambda memory, t, o: replace(o, **{name: value(o) for name, value in changes.items()})


def slowed(stream: str, share: float) -> Change:
    def change(memory: Memory, t: float, message: Any) -> Any:
        start_ns = memory.setdefault("start", message.stamp_ns)
        return replace(message, stamp_ns=start_ns + round((message.stamp_ns - start_ns) * share))

    return change


def still(memory: Memory, t: float, message: Odometry) -> Odometry:
    before = first(memory, "odometry", message)
    return replace(message, x=before.x, y=before.y, yaw=before.yaw, speed=before.speed)


def standing(memory: Memory, t: float, message: Odometry) -> Odometry:
    return replace(still(memory, t, message), speed=0.0)


def stuck(memory: Memory, t: float, message: Odometry) -> Odometry:
    return replace(message, speed=first(memory, "steering", message).speed)


def now_and_again(value: Callable[[Odometry], Odometry]) -> Change:
    def change(memory: Memory, t: float, message: Odometry) -> Odometry:
        memory["count"] = memory.get("count", 0) + 1
        return value(message) if memory["count"] % 10 == 0 else message

    return change


# Plans.


def bent(curvature_1pm: float, after_m: float = 0.0, speed_mps: float = 4.0) -> Callable[[np.ndarray], np.ndarray]:
    def plan(_poses: np.ndarray) -> np.ndarray:
        s_m = speed_mps * 0.1 * np.arange(1, 65)
        angle = curvature_1pm * np.maximum(s_m - after_m, 0.0)
        steps = np.diff(np.concatenate([[0.0], s_m]))
        xy = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * steps[:, None], axis=0)
        return np.column_stack([xy, angle])

    return plan


def planned(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Change]:
    return {"plan": lambda memory, t, a: replace(a, poses=change(a.poses.copy()))}


def answered(**changes: Any) -> dict[str, Change]:
    return {"plan": lambda memory, t, a: replace(a, **changes)}


def not_numbers(poses: np.ndarray) -> np.ndarray:
    poses[20:, 1] = np.nan
    return poses


def jittering(memory: Memory, t: float, answer: Answer) -> Answer:
    return replace(
        answer, late_s=float(np.random.default_rng(memory.setdefault("seed", 1)).random()) * 0.1 + _next(memory)
    )


def _next(memory: Memory) -> float:
    memory["seed"] += 1
    return 0.6 * float(np.random.default_rng(memory["seed"]).random())


_OTHER_CLOCK_NS = 1_700_000_000 * SECOND
_silent: Change = lambda memory, t, m: None  # noqa: E731
_repeated: Change = lambda memory, t, m: first(memory, "odometry", m)  # noqa: E731


def _unsteady(memory: Memory, t: float, message: Any) -> Any:
    draw = memory.setdefault("draw", np.random.default_rng(2))
    return replace(message, late_s=0.06 * float(draw.random()))


def _named(kinds: dict[str, Any]) -> list[Fault]:
    made = []
    for name, kind in kinds.items():
        changes, options = kind if isinstance(kind, tuple) else (kind, {})
        made.append(Fault(name, changes, **options))
    return made


BLACK: Change = picture(np.zeros_like)["frame"]
FREE: dict[str, Any] = {"expected": "none"}
DEGRADE: dict[str, Any] = {"expected": "degrade"}

FAULTS: list[Fault] = _named(
    {
        "camera silent": {"frame": _silent},
        "camera frozen, new stamps": {"frame": frozen()},
        "camera frozen, trembling": {"frame": frozen(1)},
        "camera black": {"frame": BLACK},
        "camera white": picture(lambda image: np.full_like(image, 255)),
        "camera grey": picture(lambda image: np.full_like(image, 120)),
        "camera black with noise": picture(lambda image: noise_of(image) // 40),
        "camera noise": picture(noise_of),
        "camera noise in blocks": picture(lambda image: noise_of(image, 20)),
        "camera of one pixel": picture(lambda image: image[:1, :1].copy()),
        "camera of half the size": picture(lambda image: image[::2, ::2].copy()),
        "camera of half the height": picture(lambda image: image[: len(image) // 2].copy()),
        "camera in an unknown encoding": {"frame": lambda memory, t, f: replace(f, encoding="nonsense")},
        "camera, red and blue swapped": picture(lambda image: image[..., ::-1].copy()),
        "camera, right half black": picture(lambda image: part(image, ALL, slice(0.5, 1.0))),
        "camera, lower half black": picture(lambda image: part(image, slice(0.5, 1.0), ALL)),
        "camera, lower half grey": picture(lambda image: part(image, slice(0.5, 1.0), ALL, 127)),
        "camera, upper half black": picture(lambda image: part(image, slice(0.0, 0.5), ALL)),
        "camera stamps 1 s behind": {"frame": stamped(lambda memory, t, f: f.stamp_ns - SECOND)},
        "camera stamps 0.5 s behind": {"frame": stamped(lambda memory, t, f: f.stamp_ns - SECOND // 2)},
        "camera stamps 0.3 s behind": ({"frame": stamped(lambda memory, t, f: f.stamp_ns - 3 * SECOND // 10)}, DEGRADE),
        "camera stamps 1 s ahead": {"frame": stamped(lambda memory, t, f: f.stamp_ns + SECOND)},
        "camera stamp constant": {"frame": stamped(lambda memory, t, f: first(memory, "frame", f).stamp_ns)},
        "camera stamps back by 5 s": {"frame": stamped(lambda memory, t, f: f.stamp_ns - 5 * SECOND)},
        "camera stamps zero": {"frame": stamped(lambda memory, t, f: 0)},
        "camera stamps of another clock": {"frame": stamped(lambda memory, t, f: f.stamp_ns + _OTHER_CLOCK_NS)},
        "camera at 1.7 Hz": {"frame": slow},
        "camera in bursts of six": {"frame": bursts},
        "camera frames twice": ({"frame": lambda memory, t, f: [f, f]}, FREE),
        "camera frames in pairs, the later first": ({"frame": swapped_pairs}, DEGRADE),
        "camera 0.6 s late": {"frame": lambda memory, t, f: replace(f, late_s=0.6)},
        "odometry silent": {"odometry": _silent, "wheels": _silent},
        "odometry repeated": {"odometry": _repeated},
        "odometry, stamp stuck": {"odometry": stamped(lambda memory, t, o: first(memory, "odometry", o).stamp_ns)},
        "odometry, values frozen": {"odometry": still},
        "odometry, wheel speed 0": {"odometry": moved(speed=lambda o: 0.0), "wheels": moved(speed=lambda o: 0.0)},
        "odometry says standing": {"odometry": standing, "wheels": moved(speed=lambda o: 0.0)},
        "odometry, speed negative": {"odometry": moved(speed=lambda o: -o.speed)},
        "odometry, speed doubled": {"odometry": moved(speed=lambda o: 2.0 * o.speed)},
        "odometry, yaw off by 90 degrees": {"odometry": moved(yaw=lambda o: o.yaw + math.pi / 2.0)},
        "odometry, yaw off by 180 degrees": {"odometry": moved(yaw=lambda o: o.yaw + math.pi)},
        "odometry 1e300": {"odometry": moved(x=lambda o: 1e300)},
        "odometry, a 1e300 now and again": ({"odometry": now_and_again(lambda o: replace(o, x=1e300))}, FREE),
        "odometry not a number": {"odometry": moved(y=lambda o: math.nan), "wheels": moved(speed=lambda o: math.nan)},
        "odometry jumps by 3 m": {"odometry": moved(x=lambda o: o.x + 3.0)},
        "odometry jumps by 0.8 m": {"odometry": moved(x=lambda o: o.x + 0.8)},
        "odometry drifts by 0.3 m/s": ({"odometry": lambda memory, t, o: replace(o, y=o.y + 0.3 * t)}, DEGRADE),
        "odometry, x and y swapped": {"odometry": moved(x=lambda o: o.y, y=lambda o: o.x)},
        "odometry stamps back by 5 s": {"odometry": stamped(lambda memory, t, o: o.stamp_ns - 5 * SECOND)},
        "odometry stamps slowed to a quarter": {"odometry": slowed("odometry", 0.25)},
        "odometry 0.6 s late": {"odometry": lambda memory, t, o: replace(o, late_s=0.6)},
        "odometry, yaw rate rubbish": (
            {"odometry": now_and_again(lambda o: replace(o, rate=1256.0)), "wheels": moved(rate=lambda o: 1256.0)},
            FREE,
        ),
        "wheel speed fades": (
            {"wheels": lambda memory, t, o: replace(o, speed=o.speed * max(0.0, 1 - t / 2))},
            DEGRADE,
        ),
        "steering silent": {"steering": _silent},
        "steering not a number": {"steering": moved(speed=lambda o: math.nan)},
        "steering off by 0.2 rad": {"steering": moved(speed=lambda o: o.speed + 0.2)},
        "steering in degrees": {"steering": moved(speed=lambda o: math.degrees(o.speed))},
        "steering, stamp stuck": {"steering": stamped(lambda memory, t, o: first(memory, "steering", o).stamp_ns)},
        "steering stuck": ({"steering": stuck}, DEGRADE),  # right until the bend begins
        "steering says straight on": ({"steering": moved(speed=lambda o: 0.0)}, DEGRADE),
        "steering mirrored": ({"steering": moved(speed=lambda o: -o.speed)}, DEGRADE),
        "all a little late, now more, now less": (dict.fromkeys(("frame", "odometry", "wheels"), _unsteady), FREE),
        "clock stopped": {"clock": lambda memory, t, c: first(memory, "clock", c)},
        "clock at half its pace": ({"clock": slowed("clock", 0.5)}, FREE | {"processes_only": True}),
        "plan not finite": planned(not_numbers),
        "plan begins 2 m aside": planned(lambda poses: poses + np.array([0.0, 2.0, 0.0])),
        "plan too bent for the wheels": planned(bent(0.8)),
        "plan too bent for the speed": planned(bent(0.4)),
        "plan backwards": planned(lambda poses: poses * (-1.0, 1.0, 1.0)),
        "plan of another shape": planned(lambda poses: poses[:10]),
        "plan off the road": planned(bent(-0.25, 1.0)),
        "plan mirrored": planned(lambda poses: poses * (1.0, -1.0, -1.0)),
        "plan constant": {"plan": lambda memory, t, a: replace(a, poses=first(memory, "plan", a).poses)},
        "plan standing": (planned(np.zeros_like), DEGRADE),
        "plans 0.4 s later": (answered(late_s=0.4), DEGRADE),
        "plans 0.55 s later": (answered(late_s=0.55), DEGRADE),
        "plans 1 s later": answered(late_s=1.0),
        "plans up to 0.7 s later": ({"plan": jittering}, DEGRADE),
        "policy hangs": (answered(what="hang"), {"recovers": False}),
        "policy dies": (answered(what="die"), {"recovers": False}),
        "policy answers errors": answered(what="error"),
        "policy gives no reasoning": (answered(reasoning=None), DEGRADE | {"processes_only": True}),
        "camera black, odometry frozen": {"frame": BLACK, "odometry": still},
        "camera frozen, policy slow": {"frame": frozen(), "plan": answered(late_s=0.5)["plan"]},
        "camera silent, odometry silent": {"frame": _silent, "odometry": _silent, "wheels": _silent},
        "driver starved": ({}, DEGRADE | {"processes_only": True, "signals": "driver"}),
        "policy starved": ({}, DEGRADE | {"processes_only": True, "signals": "policy"}),
    }
)
