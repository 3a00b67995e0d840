"""Pictures that are small as files and as large as one likes as pixels."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def black_png(width: int, height: int) -> bytes:
    """A PNG of a bit per pixel: 30,000 x 30,000 of them take 110 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def road_picture(travelled_m: float, width: int = 64, height: int = 36) -> np.ndarray:
    """(H, W, 3) RGB of a sky over a ground with marks that come nearer with every metre."""
    rows, columns = np.mgrid[0:height, 0:width] / (height - 1.0)
    ground = 90.0 + 40.0 * np.sin(9.0 / (rows + 0.05) + 4.0 * travelled_m) * np.sin(7.0 * columns + 0.5 * travelled_m)
    sky = 190.0 + 40.0 * rows
    picture = np.where(rows[..., None] < 0.4, sky[..., None] * (0.8, 0.9, 1.0), ground[..., None] * (1.0, 0.95, 0.9))
    return picture.round().astype(np.uint8)
