"""Tensors of which every process holds a part (DTensor): made whole, cut again, or sent whole to one process alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})


def is_sharded(x: Tensor) -> bool:
    """Return whether a tensor is a DTensor."""
    if type(x) in _PLAIN or not dist.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(x, DTensor)


def gathered(x: Tensor) -> Tensor:
    """Return a tensor with all its entries, the same on every process that holds a part of it.

    Example:
        >>> gathered(torch.ones(2))
        tensor([1., 1.])
    """
    return x.full_tensor() if is_sharded(x) else x  # pyright: ignore[reportAttributeAccessIssue]


def local(x: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds."""
    return x.to_local() if is_sharded(x) else x  # pyright: ignore[reportAttributeAccessIssue]


def sharded_like(full: Tensor, like: Tensor) -> Tensor:
    """Return a tensor that every process has whole, cut as another one is; nothing is sent.

    Args:
        full: the same on every process.
        like: of the same shape; where it is no DTensor, `full` is returned as it is.
    """
    if not is_sharded(like) or is_sharded(full):
        return full
    from torch.distributed.tensor import DTensor, Replicate

    whole = DTensor.from_local(full, like.device_mesh, [Replicate()] * like.device_mesh.ndim, run_check=False)  # pyright: ignore[reportAttributeAccessIssue]
    return whole.redistribute(placements=like.placements)  # pyright: ignore[reportAttributeAccessIssue]


def with_whole_pieces(x: Tensor, dim: int, size: int) -> Tensor:
    """Return a tensor of which no process holds a part of `size` neighbours along a dimension: gathered where need be.

    Example:
        >>> with_whole_pieces(torch.ones(4), 0, 2)
        tensor([1., 1., 1., 1.])
    """
    if not is_sharded(x):
        return x
    from torch.distributed.tensor import Replicate, Shard

    mesh, placements = x.device_mesh, list(x.placements)  # pyright: ignore[reportAttributeAccessIssue]
    for number, place in enumerate(placements):
        if isinstance(place, Shard) and place.dim == dim and x.shape[dim] % (mesh.size(number) * size):
            placements[number] = Replicate()
    return x.redistribute(placements=placements)  # pyright: ignore[reportAttributeAccessIssue]


def collect(xs: Sequence[DTensor], owner: Sequence[int], group: dist.ProcessGroup | None) -> dict[int, Tensor]:
    """Return the tensors that this process owns, whole; each part is sent once, to the owner.

    Every process of the group calls it with the same tensors in the same order.

    Args:
        xs: parts of tensors, of one dtype and on one device.
        owner: which process of the group gets each.
        group: of the mesh of all.

    Returns:
        Own tensors by their place in `xs`.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    own = [number for number, each in enumerate(owner) if each == rank]
    if not all(map(_is_cut_by_rows, xs)):
        return {number: full for number, full in enumerate(map(gathered, xs)) if number in own}
    sent = [[xs[n].to_local().reshape(-1) for n in range(len(xs)) if owner[n] == each] for each in range(size)]
    flat = torch.cat([part for parts in sent for part in parts]) if xs else torch.empty(0)
    counts = [sum(part.numel() for part in parts) for parts in sent]
    coming = [[_part(xs[n].shape, each, size) for n in own] for each in range(size)]
    received = flat.new_empty(sum(map(sum, coming)))
    dist.all_to_all_single(received, flat, [sum(parts) for parts in coming], counts, group=group)
    pieces = iter(received.split([part for parts in coming for part in parts]))
    by_rank = [[next(pieces) for _ in own] for _ in range(size)]
    return {n: torch.cat([parts[i] for parts in by_rank]).view(xs[n].shape) for i, n in enumerate(own)}


def _is_cut_by_rows(x: DTensor) -> bool:
    """Return whether the parts are runs of the first dimension, in the order of the processes."""
    from torch.distributed.tensor import Shard

    return len(x.placements) == 1 and type(x.placements[0]) is Shard and x.placements[0].dim == 0 and x.ndim > 0


def _part(shape: torch.Size, rank: int, size: int) -> int:
    """Return how many entries of a tensor cut by rows a process has: pieces as `torch.chunk` makes them."""
    rows = -(-shape[0] // size)
    return max(0, min(rows, shape[0] - rank * rows)) * math.prod(shape[1:])
