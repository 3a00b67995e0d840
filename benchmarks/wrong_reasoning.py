"""Is a kart that says the wrong thing worse off than one that says nothing? Laps in our simulator.

    python benchmarks/wrong_reasoning.py --adapter runs/lora/adapter --courses random:9101 random:9103

One adapter drives four times from the same starts: with its own reasoning, with none (the baseline), with its own in
which left and right are exchanged, and with its own in which slowing down and speeding up are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closed_loop.comparison.runs import VARIANTS, RunSettings, drive_run
from collector.common.tables import metres
from collector.reasoning.writing import swap_sides
from finetune import TINY_BASE
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.policy import Observation, Plan
from finetune.studies.stages import plan_with_reasonings

PACES = {"slow down": "speed up", "speed up": "slow down", "hold the speed": "speed up", "keep the speed": "slow down"}


def swap_pace(text: str) -> str:
    """Slow down for speed up and the other way round."""
    for words, others in PACES.items():
        if words in text:
            return text.replace(words, others)
    return text


class SaysOtherwise:
    """A policy that drives by what ``say`` makes of its own reasoning."""

    def __init__(self, policy: AlpamayoPolicy, say: Callable[[str], str]) -> None:
        self.policy, self.say, self.cameras = policy, say, policy.cameras
        self.changed: list[bool] = []

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        own = [plan.reasoning for plan in self.policy.plan_many(observations)]
        said = [self.say(text) or text for text in own]
        self.changed += [one != other for one, other in zip(own, said, strict=True)]
        if not all(said):  # a text cut off to nothing: its own plan
            return self.policy.plan_many(observations)
        return [plan for plan, _ in plan_with_reasonings(self.policy, observations, said)]


def drive(policy: Any, courses: Sequence[str], starts: int) -> list[dict[str, Any]]:
    """The deviations of each course."""
    settings = RunSettings(starts=starts)
    return [drive_run(VARIANTS["adapter-mono"], name, policy, settings)[0]["deviation"] for name in courses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=TINY_BASE)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--courses", nargs="+", default=["random:9101", "random:9103"])
    parser.add_argument("--starts", type=int, default=2)
    arguments = parser.parse_args()
    policy = AlpamayoPolicy(arguments.model, arguments.adapter)
    silent = AlpamayoPolicy(arguments.model, arguments.adapter, reasoning=False)
    sides, pace = SaysOtherwise(policy, swap_sides), SaysOtherwise(policy, swap_pace)
    arms = {"none": silent, "its own": policy, "left for right": sides, "slow down for speed up": pace}
    print(f"{'reasoning':<24}{'max':>8}{'to none':>9}{'RMS':>8}{'off-track':>11}{'laps':>8}{'changed':>9}")
    least = None
    for name, one in arms.items():
        rows = drive(one, arguments.courses, arguments.starts)
        worst = max(row["on_curves"]["max_m"] for row in rows)
        least = worst if least is None else least
        rms = float(np.sqrt(np.mean([row["on_curves"]["rms_m"] ** 2 for row in rows])))
        off, laps = sum(row["off_track_events"] for row in rows), sum(row["laps_finished"] for row in rows)
        changed = f"{np.mean(one.changed):.0%}" if isinstance(one, SaysOtherwise) else "-"
        print(
            f"{name:<24}{metres(worst):>8}{worst - least:>+8.2f}m{rms:>6.2f} m{off:>11}{laps:>8g}{changed:>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
