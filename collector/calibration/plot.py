"""The picture beside a calibration: what was fitted to what, so that a person can see whether to believe it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collector.calibration.fit import OFFSET_STEP_S, PitchFit, TimeOffsetFit
from collector.calibration.pairs import Findings, Pairs
from collector.common.plotting import families, is_shown, wrapped
from collector.geometry.constants import NS_PER_S

_EXCERPT_NS = 30 * NS_PER_S
_TITLE_COLUMNS = 120
_IMAGE_COLOUR, _ODOMETRY_COLOUR, _FOUND_COLOUR = "tab:blue", "tab:orange", "tab:red"


def write_plot(path: Path, findings: Findings) -> None:
    """Four panels as PNG: correlation over time offset, yaw rates, flow and vanishing point, pitch of every pair."""
    with mpl.rc_context({"font.family": families()}):  # for the name of the bag
        _figure(findings).savefig(path)


def _figure(findings: Findings) -> Figure:
    figure = Figure(figsize=(13, 8), dpi=100, layout="constrained")
    over_offset, rates, flow, pitches = figure.subplots(2, 2).flat
    pairs, offset, pitch = findings.pairs, findings.offset, findings.pitch
    _draw_correlation(over_offset, offset)
    _draw_rates(rates, pairs, offset, 0.0 if pitch is None else pitch.pitch_rad)
    _draw_flow(flow, pairs, pitch)
    _draw_pitches(pitches, pitch)
    bag = findings.calibration.bag
    # What no font here can show would be a row of boxes.
    name = bag if is_shown(bag) else "(its name is in the YAML file)"
    figure.suptitle(wrapped(f"camera against pose: {name}", _TITLE_COLUMNS), parse_math=False)
    return figure


def _draw_correlation(axes: Axes, offset: TimeOffsetFit | None) -> None:
    axes.set(xlabel="time offset of the picture behind its stamp, ms", ylabel="correlation of turns")
    if offset is None:
        _say_refused(axes, "time offset")
        return
    axes.plot(1e3 * offset.offsets_s, offset.correlations, color=_IMAGE_COLOUR)
    axes.axvline(1e3 * offset.offset_s, color=_FOUND_COLOUR)
    axes.axvspan(
        1e3 * (offset.offset_s - 2 * offset.sd_s),
        1e3 * (offset.offset_s + 2 * offset.sd_s),
        color=_FOUND_COLOUR,
        alpha=0.2,
    )
    axes.axvline(0.0, color="gray", linewidth=0.8, linestyle=":")
    axes.set_title(
        f"time offset {1e3 * offset.offset_s:.1f} +- {1e3 * offset.sd_s:.1f} ms, correlation {offset.correlation:.3f}"
    )


def _draw_rates(axes: Axes, pairs: Pairs, offset: TimeOffsetFit | None, pitch_rad: float) -> None:
    """The half minute that turns most: rates from the image, and from the odometry at the offset found (or at none)."""
    axes.set(xlabel="s", ylabel="yaw rate, rad/s (left positive)")
    if len(pairs.start_ns) == 0:
        return
    centre = pairs.odometry_turn_rad.shape[1] // 2
    shift = 0 if offset is None else round(offset.offset_s / OFFSET_STEP_S)
    image = pairs.image_turn_rad(pitch_rad) / pairs.seconds
    odometry = pairs.odometry_turn_rad[:, centre + shift] / pairs.seconds
    turned = np.concatenate([[0.0], np.cumsum(np.abs(odometry))])
    order = np.argsort(pairs.start_ns, kind="stable")
    ends = np.searchsorted(pairs.start_ns[order], pairs.start_ns[order] + _EXCERPT_NS)
    first = int(np.argmax(turned[ends] - turned[:-1]))
    part = order[first : ends[first]]
    seconds = (pairs.start_ns[part] - pairs.start_ns[part[0]]) / NS_PER_S
    # No line across what was not looked at.
    joined = np.append(pairs.start_ns[part][1:] - pairs.end_ns[part][:-1] < NS_PER_S, True)
    label = "odometry" if offset is None else "odometry, at the time offset"
    axes.plot(seconds, np.where(joined, odometry[part], np.nan), color=_ODOMETRY_COLOUR, label=label)
    axes.plot(seconds, image[part], ".", markersize=3, color=_IMAGE_COLOUR, label="image")
    axes.legend(loc="upper right")
    if offset is not None:
        axes.set_title(f"{offset.pairs} pairs; the image turns {offset.ratio:.3f} times as far as the odometry")


def _draw_flow(axes: Axes, pairs: Pairs, pitch: PitchFit | None) -> None:
    axes.set_axis_off()
    if pairs.shown is None:
        _say_refused(axes, "pitch")
        return
    gray, motion = pairs.shown
    camera = pairs.intrinsics.sized(gray.shape[1], gray.shape[0])
    axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
    # Thrice as long as they are, for the eye.
    tips = motion.before_px + 3.0 * (motion.after_px - motion.before_px)
    axes.plot(*np.stack([motion.before_px, tips]).transpose(2, 0, 1), color=_ODOMETRY_COLOUR, linewidth=0.7)
    across, down = motion.travel[:2] / motion.travel[2]
    axes.plot(
        camera.cx_px + camera.fx_px * across,
        camera.cy_px + camera.fy_px * down,
        "+",
        markersize=14,
        color=_IMAGE_COLOUR,
        label="vanishing point of this flow",
    )
    if pitch is not None:
        row = camera.cy_px - camera.fy_px * np.tan(pitch.pitch_rad)
        axes.axhline(row, color=_FOUND_COLOUR, linewidth=0.9, label="horizon at the pitch found")
    axes.set(xlim=(0, gray.shape[1]), ylim=(gray.shape[0], 0))
    axes.legend(loc="lower right")


def _draw_pitches(axes: Axes, pitch: PitchFit | None) -> None:
    axes.set(xlabel="pitch, degrees (down positive)", ylabel="pairs of frames on straights")
    if pitch is None:
        _say_refused(axes, "pitch")
        return
    found, degrees = np.degrees(pitch.pitch_rad), np.degrees(pitch.pitches_rad)
    reach = max(1.0, 4.0 * float(np.median(np.abs(degrees - found))))
    axes.hist(degrees.clip(found - reach, found + reach), bins=40, color=_IMAGE_COLOUR)
    axes.axvline(found, color=_FOUND_COLOUR)
    axes.set_title(f"pitch {found:.2f} +- {np.degrees(pitch.sd_rad):.2f} degrees from {len(degrees)} pairs")


def _say_refused(axes: Axes, what: str) -> None:
    axes.text(0.5, 0.5, f"no {what}: this bag cannot tell", ha="center", va="center", transform=axes.transAxes)
