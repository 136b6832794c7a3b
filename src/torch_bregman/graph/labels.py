"""Units as numbers that label the entries of activations, and which of them turn out to be one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

FIXED = 0
"""The label of what belongs to no unit: the input, constants, whatever may not be removed."""
NEUTRAL = -1
"""The label of zeros from padding, which take part in nothing."""


class Labels:
    """Disjoint sets of units. Units that must go together are merged; one that may not go at all is pinned."""

    def __init__(self) -> None:
        self._parents = [FIXED]
        self._roots: Tensor | None = None
        self._pinned: dict[int, str] = {FIXED: "it belongs to the input"}

    def new(self, count: int) -> Tensor:
        """Return that many fresh units."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        self._roots = None
        return torch.arange(first, first + count)

    def find(self, labels: Tensor) -> Tensor:
        """Return the representatives of units."""
        if self._roots is None:
            self._roots = torch.tensor([self._root(unit) for unit in range(len(self._parents))])
        return torch.where(labels < 0, labels, self._roots[labels.clamp_min(0)])

    def merge(self, a: Tensor, b: Tensor) -> None:
        """Make one unit of every pair of entries; neutral ones stay out of it."""
        a, b = self.find(a), self.find(b)
        different = (a != b) & (a >= 0) & (b >= 0)
        if bool(different.any()):
            pairs = torch.stack([a[different], b[different]], 1).unique(dim=0).tolist()
            for one, other in pairs:
                self._unite(self._root(one), self._root(other))
            self._roots = None

    def merge_along(self, labels: Tensor, dims: Iterable[int]) -> Tensor:
        """Make one unit of all entries along some dimensions; return their labels without these dimensions."""
        labels = self.find(labels)
        for dim in sorted((d % labels.ndim for d in dims), reverse=True):
            # an entry that is not neutral speaks for the rest
            chosen = labels.amax(dim, keepdim=True)
            self.merge(labels, chosen.expand_as(labels))
            labels = self.find(chosen.squeeze(dim))
        return labels

    def pin(self, labels: Tensor, reason: str) -> None:
        """Say why units may not be removed."""
        for unit in self.find(labels).unique().tolist():
            if unit >= 0:
                self._pinned.setdefault(unit, reason)

    def is_free(self, labels: Tensor) -> Tensor:
        """Return which entries belong to units that may be removed."""
        roots = self.find(labels)
        pinned = torch.tensor(sorted({self._root(unit) for unit in self._pinned}))
        return (roots >= 0) & ~torch.isin(roots, pinned)

    def reasons(self) -> dict[int, str]:
        """Return why units are pinned."""
        return {self._root(unit): reason for unit, reason in reversed(self._pinned.items())}

    def _root(self, unit: int) -> int:
        while self._parents[unit] != unit:
            self._parents[unit] = self._parents[self._parents[unit]]
            unit = self._parents[unit]
        return unit

    def _unite(self, one: int, other: int) -> None:
        low, high = sorted((one, other))
        if low == high:
            return
        self._parents[high] = low
        if high in self._pinned:
            self._pinned.setdefault(low, self._pinned[high])


def varies(labels: Tensor, dim: int) -> bool:
    """Return whether labels differ along a dimension."""
    return labels.shape[dim] > 1 and bool((labels != labels.narrow(dim, 0, 1)).any())
