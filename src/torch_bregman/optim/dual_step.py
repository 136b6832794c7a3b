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
from torch_bregman.optim.native.kernel import split
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

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, as in torch; checks its parameters, regulariser and numbers.

        Raises:
            ValueError: for complex parameters, a λ that is negative or not finite, or a wrong hyperparameter.
        """
        super().add_param_group(param_group)
        try:
            check_compilable(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

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
    def _states(self, batch: Batch) -> list[list[Tensor]]:
        """Return what a step changes beside the duals, list by list, started where need be."""

    @abstractmethod
    def _run_native(self, batch: Batch, states: list[list[Tensor]]) -> None:
        """Move and map a batch by the native program."""

    @abstractmethod
    def _run(self, batch: Batch, states: list[list[Tensor]]) -> None:
        """Move and map a batch by a program of torch.compile."""

    def _prepare(self, batches: list[Batch]) -> None:
        """Do what has to be decided for all parameters together, before any of them moves."""

    def _step(self) -> None:
        compiling = torch.compiler.is_compiling()
        whole = compiling or any([group["compiled"] for group in self.param_groups])  # noqa: C419 - see _plan
        batches = self._batches(math.inf if whole else _CACHED)
        self._prepare(batches)
        for batch in batches:
            if whole and not compiling and _runs_compiled(batch):
                self._run_compiled(batch)
                self._note(batch)
            else:
                self._move(batch, *_plan(batch))
                self._map(batch)

    def _run_compiled(self, batch: Batch) -> None:
        states = self._states(batch)
        own, rest = split(batch, states)
        if own:
            self._run_native(*_part(batch, states, own))
        if rest:
            check_compilable(batch.group)  # once more: weights may have been moved, or changed their dtype
            self._run(*_part(batch, states, rest))

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


def _part(batch: Batch, states: list[list[Tensor]], places: list[int]) -> tuple[Batch, list[list[Tensor]]]:
    if len(places) == len(batch.params):
        return batch, states
    params, duals, grads, *chosen = [
        [tensors[place] for place in places] for tensors in (batch.params, batch.duals, batch.grads, *states)
    ]
    return Batch(batch.group, params, duals, grads, [batch.states[place] for place in places]), chosen


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
