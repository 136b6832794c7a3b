"""Work on many matrices spread over processes: each takes its share, and all get the thin factors that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""L (r × m) and R (r × n) of a matrix LᵀR."""


def owners(costs: Sequence[float], size: int) -> list[int]:
    """Return which of `size` processes does each task, so that none has much more to do than another.

    The costliest task goes first, each to whoever has least so far (Graham 1969): no more than 4/3 of the best.

    Example:
        >>> owners([1.0, 3.0, 2.0, 2.0], 2)
        [0, 0, 1, 1]
    """
    load, owner = [0.0] * size, [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda each: (-costs[each], each)):
        owner[number] = load.index(min(load))
        load[owner[number]] += costs[number]
    return owner


def decomposition_cost(shape: Sequence[int]) -> float:
    """Return how long a decomposition of an m × n matrix takes, up to a factor: m·n·min(m, n)."""
    rows, columns = shape
    return float(rows * columns * min(rows, columns))


def exchanged(
    shapes: Sequence[tuple[int, int]],
    owner: Sequence[int],
    find: Callable[[list[int]], list[Factors]],
    like: Tensor,
    group: dist.ProcessGroup | None,
) -> list[Factors]:
    """Let every process find the factors of its own matrices, and return those of all.

    What travels is r·(m + n) numbers a matrix, and one number for its rank r.

    Args:
        shapes: m and n of every matrix.
        owner: which process of the group finds each.
        find: takes places in `shapes`, returns the factors there.
        like: dtype and device of the factors.
        group: of processes; all call this with the same shapes.

    Raises:
        ValueError: on every process, where `find` raises one on any of them.
    """
    rank = dist.get_rank(group)
    own = [number for number, each in enumerate(owner) if each == rank]
    ranks, found, failure = torch.zeros(len(shapes), dtype=torch.int64, device=like.device), {}, None
    try:
        found = dict(zip(own, find(own), strict=True))
        for number, (left, _) in found.items():
            ranks[number] = len(left)
    except ValueError as error:
        failure = error
        ranks[own] = -1
    dist.all_reduce(ranks, group=group)
    counts: list[int] = ranks.tolist()
    if failure is not None:
        raise failure
    if min(counts, default=0) < 0:
        raise ValueError("singular value thresholding failed in another process: lower lr or clip gradients")
    return _broadcast(shapes, owner, counts, found, like, group)


def _broadcast(
    shapes: Sequence[tuple[int, int]],
    owner: Sequence[int],
    counts: list[int],
    found: dict[int, Factors],
    like: Tensor,
    group: dist.ProcessGroup | None,
) -> list[Factors]:
    rank, waiting = dist.get_rank(group), []
    result: dict[int, Any] = {}
    for source in sorted(set(owner)):
        members = [number for number, each in enumerate(owner) if each == source]
        sizes = [counts[n] * length for n in members for length in shapes[n]]
        if source == rank:
            flat = torch.cat([factor.reshape(-1) for n in members for factor in found[n]]).to(like)
        else:
            flat = like.new_empty(sum(sizes))
        if flat.numel():
            waiting.append(dist.broadcast(flat, _global(source, group), group=group, async_op=True))
        pieces = iter(flat.split(sizes))  # the owner takes its own from there too, so that all multiply the same memory
        for n in members:
            result[n] = tuple(next(pieces).view(counts[n], length) for length in shapes[n])
    for work in waiting:
        work.wait()
    return [result[number] for number in range(len(shapes))]


def _global(rank: int, group: dist.ProcessGroup | None) -> int:
    return rank if group is None else dist.get_global_rank(group, rank)
