"""Whether what a camera shows can be a picture of the way ahead: not dark, not torn, not noise, not always the same.

Pure numpy, and cheap: 36 x 64 samples of a picture are looked at (0.1 ms, whatever its size). Whether a picture that
does not change is a fault, the way driven meanwhile says: a standing kart sees the same again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits

_ROWS, _COLUMNS, _CELL = 36, 64, 4  # samples of a picture, and how many to each side of a block
_LOW = 2 * _ROWS // _CELL // 3  # the first row of blocks of the lower third
_DARK, _BRIGHT = 40.0, 215.0  # grey levels that a picture without contrast is called black or white by
_CHANGED = 1.0  # grey levels; noise of three moves the mean of a block by less
_FLAT_SHARE = 0.9  # of blocks without any structure: there is nothing else to see
_SWAP = 2.0  # grey levels by which red must have gone over blue, on average over a row, to be sure of a swap

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Sketch:
    """A picture in few numbers."""

    size: tuple[int, int]  # width and height, px
    samples: FloatImage  # (36, 64, 3)
    blocks: FloatImage  # (9, 16, 3) means
    flat: NDArray[np.bool_]  # (9, 16) blocks of one colour
    roughness: float  # mean difference of neighbouring pixels over the standard deviation
    warmth: FloatImage  # (9,) red over blue, by row

    @property
    def flat_share(self) -> float:
        return float(self.flat.mean())

    @property
    def flat_low(self) -> float:
        return float(self.flat[_LOW:].mean())


def _sketch(image: NDArray[np.uint8]) -> _Sketch:
    height, width = image.shape[:2]
    rows = np.linspace(0, height - 1, _ROWS).round().astype(np.intp)
    columns = np.linspace(0, width - 1, _COLUMNS).round().astype(np.intp)
    samples = image[np.ix_(rows, columns)].astype(np.float32)
    beside = image[np.ix_(rows, np.minimum(columns + 1, width - 1))]
    below = image[np.ix_(np.minimum(rows + 1, height - 1), columns)]
    roughness = max(float(np.abs(samples - other).mean()) for other in (beside, below)) / max(
        float(samples.std()), 1e-3
    )
    cells = samples.reshape(_ROWS // _CELL, _CELL, _COLUMNS // _CELL, _CELL, 3)
    blocks = cells.mean(axis=(1, 3))
    flat = (cells.max(axis=(1, 3)) == cells.min(axis=(1, 3))).all(axis=-1)
    return _Sketch((width, height), samples, blocks, flat, roughness, (blocks[..., 0] - blocks[..., 2]).mean(axis=1))


@dataclass
class _Camera:
    """What is remembered of one camera."""

    size: tuple[int, int] | None = None  # of its first good picture
    flat_share: float = 0.0  # and how much of it is of one colour (a bonnet, a sky)
    flat_low: float = 0.0
    before: _Sketch | None = None  # the picture before, good or not
    good: _Sketch | None = None  # the last good one
    # the first of the pictures that are all alike, and how far the kart had driven
    anchor: _Sketch | None = None
    anchor_m: float = 0.0


@dataclass
class PictureHealth:
    """Judges each picture by itself, by those before it, and by the way driven between them."""

    limits: SafetyLimits = DEFAULT_LIMITS
    moves: bool = False  # whether the newest picture shows that the kart moves
    still_since_s: float | None = None  # since when the pictures have not changed; None while they do
    _cameras: dict[str, _Camera] = field(default_factory=dict)

    def judge(self, images: Mapping[str, NDArray[np.uint8]], travelled_m: float, steady_s: float) -> str:
        """What is wrong with the pictures of an instant, (H, W, 3) uint8 RGB each, empty when they are good.

        ``travelled_m`` is how far the kart has driven, by its odometry.
        """
        defects, still, moves = [], True, False
        for name, image in images.items():
            camera = self._cameras.setdefault(name, _Camera())
            height, width = image.shape[:2]
            least = self.limits.picture_px
            if min(height, width) < least or image.ndim != 3:
                defects.append(f"{width} x {height} pixels, at least {least} x {least}")
                continue
            sketch = _sketch(image)
            before, camera.before = camera.before, sketch
            still = still and before is not None and self._alike(before, sketch)
            moves = moves or (before is not None and self._moved(before, sketch))
            defect = self._alone(sketch, camera) or self._compared(sketch, before, camera, travelled_m)
            if defect:
                defects.append(defect)
                continue
            if camera.size is None:
                camera.size, camera.flat_share, camera.flat_low = sketch.size, sketch.flat_share, sketch.flat_low
            camera.good = sketch
        self.moves = moves and not defects
        if not still or defects:
            self.still_since_s = None
        elif self.still_since_s is None:
            self.still_since_s = steady_s
        return defects[0] if defects else ""

    def still_s(self, steady_s: float) -> float:
        """For how long the pictures have been good and have not changed."""
        return 0.0 if self.still_since_s is None else steady_s - self.still_since_s

    def _alike(self, one: _Sketch, other: _Sketch) -> bool:
        return float(np.abs(one.blocks - other.blocks).mean()) < self.limits.picture_still

    def _moved(self, one: _Sketch, other: _Sketch) -> bool:
        """Whether so much of the picture changed that the kart moved, and not only somebody before it."""
        changed = np.abs(one.blocks - other.blocks).mean(axis=-1) > _CHANGED
        return float(changed.mean()) > self.limits.picture_moved

    def _alone(self, sketch: _Sketch, camera: _Camera) -> str:
        """What a picture shows by itself, and by the first of its drive."""
        limits = self.limits
        if camera.size not in (None, sketch.size):
            first = "{} x {}".format(*camera.size or ())
            return f"{sketch.size[0]} x {sketch.size[1]} pixels after {first}"
        contrast = float(sketch.blocks.std())
        if contrast < limits.picture_contrast or sketch.flat_share > _FLAT_SHARE:
            mean = float(sketch.blocks.mean())
            word = "black" if mean < _DARK else "white" if mean > _BRIGHT else "of one colour"
            return f"{word}: contrast {contrast:.1f} of 255, at least {limits.picture_contrast:g}"
        if sketch.roughness > limits.picture_roughness:
            return f"noise: neighbouring pixels differ by {sketch.roughness:.2f} of the contrast"
        if camera.size is None:
            return ""
        lost, lost_low = sketch.flat_share - camera.flat_share, sketch.flat_low - camera.flat_low
        if lost > limits.picture_flat or lost_low > limits.picture_flat_low:
            return f"partly empty: {max(lost, lost_low):.0%} more of it is of one colour than at first"
        return ""

    def _compared(self, sketch: _Sketch, before: _Sketch | None, camera: _Camera, travelled_m: float) -> str:
        """What the pictures before say about this one."""
        limits = self.limits
        if before is not None and before.size == sketch.size:
            likeness = _correlation(before.samples, sketch.samples)
            if likeness < limits.picture_likeness:
                return f"unlike the one before: correlation {likeness:.2f}"
        if camera.good is not None:
            same, swapped = (
                float(np.abs(each - camera.good.warmth).mean()) for each in (sketch.warmth, -sketch.warmth)
            )
            if same > _SWAP and swapped < 0.5 * same:
                return "red and blue have changed places"
        if camera.anchor is None or camera.anchor.size != sketch.size or not self._alike(camera.anchor, sketch):
            camera.anchor, camera.anchor_m = sketch, travelled_m
            return ""
        moved_m = travelled_m - camera.anchor_m
        same_bits = np.array_equal(camera.anchor.samples, sketch.samples)
        if moved_m > (limits.picture_same_m if same_bits else limits.picture_still_m):
            return f"frozen: the same as {moved_m:.2f} m before"
        return ""


def _correlation(one: FloatImage, other: FloatImage) -> float:
    """Of two pictures' brightness, -1 to 1; 1 where one of them has none to speak of."""
    a, b = (each.mean(axis=-1).ravel() - each.mean() for each in (one, other))
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 1e-3 else 1.0
