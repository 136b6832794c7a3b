"""Optimizers whose dual step is one of torch's functional updates, a few cached parameters at a time."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from torch_bregman.optim.mirror import Batch, MirrorOptimizer

_PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})
_CACHED = 1 << 18
"""Entries moved and mapped in one go on a CPU: small enough that the mapping still finds the dual in the cache."""


class DualStepOptimizer(MirrorOptimizer):
    """Takes the step of the duals by a functional update, then maps them back."""

    @abstractmethod
    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        """Move the duals of a batch by one step; the flags choose among torch's implementations of it."""

    def _prepare(self, batches: list[Batch]) -> None:
        """Do what has to be decided for all parameters together, before any of them moves."""

    def _step(self) -> None:
        batches = self._batches(math.inf if torch.compiler.is_compiling() else _CACHED)
        self._prepare(batches)
        for batch in batches:
            self._move(batch, *_plan(batch))
            self._map(batch)


def decay_into_dual(batch: Batch) -> None:
    """Take v ← v − τ·wd·θ, weight decay where mirror descent needs it: on θ itself the next step would undo it."""
    decay = batch.group["weight_decay"]
    if decay:
        for param, dual in zip(batch.params, batch.duals, strict=True):
            dual.add_(param.detach(), alpha=-float(batch.group["lr"]) * decay)


def _plan(batch: Batch) -> tuple[bool | None, bool | None]:
    """Choose foreach and fused: torch's fused kernel on a CPU, elsewhere what torch chooses.

    DTensors, for which neither foreach nor fused can be relied on, take the loop.
    """
    foreach, fused = batch.group["foreach"], batch.group["fused"]
    if torch.compiler.is_compiling():
        return foreach, fused
    if not _PLAIN.issuperset(map(type, batch.duals)):
        return False, False
    if foreach is None and fused is None and all([dual.is_cpu for dual in batch.duals]):  # noqa: C419 - twice as fast
        return False, True
    return foreach, fused
