"""Does a flow that must travel far need more Euler steps? On flows whose velocity is known exactly.

    python benchmarks/exact_flow.py

Ends lie 0, 3 and 8 standard deviations away, the last as far as a kart's hairpin in the released normalisation. A
single end is reached with any number of steps, and one known to within 0.3 is missed by as much wherever it lies: the
flow's path from noise to action is straight. What needs steps is doubt between two far ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
MEANS, SPREAD = (0.0, 3.0, 8.0), 0.3
EULER_STEPS = (5, 10, 20, 50)


def euler_gaussian(mean: float, spread_: float, x0: ArrayLike, steps: int) -> FloatArray:
    """Euler along the exact flow from N(0, 1) to N(mean, spread^2); spread 0 is a single point, the linear flow.

    x_t is N(t mean, t^2 spread^2 + (1 - t)^2), and the velocity E[x_1 - x_0 | x_t] is linear in x_t. With any number of
    steps the mean moves exactly by ``mean``; only the width is off. The exact end is ``mean + spread * x0``.
    """
    x: FloatArray = np.asarray(x0, np.float64)
    for t in np.arange(steps) / steps:
        variance = t**2 * spread_**2 + (1.0 - t) ** 2
        x = x + (mean + (t * spread_**2 - (1.0 - t)) / variance * (x - t * mean)) / steps
    return x


def euler_two_ends(mean: float, spread_: float, x0: ArrayLike, steps: int) -> FloatArray:
    """Euler along the exact flow to an even mixture of N(mean, spread^2) and N(-mean, spread^2): left or right."""
    x: FloatArray = np.asarray(x0, np.float64)
    for t in np.arange(steps) / steps:
        variance = t**2 * spread_**2 + (1.0 - t) ** 2
        slope = (t * spread_**2 - (1.0 - t)) / variance
        towards_left = 0.5 * (1.0 + np.tanh(t * mean * x / variance))
        velocity = sum(
            share * (end + slope * (x - t * end)) for share, end in ((towards_left, mean), (1.0 - towards_left, -mean))
        )
        x = x + velocity / steps
    return x


def main() -> None:
    """Print the errors of the end point in standard deviations, by steps and by how far the flow must travel."""
    x0 = np.random.default_rng(0).standard_normal(4000)
    print(f"ends at {', '.join(f'{mean:g}' for mean in MEANS)} standard deviations")
    print(
        f"{'steps':>5}  {'single end: largest error':<28}{f'known to {SPREAD:g}: RMS error':<28}two ends: lost between"
    )
    for steps in EULER_STEPS:
        point = [np.abs(euler_gaussian(mean, 0.0, x0, steps) - mean).max() for mean in MEANS]
        known = [euler_gaussian(mean, SPREAD, x0, steps) - (mean + SPREAD * x0) for mean in MEANS]
        lost = [np.abs(np.abs(euler_two_ends(mean, SPREAD, x0, steps)) - mean) > 3.0 * SPREAD for mean in MEANS]
        cells = (
            " ".join(f"{error:.0e}" for error in point),
            " ".join(f"{np.sqrt(np.mean(error**2)):.3f}" for error in known),
            " ".join(f"{share.mean():.0%}" for share in lost),
        )
        print(f"{steps:>5}  {cells[0]:<28}{cells[1]:<28}{cells[2]}")


if __name__ == "__main__":
    main()
