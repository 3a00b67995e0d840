"""Picture files read and decoded, with a sentence for each that cannot be; OpenCV's limit is set in `start`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from collector.common.files import read_regular

_FILE_BYTES = 64 << 20


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as OpenCV's (H, W, 3) BGR.

    Raises:
        MonoError: no such file, a pipe or a device, no picture, or one of more than 67 million pixels.
    """
    expected, do = "a JPEG of the dataset", "build the dataset again"
    try:
        data = np.frombuffer(read_regular(path, _FILE_BYTES), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MonoError(f"the frame {path} cannot be read: {why}", expected, do) from error
    except cv2.error as error:
        why = "too many pixels" if "validateInputImageSize" in str(error) else str(error).strip().splitlines()[0]
        raise MonoError(f"the frame {path} cannot be decoded: {why}", expected, do) from error
    if image is None:
        raise MonoError(f"the frame {path} is no picture that can be decoded", expected, do)
    return np.asarray(image, np.uint8)
