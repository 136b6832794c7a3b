"""Batches of data that lies in memory: by index, nothing loaded, nothing collated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import index

import torch
from torch import Generator, Tensor

Augment = Callable[[Tensor, Generator], Tensor]
"""Changes a batch of images at random: (x, generator) -> x."""


class Batches:
    """Batches of images and labels held in memory, on any device.

    Each epoch draws one permutation of the indices and takes one `index_select` a batch; without shuffling,
    batches are views of the data. A batch of all the data is the data itself, in its own order and not
    copied, for in the one step of a full-batch method the order says nothing.

    Args:
        images: (N, ...), N > 0.
        labels: (N, ...), on the same device.
        batch_size: images a batch; 0, or N and more, for all of them in one.
        shuffle: whether each epoch has an order of its own.
        drop_last: whether to leave out what does not fill a batch at the end.
        augment: changes each batch of images, see `torch_bregman.data.Shift`; None for none.

    Raises:
        ValueError: no data, unequal numbers or devices of images and labels, a negative batch size.

    Example:
        >>> batches = Batches(torch.arange(5.0), torch.arange(5), batch_size=2, shuffle=False)
        >>> [labels.tolist() for _, labels in batches.epoch()]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        augment: Augment | None = None,
    ) -> None:
        size = len(images)
        if not size or len(labels) != size or images.device != labels.device:
            raise ValueError(
                f"{size} images on {images.device} and {len(labels)} labels on {labels.device}: "
                "must be as many of both, at least one, on one device"
            )
        if index(batch_size) < 0:
            raise ValueError(f"batch_size is {batch_size}, must be 0 (all in one batch) or more")
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, size) or size
        self.shuffle = shuffle and self.batch_size < size
        self.drop_last, self.augment = drop_last, augment

    def __len__(self) -> int:
        """Number of batches an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, generator: Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the data once.

        Args:
            generator: on the CPU; the source of all randomness, and the same state gives the same batches
                on any device. Only an epoch without shuffling and augmentation can do without.

        Returns:
            An iterator over pairs of images and labels.

        Raises:
            ValueError: no generator where one is needed.

        Example:
            >>> batches = Batches(torch.arange(4.0), torch.arange(4), batch_size=2)
            >>> generator = torch.Generator().manual_seed(0)
            >>> sorted(label for _, labels in batches.epoch(generator) for label in labels.tolist())
            [0, 1, 2, 3]
        """
        if generator is None and (self.shuffle or self.augment):
            raise ValueError("shuffling and augmentation need a generator: pass torch.Generator().manual_seed(0)")
        pairs = self._shuffled(generator) if self.shuffle else self._in_order()
        return self._augmented(pairs, self.augment, generator) if self.augment and generator else pairs

    def _shuffled(self, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.images), generator=generator).to(self.images.device)
        for chosen in order[: self._used()].split(self.batch_size):
            yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen)

    def _in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        used = self._used()
        return zip(self.images[:used].split(self.batch_size), self.labels[:used].split(self.batch_size), strict=True)

    @staticmethod
    def _augmented(
        pairs: Iterator[tuple[Tensor, Tensor]], augment: Augment, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in pairs:
            yield augment(images, generator), labels

    def _used(self) -> int:
        return min(len(self) * self.batch_size, len(self.images))
