"""One data set in one folder: finding its files by name, reading and checking them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_bregman.data.catalog import DataFile, SetInfo
from torch_bregman.data.cifar import parse_cifar
from torch_bregman.data.content import read_content
from torch_bregman.data.errors import DataError
from torch_bregman.data.idx import parse_idx


@dataclass(frozen=True, eq=False)
class RawSet:
    """A data set as it lies in its files.

    Args:
        train: images (N, C, H, W), uint8, and labels (N,), any integers from 0 to ``num_classes`` less one.
        test: likewise.
        genuine: whether every file is the published one.
        source: where it came from.

    Example:
        >>> pair = (np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, np.uint8))
        >>> RawSet(pair, pair, genuine=False, source="made up").source
        'made up'
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    genuine: bool
    source: str


def spellings(name: str) -> tuple[str, ...]:
    """The names that a file goes by in the wild.

    Args:
        name: its standard name.

    Returns:
        Names, the preferred first.

    Example:
        >>> spellings("train-images-idx3-ubyte")[2:]
        ('train-images.idx3-ubyte', 'train-images.idx3-ubyte.gz')
    """
    dotted = name.replace("-idx", ".idx")
    names = (name,) if dotted == name else (name, dotted)
    return tuple(base + suffix for base in names for suffix in ("", ".gz"))


def find_file(folder: Path, name: str) -> Path | None:
    """Path of a file in a folder, under any of its spellings.

    Args:
        folder: where to look.
        name: its standard name.

    Returns:
        The path, or None where there is none.

    Example:
        >>> find_file(Path("no such folder"), "test_batch.bin") is None
        True
    """
    paths = (folder / spelling for spelling in spellings(name))
    return next((path for path in paths if path.exists()), None)


def missing_files(info: SetInfo, folder: Path) -> list[str]:
    """Standard names of those files of a set that a folder lacks.

    Args:
        info: the set.
        folder: where to look.

    Returns:
        Names, in the set's order.

    Example:
        >>> from torch_bregman.data.catalog import lookup
        >>> missing_files(lookup("cifar10"), Path("no such folder"))[-1]
        'test_batch.bin'
    """
    return [file.name for file in info.files if find_file(folder, file.name) is None]


def read_folder(info: SetInfo, folder: Path, *, verify: bool, source: str) -> RawSet:
    """Read a set from a folder.

    Args:
        info: the set.
        folder: holds its files, plain or ``.gz``.
        verify: whether they must be the published ones; else any of the same format, own data included,
            will do.
        source: what to call the place.

    Returns:
        The set.

    Raises:
        DataError: a file missing, malformed or (with ``verify``) not the published one; images and labels
            that do not belong together; training and test images of unequal shape.

    Example:
        >>> from torch_bregman.data.catalog import lookup
        >>> sample = Path(__file__).parent / "sample"
        >>> read_folder(lookup("sample"), sample, verify=True, source="here").train[0].shape
        (6000, 1, 28, 28)
    """
    found = [(file, *_read_file(file, folder)) for file in info.files]
    faults = [f"{path}: {fault}" for file, path, content in found if (fault := file.fault(content))]
    if verify and faults:
        raise DataError(f"{faults[0]}: remove it and get it anew, or give own data by its folder (directory=)")
    named = [(str(path), content) for _, path, content in found]
    train, test = _part(info, named[: len(info.train)]), _part(info, named[len(info.train) :])
    if train[0].shape[1:] != test[0].shape[1:]:
        shapes = f"{train[0].shape[1:]} and {test[0].shape[1:]}"
        raise DataError(f"{folder}: training and test images differ in shape (C, H, W): {shapes}")
    return RawSet(train, test, genuine=not faults, source=source)


def _read_file(file: DataFile, folder: Path) -> tuple[Path, bytes]:
    path = find_file(folder, file.name)
    if path is None:
        raise DataError(f"{folder / file.name}: missing (.gz would do): put it there, or name another folder")
    return path, read_content(path)


def _part(info: SetInfo, files: list[tuple[str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one part, from its files' names and contents."""
    if info.format == "cifar":
        batches = [parse_cifar(content, name) for name, content in files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    else:
        (images_name, images_content), (labels_name, labels_content) = files
        images = parse_idx(images_content, images_name, ndim=3)[:, None]
        labels = parse_idx(labels_content, labels_name, ndim=1)
    _check(images, labels, info.num_classes, files[0][0])
    return images, labels


def _check(images: np.ndarray, labels: np.ndarray, num_classes: int, name: str) -> None:
    """That images and labels belong together; `name` is the images' file."""
    if images.dtype != np.uint8:
        raise DataError(f"{name}: images are {images.dtype}, must be uint8 (0 to 255)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: the labels to it are {labels.dtype}, must be integers")
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images):,} images, but {len(labels):,} labels to them")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"{name}: its labels run {labels.min()}..{labels.max()}, must be 0..{num_classes - 1}")
