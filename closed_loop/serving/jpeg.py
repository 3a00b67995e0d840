"""Frames as JPEG on their way to a policy: a tenth of the bytes, and not quite the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from collector.ros.parameters import RecordParameters

_START_OF_FRAME = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
# Markers without a length: a decoder steps over them, and whoever takes what follows for one reads another size.
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))


def encode(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An (H, W, 3) RGB frame as the bytes of a JPEG, (n,) uint8, of the quality that the recorder stores."""
    import cv2

    bgr: Any = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, RecordParameters.jpeg_quality])
    return np.asarray(data, np.uint8).reshape(-1)


def size_of(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height that a JPEG claims in its header, before anything is decoded.

    Raises:
        MonoError: no JPEG.
    """
    view = data.tobytes()
    at = 2
    if view[:2] == b"\xff\xd8":
        while at + 9 <= len(view) and view[at] == 0xFF:
            marker, length = view[at + 1], int.from_bytes(view[at + 2 : at + 4], "big")
            if marker in _WITHOUT_LENGTH:
                break
            if marker in _START_OF_FRAME:
                return int.from_bytes(view[at + 7 : at + 9], "big"), int.from_bytes(view[at + 5 : at + 7], "big")
            at += 2 + length if marker != 0xFF else 1
    raise MonoError("a frame that is no JPEG", "a JPEG, or an array (n, height, width, 3) uint8", "encode it again")


def decode(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (H, W, 3) RGB frame of a JPEG; ask :func:`size_of` first.

    Raises:
        MonoError: it cannot be decoded.
    """
    import cv2

    try:
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MonoError("a JPEG that cannot be decoded", "a whole JPEG", "encode it again") from error
    if image is None:
        raise MonoError("a JPEG that cannot be decoded", "a whole JPEG", "encode it again")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
