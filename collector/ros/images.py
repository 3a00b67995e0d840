"""Camera messages as pictures: encodings, raw rows, JPEG; no ROS needed."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError

# What numpy takes without a copy: of rclpy an array, of rosbags an ndarray.
PixelBytes: TypeAlias = Union[bytes, bytearray, memoryview, "array[int]", NDArray[np.uint8]]
# Channels per pixel, and whether the colours come as RGB (OpenCV wants BGR).
ENCODINGS = {"bgr8": (3, False), "rgb8": (3, True), "bgra8": (4, False), "rgba8": (4, True), "mono8": (1, False)}


class FrameError(MonoError):
    """A camera frame cannot be decoded; ``build`` counts it and goes on."""


@dataclass(frozen=True)
class RawFrame:
    """A camera message as recorded, with the stamp and the frame of its header."""

    stamp_ns: int
    received_ns: int  # time of arrival by the recorder's clock
    frame_id: str
    jpeg: bytes | None = None  # bytes of a CompressedImage (JPEG or another format OpenCV reads), else None
    pixels: NDArray[np.uint8] | None = None  # (H, W, C) uint8 of a raw Image as sent, else None
    encoding: str = ""  # of `pixels`


def as_bgr(pixels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """A raw image as OpenCV's (H, W, 3) BGR, or (H, W) for mono8 (FrameError: an encoding we do not know)."""
    if encoding not in ENCODINGS:
        raise FrameError(f"an image encoded as {encoding!r}", ", ".join(ENCODINGS), "record one of these")
    if ENCODINGS[encoding][0] == 1:
        return np.ascontiguousarray(pixels[:, :, 0])
    import cv2

    codes = {"rgb8": cv2.COLOR_RGB2BGR, "bgra8": cv2.COLOR_BGRA2BGR, "rgba8": cv2.COLOR_RGBA2BGR}
    code = codes.get(encoding)
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def encode_jpeg(bgr: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of an OpenCV image (FrameError: OpenCV refuses it (an empty image))."""
    import cv2

    try:
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    except cv2.error as error:
        raise FrameError(f"an image of shape {bgr.shape} that OpenCV cannot compress: {error}") from error
    if not done:
        raise FrameError(f"an image of shape {bgr.shape} that OpenCV cannot compress")
    return bytes(data.data)


def frame_jpeg(frame: RawFrame, quality: int = 95) -> bytes:
    """A frame as JPEG: the bag's own bytes where it holds JPEG, else compressed once (FrameError: no decoding it)."""
    import cv2

    if frame.pixels is not None:
        return encode_jpeg(as_bgr(frame.pixels, frame.encoding), quality)
    data = frame.jpeg or b""
    is_jpeg = data[:3] == b"\xff\xd8\xff"
    if is_jpeg and data.rstrip(b"\x00")[-2:] != b"\xff\xd9":
        raise FrameError(f"a JPEG frame of {len(data)} bytes that breaks off", "an end-of-image marker")
    try:
        # An eighth of the size suffices to prove that it decodes, at a fraction of the cost.
        mode = cv2.IMREAD_REDUCED_GRAYSCALE_8 if is_jpeg else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise FrameError(f"a frame of {len(data)} bytes that cannot be decoded", "JPEG or PNG")
    return data if is_jpeg else encode_jpeg(np.asarray(image, np.uint8), quality)


def image_rows(height: int, width: int, encoding: str, step: int, data: PixelBytes) -> NDArray[np.uint8]:
    """(H, W, C) view of a sensor_msgs/Image's bytes without the padding of its rows; step 0 means there is none.

    Raises:
        FrameError: an encoding this project does not read, no pixels, or fewer bytes than size and step say.
    """
    if encoding not in ENCODINGS:
        raise FrameError(f"an image encoded as {encoding!r}", ", ".join(ENCODINGS), "have the camera send one of these")
    channels = ENCODINGS[encoding][0]
    step = step or width * channels
    flat = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1 or step < width * channels or flat.size < height * step:
        found = f"a frame of {flat.size} bytes for {width}x{height} {encoding} in rows of {step}"
        expected = f"{height * max(step, width * channels)} bytes, at least one pixel"
        raise FrameError(found, expected, "check the camera's publisher")
    return flat[: height * step].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
