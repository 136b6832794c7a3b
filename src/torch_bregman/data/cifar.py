"""CIFAR-10's binary format: records of a label byte and 3072 pixels (red, green, blue; 32 rows of 32)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from torch_bregman.data.content import read_content
from torch_bregman.data.errors import DataError

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_CLASSES = 10


def read_cifar(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one file of CIFAR-10's binary version, e.g. ``data_batch_1.bin``.

    Args:
        path: the file, plain or (name ending in ``.gz``) gzip-compressed.

    Returns:
        Images (N, 3, 32, 32) and labels (N,), both uint8.

    Raises:
        DataError: unreadable, empty, not a whole number of records, or a label over 9.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test_batch.bin"
        >>> _ = path.write_bytes(bytes([4]) + bytes(3072))
        >>> images, labels = read_cifar(path)
        >>> images.shape, labels.tolist()
        ((1, 3, 32, 32), [4])
    """
    return parse_cifar(read_content(Path(path)), str(path))


def parse_cifar(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the content of one file.

    Args:
        content: the bytes.
        name: what to call it in errors.

    Returns:
        As `read_cifar`.

    Raises:
        DataError: as `read_cifar`.

    Example:
        >>> parse_cifar(bytes(3073), "one black image")[1].tolist()
        [0]
    """
    if not content:
        raise DataError(f"{name}: is empty")
    if len(content) % _RECORD:
        raise DataError(f"{name}: {len(content):,} bytes are no whole number of records of {_RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    images, labels = records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].copy()
    if labels.max() >= _CLASSES:
        first = int((labels >= _CLASSES).argmax())
        raise DataError(f"{name}: record {first} has label {labels[first]}, must be 0 to {_CLASSES - 1}")
    return images, labels
