"""Odometry that a kart can have passes, noise and all; what contradicts itself does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from closed_loop.control.odometry_health import OdometryHealth
from tests.helpers.driver_faults import FAULTS, Fault, Injected, Odometry

RADIUS_M, SPEED_MPS, HZ = 8.0, 4.0, 50


def circle(t_s: float, ahead_m: float = 0.0) -> Odometry:
    angle = SPEED_MPS * t_s / RADIUS_M
    x, y = (
        RADIUS_M * math.sin(angle) + ahead_m * math.cos(angle),
        -RADIUS_M * math.cos(angle) + ahead_m * math.sin(angle),
    )
    return Odometry(round(t_s * 1e9), x, y, angle, SPEED_MPS)


def judged(messages: list[Odometry], still_s: float = 0.0) -> list[str]:
    health = OdometryHealth()
    return [
        health.impossible((m.x, m.y, m.yaw), m.speed) or health.judge(m.stamp_ns, (m.x, m.y, m.yaw), m.speed, still_s)
        for m in messages
    ]


def noisy(message: Odometry, draw: np.random.Generator) -> Odometry:
    x, y, yaw, speed = draw.standard_normal(4) * (0.03, 0.03, 0.01, 0.1)
    return replace(message, x=message.x + x, y=message.y + y, yaw=message.yaw + yaw, speed=message.speed + speed)


@pytest.mark.parametrize(
    "change",
    [
        lambda m, draw: m,
        noisy,
        lambda m, draw: circle(m.stamp_ns * 1e-9, 1.07),  # of a point on the front axle
        lambda m, draw: replace(m, speed=1.1 * m.speed),  # wheels of another size
    ],
    ids=["exact", "noisy", "front axle", "ten percent fast"],
)
def test_a_kart_on_a_circle_is_believed(change: Callable[[Odometry, np.random.Generator], Odometry]) -> None:
    draw = np.random.default_rng(5)
    assert not any(judged([change(circle(step / HZ), draw) for step in range(400)]))


ODOMETRY = [
    fault
    for fault in FAULTS
    if "odometry" in fault.changes and fault.expected == "brake" and "frame" not in fault.changes
    and not any(word in fault.name for word in ("silent", "repeated", "stuck", "stamps", "late"))
]  # fmt: skip


@pytest.mark.parametrize("fault", ODOMETRY, ids=lambda fault: fault.name)
def test_each_kind_is_refused_within_four_tenths(fault: Fault) -> None:
    injected, messages = Injected(fault), []
    for step in range(200):
        messages += injected.passed("odometry", (step - 100) / HZ if step >= 100 else None, circle(step / HZ))
    verdicts = judged(messages)
    assert not any(verdicts[:100])
    assert any(verdicts[100:120]), "noticed"
    # Where x and y meet, swapping them makes no step, and the heading is checked only by the motion that follows.
    if "jumps" not in fault.name and "swapped" not in fault.name:
        assert all(verdicts[120:]), verdicts[120:]


def test_a_speed_that_falls_to_nothing_is_believed_when_the_picture_stands() -> None:
    messages = [circle(step / HZ) for step in range(100)]
    last = messages[-1]
    messages += [replace(last, stamp_ns=last.stamp_ns + n * 20_000_000, speed=0.0) for n in range(1, 200)]
    assert all(judged(messages)[101:]), "the picture goes on changing"
    assert not any(judged(messages, still_s=1.0)[200:])


def test_a_start_and_a_hard_stop_are_believed() -> None:
    speeds = np.concatenate([np.zeros(50), np.arange(0, 5, 0.03), np.arange(5, 0, -0.06), np.zeros(100)])
    x = np.concatenate([[0.0], np.cumsum((speeds[1:] + speeds[:-1]) / 2.0 / HZ)])
    rows = zip(x.tolist(), speeds.tolist(), strict=True)
    assert not any(judged([Odometry(n * 20_000_000, px, 0.0, 0.0, v) for n, (px, v) in enumerate(rows)]))
