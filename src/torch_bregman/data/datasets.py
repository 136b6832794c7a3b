"""A data set as tensors in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
import torch
from torch import Tensor

from torch_bregman.data.catalog import lookup
from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import RawSet
from torch_bregman.data.sources import read_set


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Args:
        images: (N, C, H, W), uint8, 0 for black to 255.
        labels: (N,), int64.

    Raises:
        DataError: another shape or type, or unequal numbers of both.

    Example:
        >>> len(Split(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([3, 4])))
        2
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise DataError(f"images are {images.dtype} {tuple(images.shape)}, must be uint8 (N, C, H, W)")
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise DataError(f"labels are {labels.dtype} {tuple(labels.shape)}, must be int64 ({len(images)},)")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set: what to learn from, what to be judged by, and how to normalise it.

    Args:
        name: of the set.
        train: the training part.
        test: the test part.
        num_classes: labels run from 0 to this less one.
        mean: of each channel over the training part, pixels scaled to 0..1.
        std: standard deviation likewise.
        source: where it came from.

    Example:
        >>> data = load("sample")
        >>> data.name, data.shape, len(data.test)
        ('sample', (1, 28, 28), 1000)
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load(name: str = "sample", directory: str | os.PathLike[str] | None = None, download: bool = True) -> DataSet:
    """Data set of that name, from wherever it is.

    Looked for in ``directory`` alone where one is given; else in what the environment variable
    ``TORCH_BREGMAN_DATA`` names, the user's cache, the folders of torchvision and Debian, and last the
    network.

    Args:
        name: ``sample`` (7,000 images of MNIST, inside the package), ``mnist``, ``fashion-mnist`` or
            ``cifar10``.
        directory: folder with the set's files. Own data in the same format and number of classes will do:
            mean and standard deviation are then computed from it.
        download: whether to download what no place has.

    Returns:
        The data set, on the CPU.

    Raises:
        DataError: unknown name; nothing found; a file missing, malformed or not the published one.

    Example:
        >>> data = load("sample")
        >>> data.train.images.shape, data.num_classes
        (torch.Size([6000, 1, 28, 28]), 10)
    """
    info, raw = lookup(name), read_set(name, directory, download)
    mean, std = (info.mean, info.std) if raw.genuine else _moments(raw)
    return DataSet(name, _split(*raw.train), _split(*raw.test), info.num_classes, mean, std, raw.source)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _moments(raw: RawSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, pixels scaled to 0..1."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(raw.train[0].shape[1]):
        weights = np.bincount(raw.train[0][:, channel].ravel(), minlength=256)
        mean.append(float(np.average(levels, weights=weights)))
        variance = np.average((levels - mean[-1]) ** 2, weights=weights)
        # one grey level at least, so that a channel that is all of one shade can be divided by it
        std.append(max(float(variance**0.5), 1 / 255))
    return tuple(mean), tuple(std)


def holdout(split: Split, fraction_or_count: float, seed: int) -> tuple[Split, Split]:
    """Set a random part aside, for validation.

    Args:
        split: what to divide.
        fraction_or_count: a float in (0, 1), the share to set aside; or an integer from 1 to N - 1, how many.
        seed: of the generator that draws them; the global one is left alone.

    Returns:
        What remains, and what is set aside: disjoint, together all of it.

    Raises:
        DataError: either part would be empty.

    Example:
        >>> rest, aside = holdout(load("sample").train, 0.1, seed=0)
        >>> len(rest), len(aside)
        (5400, 600)
    """
    count = _count(fraction_or_count, len(split))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).to(split.labels.device)
    rest, aside = order[count:], order[:count]
    return Split(split.images[rest], split.labels[rest]), Split(split.images[aside], split.labels[aside])


def _count(fraction_or_count: float, size: int) -> int:
    if isinstance(fraction_or_count, float):
        count = round(fraction_or_count * size) if 0 < fraction_or_count < 1 else 0
    else:
        count = index(fraction_or_count)
    if not 0 < count < size:
        raise DataError(
            f"cannot set {fraction_or_count} of {size} images aside: "
            f"give a fraction in (0, 1) or a count from 1 to {size - 1} that leaves neither part empty"
        )
    return count


def normalize(
    split: Split,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Images as numbers to train on: x = (pixel/255 - mean) / std, channel by channel.

    Args:
        split: images and labels.
        mean: one number a channel.
        std: one positive number a channel.
        device: where to put both.
        dtype: of the images, a floating-point type.

    Returns:
        x (N, C, H, W) and y (N,), int64; copies.

    Raises:
        DataError: not one mean and positive std a channel, or a type that is not floating-point.

    Example:
        >>> data = load("sample")
        >>> x, y = normalize(data.train, data.mean, data.std)
        >>> x.dtype, abs(float(x.mean())) < 0.02
        (torch.float32, True)
    """
    channels = split.images.shape[1]
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise DataError(f"mean {mean} and std {std}: must be one number for each of {channels} channels, std > 0")
    if not dtype.is_floating_point:
        raise DataError(f"cannot normalise to {dtype}: choose a floating-point type, e.g. torch.float32")
    precise = torch.promote_types(dtype, torch.float32)  # half precision is rounded once, at the end
    x = split.images.to(device).to(precise)
    center, scale = (torch.as_tensor(moment, dtype=precise, device=device).view(1, -1, 1, 1) for moment in (mean, std))
    return x.div_(255).sub_(center).div_(scale).to(dtype), split.labels.to(device, copy=True)
