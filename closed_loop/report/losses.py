"""Figures of a training run: its loss curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from closed_loop.report.plots import INK, STYLE

FloatArray = NDArray[np.float64]

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
        parts = (
            ("text", "text loss (cross-entropy per token)", TEXT_COLOUR),
            ("flow", "trajectory loss (flow matching)", FLOW_COLOUR),
        )
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
                    step,
                    value,
                    "o-",
                    color=INK,
                    linewidth=1.0,
                    markersize=4.5,
                    markerfacecolor="white",
                    label="validation",
                )
                for index in {0, len(value) - 1}:
                    axes.annotate(
                        f"{value[index]:.2f}",
                        (step[index], value[index]),
                        textcoords="offset points",
                        xytext=(8, -3) if index == 0 else (0, 8),
                        ha="left" if index == 0 else "center",
                        fontsize=8.5,
                        color=INK,
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
