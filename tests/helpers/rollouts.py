"""One drive of a rollout."""

from __future__ import annotations

from closed_loop.comparison.rollout import Rollout, RolloutConfig, drive_many
from closed_loop.course.course import Course
from closed_loop.simulator.expert import ExpertConfig
from closed_loop.simulator.world import World
from finetune.policy import Policy


def drive(
    world: World | Course, driver: Policy | ExpertConfig, config: RolloutConfig | None = None, seed: int = 0
) -> Rollout:
    """One drive; a course becomes a world with ``seed``."""
    placed = World(world, seed) if isinstance(world, Course) else world
    return drive_many([placed], driver, [config or RolloutConfig()])[0]
