"""Messages and plain data agree, in both directions and for every encoding a camera may send."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from collector.bags.reader import odometry_row
from collector.common.errors import MonoError
from collector.ros.conversions import fill_image, odometry_of, rgb_of, set_pose, set_stamp, stamp_ns_of, yaw_of

RED_AND_BLUE = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)


def image(encoding: str, rows: list[list[int]], width: int) -> SimpleNamespace:
    data = array("B", [value for row in rows for value in row])
    size = {"height": len(rows), "width": width, "step": len(rows[0])}
    return SimpleNamespace(**size, encoding=encoding, is_bigendian=0, data=data)


@pytest.mark.parametrize(
    ("encoding", "row"),
    [
        ("rgb8", [255, 0, 0, 0, 0, 255]),
        ("bgr8", [0, 0, 255, 255, 0, 0]),
        ("rgba8", [255, 0, 0, 9, 0, 0, 255, 9]),
        ("bgra8", [0, 0, 255, 9, 255, 0, 0, 9]),
        ("bgr8", [0, 0, 255, 255, 0, 0, 7, 7]),  # rows padded to a multiple of four
    ],
)
def test_every_encoding_becomes_rgb(encoding: str, row: list[int]) -> None:
    np.testing.assert_array_equal(rgb_of(image(encoding, [row], 2)), RED_AND_BLUE)


def test_grey_becomes_three_equal_channels() -> None:
    np.testing.assert_array_equal(rgb_of(image("mono8", [[5, 200]], 2)), [[[5] * 3, [200] * 3]])


def test_sixteen_bits_become_eight_in_either_byte_order() -> None:
    little = image("mono16", [[0x34, 0x12, 0xFF, 0xFF]], 2)
    big = image("mono16", [[0x12, 0x34, 0xFF, 0xFF]], 2)
    big.is_bigendian = 1
    for message in (little, big):
        np.testing.assert_array_equal(rgb_of(message), [[[0x12] * 3, [255] * 3]])
    colours = image("rgb16", [[0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]], 2)
    np.testing.assert_array_equal(rgb_of(colours), RED_AND_BLUE)


@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuv422_yuy2", "yuyv"])
def test_two_pixels_share_a_colour_in_yuv422(encoding: str) -> None:
    gray = [128, 16, 128, 235] if encoding in ("uyvy", "yuv422") else [16, 128, 235, 128]
    np.testing.assert_array_equal(rgb_of(image(encoding, [gray], 2)), [[[0] * 3, [255] * 3]])
    with pytest.raises(MonoError, match="cannot be converted"):
        rgb_of(image(encoding, [[128, 16, 128, 235, 128, 16]], 3))


@pytest.mark.parametrize("colour", range(3))
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mosaic_of_one_colour_is_that_colour(pattern: str, colour: int, bits: int) -> None:
    seen = np.array([name == "rgb"[colour] for name in pattern]).reshape(2, 2)
    values = (255 * np.tile(seen, (4, 4))).tolist()
    rows = [[value for value in row for _ in range(bits // 8)] for row in values]
    rgb = rgb_of(image(f"bayer_{pattern}{bits}", rows, 8))
    assert rgb.shape == (8, 8, 3) and (rgb[2:-2, 2:-2].argmax(axis=2) == colour).all()
    assert rgb[2:-2, 2:-2, colour].min() > 200


def test_the_image_is_a_copy() -> None:
    message = image("rgb8", [[255, 0, 0, 0, 0, 255]], 2)
    pixels = rgb_of(message)
    message.data[0] = 1
    assert pixels[0, 0, 0] == 255 and pixels.flags.writeable and pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("message", "words"),
    [(image("32FC1", [[1, 2]], 2), "32FC1.*Expected: bgr8"), (image("rgb8", [[1, 2, 3]], 2), "3 bytes for 2x1")],
)
def test_unreadable_images_are_sentences(message: SimpleNamespace, words: str) -> None:
    with pytest.raises(MonoError, match=words):
        rgb_of(message)


def test_images_go_out_as_bgr_and_come_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    message = image("", [[0]], 1)
    fill_image(message, pixels)
    assert (message.encoding, message.step, message.height, message.width) == ("bgr8", 24, 6, 8)
    assert message.data[0] == pixels[0, 0, 2]
    np.testing.assert_array_equal(rgb_of(message), pixels)


@pytest.mark.parametrize("yaw_rad", [0.0, 1.0, -3.0, 3.1])
def test_poses_and_stamps_survive(yaw_rad: float) -> None:
    vector = SimpleNamespace
    pose = vector(position=vector(), orientation=vector())
    set_pose(pose, (89_630.5, 43_130.25, yaw_rad))
    stamp = vector()
    set_stamp(stamp, 1_790_000_000_123_456_789)
    assert yaw_of(pose.orientation) == pytest.approx(yaw_rad)
    twist = vector(twist=vector(linear=vector(x=3.5)))
    message = vector(header=vector(stamp=stamp), pose=vector(pose=pose), twist=twist)
    stamp_ns, (x, y, yaw), speed = odometry_of(message)
    assert stamp_ns == 1_790_000_000_123_456_789 == stamp_ns_of(stamp)
    assert (x, y, speed) == (89_630.5, 43_130.25, 3.5) and yaw == pytest.approx(yaw_rad)
    # A quaternion of another length turns as far, and one of no length says nothing: a bag reads the same.
    for factor in (0.5, 0.0):
        q = vector(**{axis: factor * getattr(pose.orientation, axis) for axis in "xyzw"})
        message.pose.pose = vector(position=pose.position, orientation=q)
        read = odometry_of(message)[1][2]
        assert read == pytest.approx(yaw_rad if factor else float("nan"), nan_ok=True)
        assert odometry_row(0, message).yaw_rad == pytest.approx(read, nan_ok=True)
