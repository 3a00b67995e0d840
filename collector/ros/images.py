"""Camera messages as pictures: encodings, raw rows, JPEG; no ROS needed."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from collector.common.start import MAX_PIXELS
from collector.ros.jpeg import JPEG_END, JPEG_HEAD, jpeg_end, jpeg_size

# What numpy takes without a copy: of rclpy an array, of rosbags an ndarray.
PixelBytes: TypeAlias = Union[bytes, bytearray, memoryview, "array[int]", NDArray[np.uint8]]
# uint8, or uint16 of the encodings that end in 16.
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

SMALL_SIZE = (32, 24)  # width and height of a picture that is compared with others
# Why a frame cannot serve.
UNDECODABLE = "undecodable frame"
UNKNOWN_ENCODING = "encoding not known"
TOO_LARGE = "frame too large"


class Encoding(NamedTuple):
    """How a raw image's bytes are pixels."""

    channels: int  # numbers per pixel
    to_bgr: str = ""  # OpenCV's conversion, empty where it is BGR or gray already
    depth: int = 1  # bytes per number
    is_mosaic: bool = False  # neighbouring pixels tell a colour together: not to be scaled as it is
    note: str = ""  # what has to be assumed or given up, said once


_BAYER = {"rggb": "BayerBG2BGR", "bggr": "BayerRG2BGR", "gbrg": "BayerGR2BGR", "grbg": "BayerGB2BGR"}  # OpenCV's names
_HIGH_BYTE = "read as 8 bits, its whole range of 16 bits scaled down"
_UYVY, _YUY2 = Encoding(2, "YUV2BGR_UYVY", is_mosaic=True), Encoding(2, "YUV2BGR_YUY2", is_mosaic=True)
# By the names of sensor_msgs/image_encodings.hpp.
ENCODINGS = {
    "bgr8": Encoding(3),
    "rgb8": Encoding(3, "RGB2BGR"),
    "bgra8": Encoding(4, "BGRA2BGR"),
    "rgba8": Encoding(4, "RGBA2BGR"),
    "mono8": Encoding(1),
    "8UC1": Encoding(1, note="read as mono8"),
    "8UC3": Encoding(3, note="read as bgr8"),
    "8UC4": Encoding(4, "BGRA2BGR", note="read as bgra8"),
    "mono16": Encoding(1, depth=2, note=_HIGH_BYTE),
    "bgr16": Encoding(3, depth=2, note=_HIGH_BYTE),
    "rgb16": Encoding(3, "RGB2BGR", 2, note=_HIGH_BYTE),
    "bgra16": Encoding(4, "BGRA2BGR", 2, note=_HIGH_BYTE),
    "rgba16": Encoding(4, "RGBA2BGR", 2, note=_HIGH_BYTE),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUY2,
    "yuyv": _YUY2,
    **{f"bayer_{name}8": Encoding(1, code, is_mosaic=True) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": Encoding(1, code, 2, is_mosaic=True, note=_HIGH_BYTE) for name, code in _BAYER.items()},
}


class FrameError(MonoError):
    """A camera frame cannot be used; ``build`` counts it by its ``reason`` and goes on."""

    def __init__(self, found: str, expected: str = "", do: str = "", reason: str = UNDECODABLE) -> None:
        super().__init__(found, expected, do)
        self.reason = reason


class BadFrame(NamedTuple):
    """A camera message that cannot be used: why in two or three words, and as a sentence.

    A FrameError that is kept would keep the frame's pixels as well.
    """

    reason: str
    sentence: str

    @classmethod
    def of(cls, error: FrameError) -> BadFrame:
        """What an error says."""
        return cls(error.reason, str(error))


@dataclass(frozen=True)
class RawFrame:
    """A camera message as recorded, with the stamp and the frame of its header."""

    stamp_ns: int
    received_ns: int  # time of arrival by the recorder's clock
    frame_id: str
    jpeg: bytes | None = None  # bytes of a CompressedImage (JPEG or another format OpenCV reads), else None
    pixels: Pixels | None = None  # (H, W, C) of a raw Image as sent, else None
    encoding: str = ""  # of `pixels`, or the format that a CompressedImage states


def encoding_of(name: str) -> Encoding:
    """The encoding of a name (FrameError: one that this project does not read; it lists those that it does)."""
    if name not in ENCODINGS:
        shown = repr(name if len(name) <= 40 else name[:40] + "...")
        do = "have the camera send one of these, or convert them (image_proc, image_transport republish)"
        raise FrameError(f"an image encoded as {shown}", ", ".join(ENCODINGS), do, UNKNOWN_ENCODING)
    return ENCODINGS[name]


def as_bgr(pixels: Pixels, encoding: str) -> NDArray[np.uint8]:
    """A raw image as OpenCV's (H, W, 3) BGR, or (H, W) where it is gray.

    Raises:
        FrameError: an encoding we do not know, or a size that it cannot have (yuv422 of odd width).
    """
    found = encoding_of(encoding)
    image: Any = pixels
    if found == ENCODINGS["bgr8"]:
        return pixels  # type: ignore[return-value]  # of depth 1
    if found.channels == 1:
        image = np.ascontiguousarray(pixels[:, :, 0])
    if found == ENCODINGS["mono8"]:
        return np.asarray(image, np.uint8)
    import cv2

    try:
        if found.to_bgr:
            image = cv2.cvtColor(image, getattr(cv2, f"COLOR_{found.to_bgr}"))
        if found.depth > 1:
            image = cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    except cv2.error as error:
        raise FrameError(f"a {encoding} image of shape {pixels.shape} that cannot be converted: {error.err}") from error
    return np.asarray(image, np.uint8)


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
    """A frame as JPEG: the bag's own bytes where it holds JPEG, else compressed once (FrameError: no decoding it).

    What a camera appended behind the end of the picture is cut off, unless it is zeros.
    """
    import cv2

    if frame.pixels is not None:
        return encode_jpeg(as_bgr(frame.pixels, frame.encoding), quality)
    data = frame.jpeg or b""
    check_picture(data)
    is_jpeg = data[:3] == JPEG_HEAD
    # In coded data there is no such marker, so that the first one mostly is the end.
    if is_jpeg and data.find(JPEG_END) + len(JPEG_END) != len(data.rstrip(b"\x00")):
        end = jpeg_end(data)
        if end is None:
            raise FrameError(f"a JPEG frame of {len(data)} bytes that breaks off", "an end-of-image marker")
        data = data if not data[end:].strip(b"\x00") else data[:end]
    try:
        # An eighth of the size suffices to prove that it decodes, at a fraction of the cost.
        mode = cv2.IMREAD_REDUCED_GRAYSCALE_8 if is_jpeg else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise undecodable(frame)
    return data if is_jpeg else encode_jpeg(np.asarray(image, np.uint8), quality)


def small_gray(frame: RawFrame) -> NDArray[np.uint8]:
    """A frame as a gray picture of :data:`SMALL_SIZE`, to tell whether two look the same.

    Raises:
        FrameError: it cannot be decoded.
    """
    import cv2

    if frame.pixels is not None:
        image = as_bgr(frame.pixels, frame.encoding)
        gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    else:
        check_picture(frame.jpeg or b"")
        try:
            decoded = cv2.imdecode(np.frombuffer(frame.jpeg or b"", np.uint8), cv2.IMREAD_GRAYSCALE)
        except cv2.error:
            decoded = None
        if decoded is None:
            raise undecodable(frame)
        gray = decoded
    return np.asarray(cv2.resize(gray, SMALL_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def undecodable(frame: RawFrame) -> FrameError:
    """Why a frame that OpenCV does not decode cannot be used: it is damaged, or a format that is no picture's."""
    size, stated = len(frame.jpeg or b""), frame.encoding.lower()
    if not stated or (re.search("jpe?g|png", stated) and "depth" not in stated):
        return FrameError(f"a frame of {size} bytes that cannot be decoded", "JPEG or PNG")
    found = f"a frame of {size} bytes in the format {frame.encoding[:40]!r}"
    do = "record image_transport's compressed topic, or the raw one"
    return FrameError(found, "JPEG or PNG", do, UNKNOWN_ENCODING)


def check_picture(data: bytes) -> None:
    """Refuse (FrameError) compressed bytes that would become a picture beyond :data:`MAX_PIXELS`."""
    if data[:3] == JPEG_HEAD:
        if (size := jpeg_size(data)) is not None:
            _check_pixels(*size)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        _check_pixels(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def image_rows(
    height: int, width: int, encoding: str, step: int, data: PixelBytes, is_bigendian: bool = False
) -> Pixels:
    """(H, W, C) view of a sensor_msgs/Image's bytes without the padding of its rows; step 0 means there is none.

    Raises:
        FrameError: an encoding this project does not read, no pixels or too many, or fewer bytes than size and step
            say.
    """
    channels, depth = encoding_of(encoding).channels, encoding_of(encoding).depth
    row = width * channels * depth
    step = step or row
    flat = np.frombuffer(data, np.uint8)
    _check_pixels(width, height)
    needed = (height - 1) * step + row  # some leave the padding of the last row out
    if height < 1 or width < 1 or step < row or flat.size < needed:
        found = f"a frame of {flat.size} bytes for {width}x{height} {encoding} in rows of {step}"
        expected = f"{height * max(step, row)} bytes, at least one pixel"
        raise FrameError(found, expected, "check the camera's publisher")
    rows: Any = np.lib.stride_tricks.as_strided(flat, (height, row), (step, 1), writeable=False)
    if depth > 1:
        rows = np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2").astype(np.uint16, copy=False)
    pixels: Pixels = rows.reshape(height, width, channels)
    return pixels


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        do = "check the camera's publisher"
        raise FrameError(f"a picture of {width}x{height}", f"at most {MAX_PIXELS} pixels", do, TOO_LARGE)
