"""Samples of karts on circles, alone or as a dataset folder with pictures, for tests of the evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from collector.dataset.schema import Curve, DatasetWriter, Sample, TextClaim
from collector.reasoning.consistency import measure_motion, parse_claim
from collector.reasoning.writing import write_reasoning
from collector.ros.images import encode_jpeg

STEP_NS = 200_000_000


def arc(curvature_1pm: float, speed_mps: float = 4.0, steps: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """History (16, 3) and future (64, 3) of a kart on a circle."""
    t = 0.1 * np.concatenate([np.arange(-15, 1), np.arange(1, steps + 1)])
    yaw = curvature_1pm * speed_mps * t
    if abs(curvature_1pm) < 1e-9:
        path = np.stack([speed_mps * t, 0 * t, yaw], axis=1)
    else:
        path = np.stack([np.sin(yaw) / curvature_1pm, (1 - np.cos(yaw)) / curvature_1pm, yaw], axis=1)
    return path[:16], path[16:]


def make_sample(
    curvature_1pm: float = 0.0,
    stamp_ns: int = 10**9,
    speed_mps: float = 4.0,
    bag: str = "bag",
    lap: int = 1,
    split: str = "val",
    reasoning: str | None = None,
) -> Sample:
    """A kart on a circle, with the reasoning that is true of it."""
    history, future = arc(curvature_1pm, speed_mps)
    motion = measure_motion(future)
    text = write_reasoning(motion, seed=0) if reasoning is None else reasoning
    claim = parse_claim(text)
    names = tuple(f"images/{bag}_{stamp_ns - back * 100_000_000}.jpg" for back in (3, 2, 1, 0))
    return Sample(
        file_name=names[-1], frames=names, id=f"{bag}_{stamp_ns}", bag=bag, lap=lap, stamp_ns=stamp_ns,
        reasoning=text, history=tuple(map(tuple, history.tolist())), future=tuple(map(tuple, future.tolist())),
        speed_mps=speed_mps,
        curve=Curve(
            label=motion.curve.label, max_abs_curvature_1pm=motion.curve.max_abs_curvature_1pm,
            entry_m=motion.curve.entry_m, turn_rad=motion.curve.turn_rad,
        ),
        claim=TextClaim(lateral=claim.lateral, longitudinal=claim.longitudinal), split=split,
    )  # fmt: skip


def make_stretches(count: int, each: int, split: str = "val", bag: str = "bag", first_lap: int = 1) -> list[Sample]:
    """Laps of ``each`` samples, straight, left and right in turn, slowly changing within a lap."""
    samples = []
    for lap in range(count):
        for step in range(each):
            curvature = (0.0, 0.1, -0.2)[lap % 3] * (1.0 + 0.02 * step)
            stamp_ns = (1 + 30 * (first_lap + lap)) * 10**9 + step * STEP_NS
            speed_mps = 3.0 + 0.3 * (lap % 4) + 0.01 * step
            samples.append(make_sample(curvature, stamp_ns, speed_mps, bag, first_lap + lap, split))
    return samples


def write_dataset(folder: Path, samples: Iterable[Sample]) -> Path:
    """The samples as a dataset folder; a picture's colour follows the curve."""
    generator = np.random.default_rng(0)
    with DatasetWriter(folder) as writer:
        for sample in samples:
            for name in sample.frames:
                image = generator.integers(0, 80, (48, 72, 3), dtype=np.uint8)
                image[:, :, {"left": 0, "right": 2}.get(sample.curve.label, 1)] += 150
                stamp_ns = int(Path(name).stem.rsplit("_", 1)[1])
                writer.add_image(sample.bag, stamp_ns, encode_jpeg(image, 90))
            writer.write(sample)
        writer.finish({"made_by": "a test"})
    return folder
