"""Camera frames on their way into a bag: raw pixels to a JPEG message, and the CameraInfo of a scaled picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.bags.reader import typestore
from collector.geometry.constants import NS_PER_S
from collector.ros.images import FrameError, RawFrame, as_bgr, encode_jpeg, encoding_of
from collector.ros.topics import CAMERA_INFO, CAMERA_JPEG, Message


def compressed_image_cdr(frame: RawFrame, quality: int, scale: float = 1.0) -> memoryview:
    """A raw camera frame as a serialised sensor_msgs/CompressedImage with its header; JPEG quality 1 to 100.

    ``scale`` is the stored size over the camera's, averaged over areas, so that thin lines survive.

    Raises:
        FrameError: no pixels, an unknown encoding, or a picture that OpenCV cannot compress.
    """
    if (image := frame.pixels) is None:
        raise FrameError("a frame without pixels")
    is_mosaic = encoding_of(frame.encoding).is_mosaic
    if scale != 1.0 and not is_mosaic:
        # Before the colours are put in order: fewer pixels to work on.
        image = _scaled(image, scale).reshape(*scaled_size(image.shape[1], image.shape[0], scale)[::-1], -1)
    bgr = as_bgr(image, frame.encoding)
    if scale != 1.0 and is_mosaic:
        bgr = _scaled(bgr, scale)
    jpeg = encode_jpeg(bgr, quality)
    types = typestore().types
    seconds, nanoseconds = divmod(frame.stamp_ns, NS_PER_S)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame.frame_id)
    # The text by which image_transport tells what the pixels were before compression.
    stored_as = f"{frame.encoding}; jpeg compressed {'mono8' if bgr.ndim == 2 else 'bgr8'}"
    message = types[CAMERA_JPEG.type](header=header, format=stored_as, data=np.frombuffer(jpeg, np.uint8))
    return typestore().serialize_cdr(message, CAMERA_JPEG.type)


def _scaled(image: Any, scale: float) -> Any:  # noqa: ANN401 - an image of any depth
    import cv2

    return cv2.resize(image, scaled_size(image.shape[1], image.shape[0], scale), interpolation=cv2.INTER_AREA)


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """(width, height) of a scaled picture in whole pixels, at least one each."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def scaled_camera_info_cdr(cdr: bytes | memoryview, scale: float) -> memoryview:
    """A serialised CameraInfo that describes the scaled picture: size, K, P and region of interest.

    Pixel centres lie on whole numbers, so the picture's edge at -0.5 stays there: ``c' = (c + 0.5) * s - 0.5``.
    Distortion acts on normalised coordinates, binning on whatever size there is: both stay.

    Raises:
        FrameError: the message cannot be read.
    """
    store = typestore()
    try:
        info: Message = store.deserialize_cdr(bytes(cdr), CAMERA_INFO.type)
    except Exception as error:  # a damaged message may fail anywhere inside the decoder
        raise FrameError(f"a CameraInfo of {len(cdr)} bytes that cannot be read") from error
    width, height = scaled_size(info.width, info.height, scale)
    if info.width and info.height:
        scale_x, scale_y = width / info.width, height / info.height
    else:
        scale_x = scale_y = scale
        width = height = 0
    info.width, info.height = width, height
    info.k, info.p = info.k.copy(), info.p.copy()
    for matrix, columns in ((info.k, 3), (info.p, 4)):
        for row, factor in ((0, scale_x), (1, scale_y)):
            matrix[row * columns : (row + 1) * columns] *= factor
            if matrix[row * columns + row]:  # an uncalibrated camera sends zeros
                matrix[row * columns + 2] += 0.5 * factor - 0.5
    roi = info.roi
    roi.x_offset, roi.y_offset = round(roi.x_offset * scale_x), round(roi.y_offset * scale_y)
    roi.width, roi.height = round(roi.width * scale_x), round(roi.height * scale_y)
    return store.serialize_cdr(info, CAMERA_INFO.type)
