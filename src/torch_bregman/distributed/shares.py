"""A batch dealt out over processes, and over the pieces of a step, so that the mean over it stays what it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Share(NamedTuple):
    """A part of a batch.

    Args:
        x: inputs, at least one.
        y: targets.
        weight: by which a mean over the part enters the mean of all parts of all processes. Zero for a part that would
            have been empty: it holds a sample of another's, so that every process calls the model equally often.
    """

    x: Tensor
    y: Tensor
    weight: float

    @property
    def own(self) -> int:
        """Number of own samples."""
        return len(self.x) if self.weight else 0


def shares(x: Tensor, y: Tensor, rank: int, size: int, pieces: int = 1) -> Iterator[Share]:
    """Go through this process's part of a batch.

    Processes average gradients, so weights sum to the number of processes over all parts of all of them.

    Args:
        x: inputs of the whole batch, the same on every process.
        y: its targets.
        rank: of this process.
        size: number of processes.
        pieces: into how many parts each process cuts its own.

    Example:
        >>> import torch
        >>> x = torch.arange(5)
        >>> [(part.x.tolist(), part.weight) for part in shares(x, x, rank=0, size=2)]
        [([0, 1, 2], 1.2)]
        >>> [(part.x.tolist(), part.weight) for part in shares(x, x, rank=1, size=2)]
        [([3, 4], 0.8)]
    """
    count = len(x)
    own_x, own_y = x.tensor_split(size)[rank], y.tensor_split(size)[rank]
    pieces = max(1, min(pieces, -(-count // size)))
    for part_x, part_y in zip(own_x.tensor_split(pieces), own_y.tensor_split(pieces), strict=True):
        if len(part_x):
            yield Share(part_x, part_y, size * len(part_x) / count)
        else:
            yield Share(x[:1], y[:1], 0.0)
