"""Optimizers whose dual step is one of torch's functional updates, a few cached parameters at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_bregman.optim.base import Group, Params
from torch_bregman.optim.compiled import Program, check_compilable
from torch_bregman.optim.gradients import stands_still
from torch_bregman.optim.mirror import Batch, MirrorOptimizer
from torch_bregman.regularizers import Regularizer

_PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})
_CACHED = 1 << 18
"""Entries moved and mapped in one go on a CPU: small enough that the mapping still finds the dual in the cache."""


class DualStepOptimizer(MirrorOptimizer):
    """Takes the step of the duals by a functional update, then maps them back; or both at once, compiled."""

    def __init__(self, params: Params, defaults: dict[str, Any], regularizer: Regularizer | None) -> None:
        self._programs: dict[Any, Program] = {}
        super().__init__(params, defaults, regularizer)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._programs = getattr(self, "_programs", {})  # kept when a checkpoint is loaded, left behind by copies

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_compilable(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; whether steps are compiled stays as it is."""
        compiled = [group["compiled"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, own in zip(self.param_groups, compiled, strict=True):
            group["compiled"] = own

    @abstractmethod
    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        """Move the duals of a batch by one step; the flags choose among torch's implementations of it."""

    @abstractmethod
    def _run(self, batch: Batch) -> None:
        """Move and map a batch by a compiled program."""

    def _prepare(self, batches: list[Batch]) -> None:
        """Do what has to be decided for all parameters together, before any of them moves."""

    def _step(self) -> None:
        compiling = torch.compiler.is_compiling()
        whole = compiling or any([group["compiled"] for group in self.param_groups])  # noqa: C419 - see _plan
        batches = self._batches(math.inf if whole else _CACHED)
        self._prepare(batches)
        for batch in batches:
            if whole and not compiling and _runs_compiled(batch):
                self._run(batch)
                self._note(batch)
            else:
                self._move(batch, *_plan(batch))
                self._map(batch)

    def _program(self, group: Group, formula: Callable[..., Callable[..., None]], **options: bool) -> Program:
        """Return the program of a group, made anew where its options, but not where its numbers have changed."""
        number = next(n for n, own in enumerate(self.param_groups) if own is group)
        key = (number, group["regularizer"], *options.values())
        if key not in self._programs:
            self._programs[key] = Program(formula(group["regularizer"], **options))
        return self._programs[key]


def _runs_compiled(batch: Batch) -> bool:
    group = batch.group
    return group["compiled"] and not stands_still(group["lr"]) and _PLAIN.issuperset(map(type, batch.duals))


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
