"""``alpamayo-mono identify``: a vehicle from a recorded drive, as YAML, with a picture of how well it fits."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from collector.common.arguments import arguments_of
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.files import check_file_place
from collector.common.output_folder import OutputFolder, refuse_inside
from collector.common.plotting import families, is_shown, wrapped
from collector.geometry.poses import FloatArray
from collector.vehicle.fit import VehicleFit, fit_vehicle
from collector.vehicle.model import VehicleModel, read_vehicle, vehicle_named, write_vehicle
from collector.vehicle.signals import IdentifyConfig, read_signals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VEHICLE_FILE, PICTURE_FILE = "vehicle.yaml", "vehicle.png"
_EXCERPT_S = 12.0
_WIDTH_COLUMNS = 118
_ASKED, _REPORTED, _MODELLED = "gray", "tab:blue", "tab:red"


def identified(fit: VehicleFit, base: VehicleModel) -> VehicleModel:
    """The vehicle with what was found (MonoError: a value that no vehicle has)."""
    return dataclasses.replace(base, **fit.values)


def remarks(fit: VehicleFit, bag: str) -> list[str]:
    """What the file says of where its numbers come from."""
    told = [f"{name} {fit.values[name]:.4g} +- {fit.errors[name]:.2g}" for name in fit.values]
    left = [f"not told by the bag: {name}, {why}" for name, why in fit.refused.items()]
    return [f"from the bag {bag if is_shown(bag) else ascii(bag)}", *told, *left]


def write_plot(path: Path, fit: VehicleFit, bag: str) -> None:
    """Four panels as PNG: commanded, reported and modelled angle, what is left of it, ways, and turns."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), dpi=100, layout="constrained")
    angles, left, ways, turns = figure.subplots(2, 2).flat
    _draw_steering(angles, left, fit)
    _draw_ratio(ways, fit, "speed_scale", "way_m", "reported_m", "metres in half a second: reported", "of the poses")
    labels = ("turn in half a second by the wheels, rad", "of the poses")
    _draw_ratio(turns, fit, "report_scale", "turn_rad", "explained_rad", *labels)
    name = bag if is_shown(bag) else "(its name is in the YAML file)"
    with mpl.rc_context({"font.family": families()}):  # for the name of the bag
        figure.suptitle(wrapped(f"vehicle: {name}", _WIDTH_COLUMNS), parse_math=False)
        figure.savefig(path)


def _draw_steering(angles: Axes, left: Axes, fit: VehicleFit) -> None:
    angles.set(xlabel="s", ylabel="tyre angle, rad (left positive)")
    left.set(xlabel="reported minus modelled tyre angle, rad", ylabel="reports")
    if "report_s" not in fit.shown:
        for axes in (angles, left):
            axes.text(0.5, 0.5, "no steering: this bag cannot tell", ha="center", transform=axes.transAxes)
        return
    shown = fit.shown
    # The stretch in which the wheels were turned most.
    start = _liveliest(shown["report_s"], shown["modelled_rad"])
    for times, values, style, colour, label in (
        ("command_s", "command_rad", "-", _ASKED, "commanded"),
        ("report_s", "report_rad", ".", _REPORTED, "reported"),
        ("report_s", "modelled_rad", "-", _MODELLED, "as the vehicle found would report"),
    ):
        here = (shown[times] >= start) & (shown[times] <= start + _EXCERPT_S)
        angles.plot(shown[times][here] - start, shown[values][here], style, color=colour, markersize=4, label=label)
    angles.legend(loc="upper right")
    names = ("steering_gain", "dead_time_s", "lag_s", "steer_rate_radps")
    angles.set_title(", ".join(_told(fit, name) for name in names), fontsize="small")
    rest = shown["report_rad"] - shown["modelled_rad"]
    reach = max(6.0 * float(np.median(np.abs(rest))), 1e-4)
    left.hist(rest.clip(-reach, reach), bins=60, color=_REPORTED)
    left.set_title(f"median {np.median(np.abs(rest)):.4f} rad")


def _draw_ratio(axes: Axes, fit: VehicleFit, name: str, wanted: str, had: str, across: str, up: str) -> None:
    axes.set(xlabel=across, ylabel=up, title=_told(fit, name))
    if wanted in fit.shown:
        axes.plot(fit.shown[had], fit.shown[wanted], ".", markersize=3, color=_REPORTED)
        axes.axline((0.0, 0.0), slope=fit.values.get(name, 1.0) if name == "speed_scale" else 1.0, color=_MODELLED)


def _liveliest(times_s: FloatArray, values: FloatArray) -> float:
    """Where the excerpt begins that has the most movement."""
    moved = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(values)))])
    ends = np.minimum(np.searchsorted(times_s, times_s + _EXCERPT_S), len(times_s) - 1)
    return float(times_s[int(np.argmax(moved[ends] - moved))])


def _told(fit: VehicleFit, name: str) -> str:
    return f"{name} {fit.values[name]:.3f} +- {fit.errors[name]:.3f}" if name in fit.values else f"no {name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 when not everything could be told."""
    config = command_line(IdentifyConfig, argv, "alpamayo-mono identify")
    require("matplotlib", "report")
    base = vehicle_named(config.vehicle)
    plot, written = config.out / PICTURE_FILE, config.out / VEHICLE_FILE
    refuse_inside(config)
    with OutputFolder(config.out):
        if written.exists() or plot.exists():
            read_vehicle(written)  # says so where these are no files of ours
        for path in (plot, written):
            check_file_place(path)
        signals, notes = read_signals(config)
        fit = fit_vehicle(signals, base)
        bag = Path(config.bag).resolve().name
        if not fit.values:
            why = "; ".join(f"{name}: {text}" for name, text in fit.refused.items())
            raise MonoError(f"the bag {config.bag} tells nothing of its vehicle ({why})", "bends driven at speed")
        write_vehicle(written, identified(fit, base), remarks(fit, bag))
        write_plot(plot, fit, bag)
    kart = {each.name: each.default for each in arguments_of(VehicleModel)}
    for name, value in fit.values.items():
        print(f"{name:<18} {value:8.4f} +- {fit.errors[name]:.4f}   (the Challenge's kart: {kart[name]})")
    print(f"vehicle: {written}; how well it fits: {plot}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for name, why in fit.refused.items():
        print(f"left out: {name}, {why}", file=sys.stderr)
    return 1 if fit.refused else 0
