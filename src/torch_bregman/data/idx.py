"""The idx format: what MNIST and its relatives come in.

Four bytes (0, 0, type code, number of dimensions), one big-endian uint32 a dimension, then the items in C
order.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
from pathlib import Path

import numpy as np

from torch_bregman.data.content import read_content
from torch_bregman.data.errors import DataError

_DTYPES = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MAX_DIMS = 32  # of numpy before 2.0


def read_idx(path: str | os.PathLike[str], ndim: int | None = None) -> np.ndarray:
    """Array in an idx file, plain or (name ending in ``.gz``) gzip-compressed.

    Args:
        path: the file.
        ndim: number of dimensions it must have; None for any.

    Returns:
        A writable array in the machine's byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
        DataError: anything malformed: unreadable, not gzip, empty, wrong magic number, unknown type code,
            wrong number of dimensions, truncated, or bytes left over.

    Example:
        >>> import tempfile
        >>> path = write_idx(Path(tempfile.mkdtemp()) / "two.gz", np.array([[1, 2]], dtype=np.uint8))
        >>> read_idx(path)
        array([[1, 2]], dtype=uint8)
    """
    return parse_idx(read_content(Path(path)), str(path), ndim)


def parse_idx(content: bytes, name: str, ndim: int | None = None) -> np.ndarray:
    """Array in the content of an idx file.

    Args:
        content: the decompressed bytes.
        name: what to call it in errors.
        ndim: number of dimensions it must have; None for any.

    Returns:
        As `read_idx`.

    Raises:
        DataError: as `read_idx`.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]), "two numbers")
        array([5, 6], dtype=uint8)
    """
    dtype, shape, start = _header(content, name, ndim)
    expected = start + dtype.itemsize * math.prod(shape)
    if len(content) < expected:
        raise DataError(f"{name}: truncated: {len(content):,} bytes, shape {shape} needs {expected:,}")
    if len(content) > expected:
        left = len(content) - expected
        raise DataError(f"{name}: {left:,} bytes left over after the {expected:,} of shape {shape}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _header(content: bytes, name: str, ndim: int | None) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and where the items start."""
    if not content:
        raise DataError(f"{name}: is empty")
    if len(content) < 4 or content[:2] != b"\0\0":
        hint = ", which is gzip: let its name end in .gz" if content[:2] == b"\x1f\x8b" else ""
        raise DataError(f"{name}: not an idx file: starts with {content[:4].hex()}, must with 0000{hint}")
    dtype, dims = _dtype(content[2], name), content[3]
    if not 1 <= dims <= _MAX_DIMS or ndim not in (None, dims):
        allowed = f"1 to {_MAX_DIMS}" if ndim is None else ndim
        raise DataError(f"{name}: has {dims} dimensions, must have {allowed}")
    start = 4 + 4 * dims
    if len(content) < start:
        raise DataError(f"{name}: truncated: {len(content)} bytes, its header alone needs {start}")
    shape = struct.unpack(f">{dims}I", content[4:start])
    if 0 in shape:
        raise DataError(f"{name}: holds no items: shape {shape}")
    return dtype, shape, start


def _dtype(code: int, name: str) -> np.dtype:
    if code not in _DTYPES:
        known = ", ".join(f"0x{known:02x}" for known in _DTYPES)
        raise DataError(f"{name}: type code 0x{code:02x} is not one of the idx format's {known}")
    return _DTYPES[code]


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> Path:
    """Write an array as an idx file, gzip-compressed where the name ends in ``.gz``.

    The compressed file carries no name and no time: the same array gives the same bytes.

    Args:
        path: where to.
        array: uint8, int8, int16, int32, float32 or float64, at least one item, 1 to 32 dimensions.

    Returns:
        The path.

    Raises:
        DataError: an array that the format cannot hold.

    Example:
        >>> import tempfile
        >>> write_idx(Path(tempfile.mkdtemp()) / "ones", np.ones(3, dtype=np.uint8)).read_bytes().hex()
        '0000080100000003010101'
    """
    content, path = encode_idx(array), Path(path)
    if path.name.endswith(".gz"):
        with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as stream:
            stream.write(content)
    else:
        path.write_bytes(content)
    return path


def encode_idx(array: np.ndarray) -> bytes:
    """Content of the idx file that holds an array.

    Args:
        array: as for `write_idx`.

    Returns:
        Header and items.

    Raises:
        DataError: an array that the format cannot hold.

    Example:
        >>> encode_idx(np.array([7, 8], dtype=np.int8)).hex()
        '00000901000000020708'
    """
    dtype = array.dtype.newbyteorder(">")
    if dtype not in _CODES or not array.size or not 1 <= array.ndim <= _MAX_DIMS:
        raise DataError(f"idx holds no {array.dtype} array of shape {array.shape}: convert it, e.g. to uint8")
    header = struct.pack(f">4B{array.ndim}I", 0, 0, _CODES[dtype], array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()
