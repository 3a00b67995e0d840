"""The doctor's judgement: facts in, one row per check out, each with what was found and its cure. Pure.

A row fails when a run would be useless with it; what only costs something is a warning.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from collector.doctor.facts import DiskFacts, Facts, RosFacts, Row
from collector.doctor.topics import topic_rows
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG, RECORDED

if TYPE_CHECKING:
    from collector.doctor.config import DoctorConfig

# Where nothing could be measured: a 1920x1080 JPEG of quality 90, and everything else a bag holds.
_NOMINAL_JPEG_BYTES, _NOMINAL_REST_BPS = 500_000, 50_000.0
_DRIVE_BYTES = 100 * 10**6  # log, metrics and plots, generously
_TIGHT = 1.2
# The competition's Cyclone settings ask for this much.
_RECEIVE_BUFFER_BYTES = 10 * 10**6
_TUNE = (
    "sudo sysctl -w net.core.rmem_max=2147483647; sudo ip link set lo multicast on (or ./setup.bash network tune of "
    "the competition's repository)"
)
_INSTALL_ROS = (
    "source /opt/ros/<distribution>/setup.bash and your workspace, or without any ROS: pip install "
    "'alpamayo_mono[ros]'. RMW_IMPLEMENTATION, if set, must name an installed middleware, ROS_DOMAIN_ID a number from "
    "0 to 101"
)


def examine(facts: Facts, config: DoctorConfig) -> list[Row]:
    """The doctor's table: ROS first, then its topics, then the disk and (for a drive) the model."""
    ros, rows = facts.ros, []
    if ros is None:
        rows.append(Row("ROS 2", "failed", facts.ros_error, facts.ros_cure or _INSTALL_ROS))
    else:
        rows += [_middleware(ros, facts), _messages(ros)]
        rows += topic_rows(ros, config.purpose, config.use_sim_time, by_wheels=config.rules == "e2e")
    return [*rows, _disk(facts.disk, ros, config), *facts.model_rows]


def _middleware(ros: RosFacts, facts: Facts) -> Row:
    """RMW and domain in use; a warning where Cyclone DDS will lose large messages or not find anybody."""
    found = f"{ros.rmw}, ROS domain {ros.domain}" + (f", {ros.discovery}" if ros.discovery else "")
    if "cyclone" in ros.rmw:
        wrong = []
        if facts.rmem_max is not None and facts.rmem_max < _RECEIVE_BUFFER_BYTES:
            wrong.append(f"net.core.rmem_max is {facts.rmem_max}, too little for camera frames")
        if facts.lo_multicast is False:
            wrong.append("lo carries no multicast")
        if wrong:
            return Row("middleware", "warning", f"{found}; {'; '.join(wrong)}", _TUNE)
    return Row("middleware", "ok", found)


def _messages(ros: RosFacts) -> Row:
    if ros.type_errors:
        cure = "source the workspace that has the Autoware messages; without one: alpamayo-mono messages"
        return Row("messages", "failed", "; ".join(dict.fromkeys(ros.type_errors.values())), cure)
    places: dict[str, list[str]] = defaultdict(list)
    for package, (folder, is_ours) in ros.packages.items():
        if folder is None or package.startswith("autoware"):
            where = "not found" if folder is None else "built by us in" if is_ours else "installed in"
            places[where + (f" {folder.parent}" if folder else "")].append(package)
    return Row("messages", "ok", "; ".join(f"{', '.join(packages)} {where}" for where, packages in places.items()))


def planned_bytes(ros: RosFacts | None, minutes: float) -> tuple[int, str]:
    """Bytes a recording will take, and how that was estimated."""
    frame_bytes, frames_hz, rest_bps = _NOMINAL_JPEG_BYTES, CAMERA_IMAGE.rate_hz or 0.0, _NOMINAL_REST_BPS
    how = "a guess for 1920x1080: no frame came"
    if ros is not None:
        heard = [ros.topics[topic.name] for topic in RECORDED if topic is not CAMERA_JPEG]
        if any(topic.rate_hz for topic in heard):
            rest_bps = sum((topic.rate_hz or 0.0) * topic.mean_bytes for topic in heard)
        if ros.frame is not None and ros.frame.jpeg_bytes:
            frame_bytes = ros.frame.jpeg_bytes
            frames_hz = ros.topics[CAMERA_IMAGE.name].rate_hz or frames_hz
            how = f"{frame_bytes / 1e3:.0f} kB a frame, {frames_hz:.1f} Hz"
    return round((frame_bytes * frames_hz + rest_bps) * 60.0 * minutes), how


def _disk(disk: DiskFacts, ros: RosFacts | None, config: DoctorConfig) -> Row:
    where = f"{disk.free_bytes / 1e9:.1f} GB free in {disk.place}"
    if disk.taken:
        return Row("disk", "failed", f"{disk.folder} exists", "name a new folder: none is overwritten")
    if not disk.writable:
        return Row("disk", "failed", f"{disk.place} is not yours to write to", "choose another --out")
    if config.purpose == "record":
        needed, how = planned_bytes(ros, config.minutes)
        found = f"{where}; {config.minutes:g} min need {needed / 1e9:.2f} GB ({how})"
    else:
        needed, found = _DRIVE_BYTES, f"{where}; a drive's log needs {_DRIVE_BYTES / 1e9:.1f} GB"
    if disk.free_bytes < needed:
        cure = "free some space or choose another --out"
        if config.purpose == "record" and needed:
            cure += f"; there is room for {config.minutes * disk.free_bytes / needed:.0f} min"
        return Row("disk", "failed", found, cure)
    if disk.free_bytes < _TIGHT * needed:
        return Row("disk", "warning", found, "that is tight, and build needs as much again: free some space")
    return Row("disk", "ok", found)
