"""Reports of wheels and speed, judged by the commands before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from closed_loop.control.answer_health import AnswerHealth

TICK_S = 0.025


def driven(
    told: Callable[[float], tuple[float, float]],
    speed: Callable[[float], float],
    seconds: float = 4.0,
    moves: bool = True,
) -> tuple[AnswerHealth, list[tuple[float, str]]]:
    """A drive whose speed is reported at every tick, and what was refused of it when."""
    health, refused = AnswerHealth(), []
    for number in range(round(seconds / TICK_S)):
        at_s = number * TICK_S
        if defect := health.speed(speed(at_s), moves):
            refused.append((at_s, defect))
        health.told(*told(at_s), at_s, 1.0)
    return health, refused


@pytest.mark.parametrize(
    ("accel", "speed"),
    [
        (lambda t: 1.0, lambda t: 5.0),  # as fast as the kart can go
        (lambda t: 0.5, lambda t: 5.0 - 0.3 * t),  # uphill
        (lambda t: -3.0, lambda t: max(0.0, 5.0 - 3.0 * t)),
        (lambda t: -3.0 if t < 1.0 else 1.0, lambda t: 5.0 - 3.0 * min(max(t - 0.3, 0.0), 1.0) + max(t - 1.4, 0.0)),
        (lambda t: 1.0, lambda t: t),
        (lambda t: 0.0, lambda t: 5.0 + 0.2 * (int(t / TICK_S) % 2)),
        (lambda t: -0.5, lambda t: 0.0),  # held on the grid while others pass
    ],
    ids=["top speed", "uphill", "braking", "braking and on", "starting", "noise", "held"],
)
def test_what_a_kart_does_is_believed(accel: Callable[[float], float], speed: Callable[[float], float]) -> None:
    assert not driven(lambda t: (0.0, accel(t)), speed)[1]


@pytest.mark.parametrize("per_s", [1.0, 2.5])
def test_a_speed_that_falls_while_the_kart_is_pushed_is_none(per_s: float) -> None:
    refused = driven(lambda t: (0.0, 1.0), lambda t: max(0.0, 5.0 - per_s * t))[1]
    assert refused and refused[0][0] < 2.0 and "the speed fell by" in refused[0][1]


def test_a_pushed_kart_that_sees_the_world_move_does_not_stand() -> None:
    refused = driven(lambda t: (0.0, 1.0), lambda t: 0.0)[1]
    assert refused and refused[0][0] < 0.6 and "the picture moves" in refused[0][1]
    assert not driven(lambda t: (0.0, 1.0), lambda t: 0.0, moves=False)[1], "before the start, say"


def test_a_kart_that_is_put_elsewhere_may_stand_there() -> None:
    health, _ = driven(lambda t: (0.0, 1.0), lambda t: 5.0)
    health.reset()
    assert not health.speed(0.0, False)


def test_a_kart_that_goes_backwards_is_stopped_and_one_that_trembles_is_not() -> None:
    refused = driven(lambda t: (0.0, 1.0), lambda t: -t, moves=False)[1]
    assert refused and refused[0][0] < 0.6 and "backwards" in refused[0][1]
    assert not driven(lambda t: (0.0, -1.0), lambda t: -0.1)[1]


@pytest.mark.parametrize("share", [0.6, 1.0, 1.8])
def test_wheels_of_a_kart_that_nobody_identified_are_believed(share: float) -> None:
    health, _ = driven(lambda t: (0.4, 0.0), lambda t: 4.0)
    assert not health.steering(share * 0.62 * 0.4)


@pytest.mark.parametrize("angle", [0.0, -0.248, 0.7, float("nan")])
def test_wheels_that_do_not_follow_are_not(angle: float) -> None:
    health, _ = driven(lambda t: (0.4, 0.0), lambda t: 4.0)
    assert "where 0.25 was to be expected" in health.steering(angle)


def test_wheels_have_time_to_follow_and_need_not_turn_where_they_stand() -> None:
    health, _ = driven(lambda t: (0.4 if t > 3.5 else -0.4, 0.0), lambda t: 4.0)
    assert not health.steering(-0.24) and not health.steering(0.24)
    standing, _ = driven(lambda t: (0.4, 0.0), lambda t: 0.0)
    assert not standing.steering(0.0)
