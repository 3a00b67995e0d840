"""Safetensors files read by their headers and written as a stream: no tensor is held longer than it takes to copy it.

The format is eight bytes of header length, a JSON header, and the tensors' bytes. The library reads a file lazily but
writes it only from memory, and a merged 22 GB checkpoint has to pass through a machine that holds one tensor of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.common.errors import MonoError
from collector.common.model_files import weights_header
from collector.common.text_files import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Bytes of one value, by the format's own names of types.
ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    dtype: str  # the format's name of the type, such as `"BF16"`
    shape: tuple[int, ...]  # of the tensor
    path: Path  # the file
    start: int  # its first byte there
    size: int  # in bytes

    def read(self, limit: int | None = None) -> NDArray[np.uint8]:
        """Its bytes, or the first ``limit`` of them."""
        count = self.size if limit is None else min(limit, self.size)
        return np.fromfile(self.path, dtype=np.uint8, count=count, offset=self.start)


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder: the shards its index names, or the one file.

    Raises:
        MonoError: a file is absent, or there is only a format that runs code when it is read.
    """
    index, names = folder / INDEX_FILE, [WEIGHTS_FILE]
    if index.is_file():
        try:
            names = sorted(set(read_json(index, "download it again")["weight_map"].values()))
        except (KeyError, AttributeError, TypeError) as error:
            raise MonoError(f"{index} cannot be read", "an index with a weight_map", "download it again") from error
    for name in names:
        path = folder / str(name)
        if path.parent == folder and len(path.name) < 256 and path.is_file():  # longer than any file system has
            continue
        unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in _UNSAFE_SUFFIXES)
        found, do = f"no file {path}", "download the folder again"
        if unsafe:
            found += f", but {unsafe[0]}, which can run code when it is read"
            do = "convert them with transformers' save_pretrained, or choose a revision with safetensors"
        raise MonoError(found, "the weights as safetensors", do)
    return [folder / str(name) for name in names]


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, by name (MonoError: the file is absent, cut off, or no safetensors file)."""
    try:
        header, begin = weights_header(path)
    except MonoError as error:
        raise MonoError(f"in {path.parent}: {error.found}", error.expected, error.do) from error
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            whole = all(type(side) is int and side >= 0 for side in shape)
            fits = whole and tensor_bytes(dtype, shape) == end - start
        except (KeyError, TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            found = f"{path}: the header's entry for {name} is {entry}"
            expected = "a type, a shape and the place of its bytes, the type one of " + ", ".join(ITEM_BYTES)
            raise MonoError(found, expected, "use the unquantised weights, or download them again")
        tensors[name] = StoredTensor(dtype, shape, path, begin + start, end - start)
    return tensors


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model folder by name, shard after shard, in the order of their bytes.

    Raises:
        MonoError: as :func:`weight_files` and :func:`read_header`.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        header = read_header(path)
        if twice := sorted(header.keys() & found.keys()):
            raise MonoError(
                f"{twice[0]} is in {found[twice[0]].path} and in {path}", "each tensor once", "download again"
            )
        found.update(sorted(header.items(), key=lambda item: item[1].start))
    return found


def write_weights(
    path: Path, tensors: Sequence[tuple[str, str, tuple[int, ...]]], contents: Iterable[NDArray[np.uint8]]
) -> None:
    """Write and flush a safetensors file of tensors (name, type, shape); their bytes are taken one at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        size = tensor_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as the library writes them
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for (name, dtype, shape), content in zip(tensors, contents, strict=True):
            if content.nbytes != tensor_bytes(dtype, shape):
                raise ValueError(f"{name}: {content.nbytes} bytes for {dtype} {shape}")
            stream.write(content.data)
        stream.flush()
        os.fsync(stream.fileno())


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Size of a tensor in a file."""
    return math.prod(shape) * ITEM_BYTES[dtype]
