"""Figures of data and training: sample sheets with the future drawn through the camera, and loss curves."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from closed_loop.plots import INK, STYLE
from closed_loop.simulator.camera import FRONT, Camera
from collector.errors import MonoError, require
from collector.samples import Sample, read_samples

FloatArray = NDArray[np.float64]

LABELS = ("left", "right", "s", "straight")
PATH_COLOUR, PAST_COLOUR = "#12b886", "#868e96"
TEXT_COLOUR, FLOW_COLOUR = "#3567b0", "#d97706"


def read_losses(path: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Curves of a ``training.jsonl``: name -> (steps, values); lines that cannot be read are passed over.

    Expected keys per line: ``step`` and any of ``text_loss, flow_loss, validation_text_loss,
    validation_flow_loss``.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                values = json.loads(line)
                step = float(values["step"])
            except (ValueError, TypeError, KeyError):
                continue
            for key, value in values.items():
                if key.endswith("_loss") and isinstance(value, (int, float)) and np.isfinite(value):
                    found.setdefault(key, []).append((step, float(value)))
    return {key: (np.array(rows)[:, 0], np.array(rows)[:, 1]) for key, rows in found.items()}


def loss_figure(curves: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Text and trajectory loss side by side, never summed: raw steps pale, their running mean dark, validation dots."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 3.3), layout="constrained")
        parts = (("text", "text loss (cross-entropy per token)", TEXT_COLOUR),
                 ("flow", "trajectory loss (flow matching)", FLOW_COLOUR))
        for axes, (name, title, colour) in zip(figure.subplots(1, 2), parts):
            axes.set_title(title)
            axes.set_xlabel("step")
            if f"{name}_loss" in curves:
                step, value = curves[f"{name}_loss"]
                axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.9)
                axes.plot(step, _running_mean(value), color=colour, linewidth=2.0, label="training (running mean)")
            if f"validation_{name}_loss" in curves:
                step, value = curves[f"validation_{name}_loss"]
                axes.plot(
                    step, value, "o-", color=INK, linewidth=1.0, markersize=4.5, markerfacecolor="white",
                    label="validation",
                )
                for index in {0, len(value) - 1}:
                    axes.annotate(
                        f"{value[index]:.2f}", (step[index], value[index]), textcoords="offset points",
                        xytext=(8, -3) if index == 0 else (0, 8), ha="left" if index == 0 else "center",
                        fontsize=8.5, color=INK,
                    )
            axes.set_ylim(bottom=0.0)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right")
            else:
                axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color="#868e96")
        return figure


def _running_mean(values: FloatArray) -> FloatArray:
    """Mean over a window of a twentieth of the run, cut off at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def choose_samples(samples: Iterable[Sample], count: int) -> list[Sample]:
    """``count`` samples, the curve labels in turn, each label's evenly spread over the dataset."""
    by_label: dict[str, list[Sample]] = {label: [] for label in LABELS}
    for sample in samples:
        by_label[sample.curve.label].append(sample)
    present = [label for label in LABELS if by_label[label]]
    chosen = []
    for place in range(count):
        if not present:
            break
        label = present[place % len(present)]
        turns = -(-(count - place % len(present)) // len(present))
        rows = by_label[label]
        chosen.append(rows[min(len(rows) - 1, int((place // len(present) + 0.5) * len(rows) / max(1, turns)))])
    return chosen


def sample_sheet(folder: Path, count: int = 8, camera: Camera = FRONT) -> Figure:
    """Front frames with the future path drawn through the camera, beside it from above, under it the thought.

    Args:
        folder: a dataset folder.
        count: how many samples.
        camera: of the frames; resized to theirs.

    Raises:
        MonoError: no dataset there, or one without samples.
    """
    cv2 = require("cv2", "report")
    chosen = choose_samples(read_samples(folder), count)
    if not chosen:
        raise MonoError(f"no sample in {folder}", "a dataset with at least one", "record and build more")
    with matplotlib.rc_context(STYLE):
        rows = -(-len(chosen) // 2)
        figure = Figure(figsize=(11.0, 2.55 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, 4, width_ratios=[16.0, 7.0, 16.0, 7.0])
        for place, sample in enumerate(chosen):
            row, column = divmod(place, 2)
            seen, above = (figure.add_subplot(grid[row, 2 * column + side]) for side in (0, 1))
            data = np.frombuffer((folder / sample.file_name).read_bytes(), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if image is None:
                seen.text(0.5, 0.5, "frame cannot be read", ha="center", transform=seen.transAxes)
            else:
                _draw_seen(seen, image[:, :, ::-1], sample.future_array(), camera)
            _draw_above(above, sample.history_array(), sample.future_array())
            seen.set_title("\n".join(textwrap.wrap(f"“{sample.reasoning}”", 62)), fontsize=8.5, fontweight="normal")
            turn = np.degrees(sample.curve.turn_rad)
            above.set_title(f"{sample.curve.label}, {turn:+.0f}°, {sample.speed_mps:.1f} m/s", fontsize=8)
        return figure


def path_ribbon(future: ArrayLike, camera: Camera, half_width_m: float = 0.45) -> FloatArray:
    """The future path as a ribbon on the ground in the picture: (2, N, 2) pixels of its left and right border.

    Args:
        future: (64, 3) ego poses.
        camera: with the size of the picture.
        half_width_m: of the ribbon.

    Points behind the camera, or nearer than half a metre, are left out.
    """
    poses = np.asarray(future, np.float64)
    aside = np.stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])], axis=1) * half_width_m
    borders = np.stack([poses[:, :2] + aside, poses[:, :2] - aside])
    points = np.concatenate([borders, np.zeros((*borders.shape[:2], 1))], axis=2)
    ahead: NDArray[np.bool_] = np.all(camera.optical(points)[..., 2] > 0.5, axis=0)
    if not ahead.any():
        return np.zeros((2, 0, 2))
    first = int(np.argmax(ahead))
    # Once the path has left the view it could only come back as a line across the whole picture.
    behind = np.flatnonzero(~ahead[first:])
    return camera.project(points[:, first : first + int(behind[0]) if len(behind) else None])


def _draw_seen(axes: Axes, image: NDArray[np.uint8], future: FloatArray, camera: Camera) -> None:
    height, width = image.shape[:2]
    left, right = path_ribbon(future, camera.sized(width, height))
    axes.imshow(image)
    if len(left):
        ribbon = np.vstack([left, right[::-1]])
        axes.fill(ribbon[:, 0], ribbon[:, 1], color=PATH_COLOUR, alpha=0.38, linewidth=0)
        middle = path_ribbon(future, camera.sized(width, height), 0.0)[0]
        axes.plot(middle[:, 0], middle[:, 1], color=PATH_COLOUR, linewidth=1.6)
    axes.set_xlim(0, width - 1)
    axes.set_ylim(height - 1, 0)
    axes.set_axis_off()


def _draw_above(axes: Axes, history: FloatArray, future: FloatArray) -> None:
    """From above with the kart at the bottom, x up and y to the left, as the driver sees it."""
    axes.plot(-history[:, 1], history[:, 0], color=PAST_COLOUR, linewidth=1.6)
    axes.plot(-future[:, 1], future[:, 0], color=PATH_COLOUR, linewidth=2.2)
    seconds = future[9::10]
    axes.plot(-seconds[:, 1], seconds[:, 0], "o", color=PATH_COLOUR, markersize=3.4, markeredgecolor="white",
              markeredgewidth=0.6)
    axes.plot(0.0, 0.0, "^", color=INK, markersize=6.5)
    tall = 1.3  # height over width: as high as the frame beside it
    low = np.array([(-future[:, 1]).min(), min(-3.0, future[:, 0].min())]) - 1.0
    high = np.array([(-future[:, 1]).max(), max(6.0, future[:, 0].max())]) + 1.0
    width = max(high[0] - low[0], (high[1] - low[1]) / tall)
    middle = 0.5 * (low[0] + high[0])
    axes.set_xlim(middle - width / 2.0, middle + width / 2.0)
    axes.set_ylim(low[1], low[1] + tall * width)
    axes.set_box_aspect(tall)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(lambda value, _place: f"{0.0 - value:g}")
