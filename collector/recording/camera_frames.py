"""Camera frames on their way into a bag: raw pixels to a JPEG message, and the CameraInfo of a scaled picture."""

from __future__ import annotations

import struct
from typing import Any

from collector.bags.cdr import camera_info_places, compressed_image
from collector.ros.images import FrameError, RawFrame, as_bgr, encode_jpeg, encoding_of


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
    # The text by which image_transport tells what the pixels were before compression.
    stored_as = f"{frame.encoding}; jpeg compressed {'mono8' if bgr.ndim == 2 else 'bgr8'}"
    return compressed_image(frame.stamp_ns, frame.frame_id, stored_as, jpeg)


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
    changed = bytearray(cdr)
    try:
        places = camera_info_places(changed)
    except (ValueError, struct.error) as error:
        raise FrameError(f"a CameraInfo of {len(cdr)} bytes that cannot be read") from error

    def at(place: int, form: str) -> list[Any]:
        return list(struct.unpack_from(places.order + form, changed, place))

    said_height, said_width = at(places.size, "2I")
    width, height = scaled_size(said_width, said_height, scale)
    if said_width and said_height:
        scale_x, scale_y = width / said_width, height / said_height
    else:
        scale_x = scale_y = scale
        width = height = 0
    struct.pack_into(f"{places.order}2I", changed, places.size, height, width)
    for place, columns in ((places.k, 3), (places.p, 4)):
        matrix = at(place, f"{3 * columns}d")
        for row, factor in ((0, scale_x), (1, scale_y)):
            values = [value * factor for value in matrix[row * columns : (row + 1) * columns]]
            if values[row]:  # an uncalibrated camera sends zeros
                values[2] += 0.5 * factor - 0.5
            matrix[row * columns : (row + 1) * columns] = values
        struct.pack_into(f"{places.order}{3 * columns}d", changed, place, *matrix)
    x, y, roi_height, roi_width = at(places.roi, "4I")
    scaled = [round(value * factor) for value, factor in ((x, scale_x), (y, scale_y))]
    scaled += [round(roi_height * scale_y), round(roi_width * scale_x)]
    struct.pack_into(f"{places.order}4I", changed, places.roi, *scaled)
    return memoryview(changed)
