"""The camera of a dataset: what its bags say about it, written into the manifest, and the pinhole read back.

A recorded CameraInfo gives the intrinsics. Where the camera sits no camera topic says, so that, and the field of view
of a bag without CameraInfo, is assumed from the kart's description, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from collector.bags.reader import BagReader
from collector.common.errors import MonoError
from collector.geometry.pinhole import Pinhole, is_camera_matrix

INFO_TYPE = "sensor_msgs/msg/CameraInfo"
DEFAULT = Pinhole("front")
# How many messages are looked at for a calibrated one.
_LOOKED_AT = 20
_MOUNT = ("x_m", "y_m", "z_m", "yaw_rad", "pitch_rad")


def read_intrinsics(bag: BagReader, image_topic: str, info_topic: str | None = None) -> dict[str, Any] | None:
    """The first calibrated CameraInfo beside a camera topic (or of ``info_topic``), None where the bag has none.

    ROS keeps ``camera_info`` in the namespace of the image; for a compressed topic that may be one level up.

    Raises:
        MonoError: the bag lacks the ``info_topic`` that was asked for.
    """
    if info_topic is not None:
        bag.require_topic(
            info_topic, "the camera's intrinsics", (INFO_TYPE,), "--camera-info-topic", "give --hfov-deg instead"
        )
    beside = [f"{image_topic.rsplit('/', level)[0]}/camera_info" for level in (1, 2)]
    for topic in [info_topic] if info_topic is not None else beside:
        if bag.topics.get(topic) != INFO_TYPE or not bag.counts.get(topic):
            continue
        for _, message in islice(bag.messages(topic), _LOOKED_AT):
            if message is None or not is_camera_matrix(message.k) or min(message.width, message.height) < 8:
                continue
            distortion = np.asarray(message.d, np.float64)
            return {
                "topic": topic,
                "frame_id": str(message.header.frame_id),
                "width": int(message.width),
                "height": int(message.height),
                "K": [float(value) for value in message.k],
                "distortion_model": str(message.distortion_model),
                "D": [float(value) for value in distortion] if np.isfinite(distortion).all() else [],
            }
    return None


def camera_block(intrinsics: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The manifest's ``camera``: intrinsics by bag (None: not recorded), and what is assumed."""
    assumed = ["mount and pitch: the kart's description"]
    if not all(intrinsics.values()):
        assumed.append(f"field of view of {np.degrees(DEFAULT.hfov_rad):.0f} deg where intrinsics are null")
    return {
        "name": DEFAULT.name,
        "intrinsics": dict(intrinsics),
        "mount": {key: getattr(DEFAULT, key) for key in _MOUNT},
        "hfov_rad": DEFAULT.hfov_rad,
        "assumed": assumed,
    }


@dataclass(frozen=True)
class DatasetCameras:
    """The pinholes of a dataset: of bags whose intrinsics are known, of all others; and where each number is from."""

    by_bag: Mapping[str, Pinhole]
    other: Pinhole
    sources: Mapping[str, str]

    def of(self, bag: str, width_px: int, height_px: int) -> Pinhole:
        """The pinhole for a bag's picture of this size."""
        return self.by_bag.get(bag, self.other).sized(width_px, height_px)


def cameras_of(  # noqa: C901 - a branch per source of a number
    manifest: Mapping[str, Any],
    pitch_deg: float | None = None,
    hfov_deg: float | None = None,
    height_m: float | None = None,
) -> DatasetCameras:
    """The pinholes of a dataset from its manifest; what is missing or makes no sense is assumed, and said so.

    Pitch (positive looks down), field of view and height of the lens over the road take the place of what is recorded.

    Raises:
        MonoError: a number given makes no pinhole.
    """
    block = _mapping(manifest.get("camera"))
    mount = _mapping(block.get("mount"))
    sources = {"mount": "assumed from the kart's description", "pitch": "assumed level"}
    base = DEFAULT
    values: dict[str, Any] = {key: float(mount[key]) for key in _MOUNT if _is_number(mount.get(key))}
    try:
        base = replace(base, **values)
    except MonoError as error:
        sources["mount"] = f"assumed: that of the manifest is none ({error.found})"
    calibrated = _mapping(manifest.get("calibration")).get("pitch_rad")
    if calibrated is not None and _is_number(calibrated) and abs(calibrated) < 1.5:
        base = replace(base, pitch_rad=float(calibrated))
        sources["pitch"] = "calibration"
    if pitch_deg is not None:
        base = replace(base, pitch_rad=float(np.radians(pitch_deg)))
        sources["pitch"] = "--pitch-deg"
    if height_m is not None:
        base = replace(base, z_m=height_m)
        sources["mount"] = "height from --camera-height-m, the rest assumed"
    field = f"assumed field of {np.degrees(base.hfov_rad):.0f}°"
    if hfov_deg is not None:
        sources["lens"] = "--hfov-deg"
        return DatasetCameras({}, replace(base, hfov_rad=float(np.radians(hfov_deg))), sources)
    by_bag, without, bent = {}, [], []
    for bag, known in _mapping(block.get("intrinsics")).items():
        try:
            width_px, height_px = int(known["width"]), int(known["height"])
            by_bag[bag] = replace(base, width_px=width_px, height_px=height_px, matrix=tuple(known["K"]))
            if np.any(np.abs(np.asarray(known.get("D") or [0.0], np.float64)) > 1e-6):
                bent.append(bag)
        except (MonoError, TypeError, ValueError, KeyError):
            without.append(bag)
    sources["lens"] = "recorded CameraInfo" if by_bag else field
    if by_bag and without:
        sources["lens"] += f" ({', '.join(without)}: {field})"
    if bent:
        sources["lens"] += f" ({', '.join(bent)}: its distortion is not drawn)"
    return DatasetCameras(by_bag, base, sources)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
