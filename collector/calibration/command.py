"""``alpamayo-mono calibrate``: the camera's time offset against the pose and its pitch, from a recorded bag.

The image's rotation from frame to frame is laid over the odometry's, at the time offset where they correlate best; the
pitch is read off the vanishing point of the flow on straights. What the bag cannot tell is not written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.bags.reader import open_bag
from collector.calibration.fit import OFFSET_STEP_S, PitchFit, TimeOffsetFit, fit_pitch, fit_time_offset
from collector.calibration.model import DEFINITION, Calibration, describe, read_calibration, write_calibration
from collector.calibration.pairs import CalibrateConfig, Pairs, read_pairs
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.files import check_file_place
from collector.common.output_folder import OutputFolder, refuse_inside
from collector.common.plotting import families, is_shown, wrapped
from collector.common.run_folder import hash_path
from collector.geometry.constants import NS_PER_S
from collector.pose_tracks.recording import require_odometry, require_track
from collector.pose_tracks.tracks import build_track

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CALIBRATION_FILE, PLOT_FILE = "calibration.yaml", "calibration.png"
_EXCERPT_NS = 30 * NS_PER_S
_TITLE_COLUMNS = 120
_IMAGE_COLOUR, _ODOMETRY_COLOUR, _FOUND_COLOUR = "tab:blue", "tab:orange", "tab:red"


@dataclass(frozen=True, eq=False)
class Findings:
    """What a bag told, what that rests on, and a sentence (``refused``) per estimate that could not be made."""

    calibration: Calibration
    pairs: Pairs
    offset: TimeOffsetFit | None
    pitch: PitchFit | None
    refused: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was found beside, or could not be read


def calibrate_bag(config: CalibrateConfig, show_progress: bool = True) -> Findings:
    """Estimate time offset and pitch from a bag.

    Raises:
        MonoError: no such bag, or it lacks camera or odometry; or it can tell neither time offset nor pitch.
    """
    limits = config.limits
    with open_bag(config.bag) as bag:
        topic = bag.image_topic(config.image_topic)
        require_odometry(bag, config.odometry_topic)
        track = build_track(bag.odometry(config.odometry_topic), config.track)
        require_track(bag, config.odometry_topic, track)
        pairs = read_pairs(bag, topic, track, config, show_progress)
        notes = (*bag.notes, *([f"the bag is not whole: {bag.breaks_off}"] if bag.breaks_off else []))
    refused: list[str] = []
    offset: TimeOffsetFit | None = None
    pitch: PitchFit | None = None
    try:
        straight = pairs.straight
        pitch = fit_pitch(pairs.start_ns[straight], pairs.pitches_rad[straight], limits)
    except MonoError as error:
        refused.append(str(error))
    try:
        turns = pairs.image_turn_rad(0.0 if pitch is None else pitch.pitch_rad)
        offset = fit_time_offset(pairs.start_ns, pairs.seconds, turns, pairs.odometry_turn_rad, limits)
    except MonoError as error:
        refused.append(str(error))
    if pitch is None and offset is None:
        passed = ", ".join(f"{why}: {count}" for why, count in sorted(pairs.passed_over.items()))
        raise MonoError(" ".join(refused) + f" Of {pairs.frames} frames passed over: {passed or 'none'}")
    told: dict[str, Any] = {"bag": Path(config.bag).resolve().name, "bag_sha256": hash_path(config.bag) or ""}
    if offset is not None:
        told |= {"lag_s": round(offset.offset_s, 5), "lag_sd_s": round(offset.sd_s, 5), "lag_pairs": offset.pairs}
        told |= {"correlation": round(offset.correlation, 4), "turn_ratio": round(offset.ratio, 4)}
    if pitch is not None:
        told |= {"pitch_rad": round(pitch.pitch_rad, 5), "pitch_sd_rad": round(pitch.sd_rad, 5)}
        told["pitch_pairs"] = len(pitch.pitches_rad)
    calibration = Calibration(DEFINITION, frames=pairs.frames, intrinsics=pairs.intrinsics, **told)
    return Findings(calibration, pairs, offset, pitch, tuple(refused), notes)


def write_plot(path: Path, findings: Findings) -> None:
    """Four panels as PNG: correlation over time offset, yaw rates, flow and vanishing point, pitch of every pair."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

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
    with mpl.rc_context({"font.family": families()}):  # for the name of the bag
        figure.suptitle(wrapped(f"camera against pose: {name}", _TITLE_COLUMNS), parse_math=False)
        figure.savefig(path)


def _draw_correlation(axes: Axes, offset: TimeOffsetFit | None) -> None:
    axes.set(xlabel="time offset of the picture behind its stamp, ms", ylabel="correlation of turns")
    if offset is None:
        _say_refused(axes, "time offset")
        return
    axes.plot(1e3 * offset.offsets_s, offset.correlations, color=_IMAGE_COLOUR)
    axes.axvline(1e3 * offset.offset_s, color=_FOUND_COLOUR)
    low_ms, high_ms = (1e3 * (offset.offset_s + sign * offset.sd_s) for sign in (-2, 2))
    axes.axvspan(low_ms, high_ms, color=_FOUND_COLOUR, alpha=0.2)
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
    u, v = camera.cx_px + camera.fx_px * across, camera.cy_px + camera.fy_px * down
    axes.plot(u, v, "+", markersize=14, color=_IMAGE_COLOUR, label="vanishing point of this flow")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 when only one of the two could be told."""
    config = command_line(CalibrateConfig, argv, "alpamayo-mono calibrate")
    require("matplotlib", "report")
    plot, written = config.out / PLOT_FILE, config.out / CALIBRATION_FILE
    refuse_inside(config)
    with OutputFolder(config.out):
        if written.exists() or plot.exists():
            read_calibration(written)  # says so where these are no files of ours
        for path in (plot, written):
            check_file_place(path)
        findings = calibrate_bag(config)
        write_calibration(written, findings.calibration)  # first: it tells whose the plot is
        write_plot(plot, findings)
    print(f"{describe(findings.calibration)}; lens: {findings.pairs.intrinsics.source}")
    print(f"calibration: {config.out / CALIBRATION_FILE}; what was fitted: {config.out / PLOT_FILE}")
    for note in findings.notes:
        print(f"note: {note}", file=sys.stderr)
    for why in findings.refused:
        print(f"left out: {why}", file=sys.stderr)
    return 1 if findings.refused else 0
