"""Optimizers whose dual step is one of torch's functional updates, a few cached parameters at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from torch_bregman.optim.mirror import Batch, MirrorOptimizer

_PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})
_CACHED = 1 << 17
"""Entries moved and mapped in one go on a CPU: small enough that the mapping still finds the dual in the cache."""


class DualStepOptimizer(MirrorOptimizer):
    """Takes the step of the duals by a functional update, then maps them back."""

    @abstractmethod
    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        """Move the duals of a batch by one step; the flags choose among torch's implementations of it."""

    def _prepare(self, batches: list[Batch]) -> None:
        """Do what has to be decided for all parameters together, before any of them moves."""

    def _step(self) -> None:
        batches = self._batches()
        self._prepare(batches)
        for batch in batches:
            foreach, fused, parts = _plan(batch)
            for part in parts:
                self._move(part, foreach, fused)
                self._map(part)


def decay_into_dual(batch: Batch) -> None:
    """Take v ← v − τ·wd·θ, weight decay where mirror descent needs it: on θ itself the next step would undo it."""
    decay = batch.group["weight_decay"]
    if decay:
        for param, dual in zip(batch.params, batch.duals, strict=True):
            dual.add_(param.detach(), alpha=-float(batch.group["lr"]) * decay)


def _plan(batch: Batch) -> tuple[bool | None, bool | None, Iterable[Batch]]:
    """Choose foreach and fused, and how much to move and map at a time.

    On a CPU torch's fused kernel takes runs of about `_CACHED` entries. Elsewhere the batch stays whole and torch
    chooses. DTensors, for which neither foreach nor fused can be relied on, take the loop.
    """
    foreach, fused = batch.group["foreach"], batch.group["fused"]
    if torch.compiler.is_compiling():
        return foreach, fused, [batch]
    if not _PLAIN.issuperset(map(type, batch.duals)):
        return False, False, [batch]
    if not all([dual.is_cpu for dual in batch.duals]):  # noqa: C419 - twice as fast as a generator
        return foreach, fused, [batch]
    if foreach is None and fused is None:
        foreach, fused = False, True
    return foreach, fused, _parts(batch)


def _parts(batch: Batch) -> Iterator[Batch]:
    start, size = 0, 0
    for end, dual in enumerate(batch.duals, start=1):
        size += dual.numel()
        if size >= _CACHED or end == len(batch.duals):
            yield batch.cut(slice(start, end))
            start, size = end, 0
