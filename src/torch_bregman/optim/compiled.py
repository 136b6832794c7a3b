"""The step compiled by torch.compile: dual update and elementwise mirror map in one pass over the memory.

For float32 weights on a CPU the native step (`native/`) does better; this one is for all else.

A formula is written for all parameters of a group at once, so that one call does the whole step. Its numbers (lr, λ, …)
are entries of a tensor and not constants: schedules may change them without a new compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from torch_bregman.optim.base import Group
from torch_bregman.optim.mirror import Batch
from torch_bregman.optim.native.kernel import fits
from torch_bregman.regularizers import L1, ElasticNet, GroupL2, NonNegativeL1, NoRegularizer, Regularizer

Mirror = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""Takes the regulariser, v, δ and λ to θ; δ and λ as tensors, where `Regularizer.mirror` takes plain numbers."""


def _soft(v: Tensor, threshold: Tensor) -> Tensor:
    return v - v.clamp(-threshold, threshold)


def _elastic_net(regularizer: ElasticNet, v: Tensor, delta: Tensor, lam: Tensor) -> Tensor:
    strength, ratio = delta * lam, regularizer.l1_ratio
    return _soft(v * delta, strength * ratio) / (1 + strength * (1 - ratio))


MIRRORS: dict[type[Regularizer], Mirror] = {
    NoRegularizer: lambda _, v, delta, lam: v * delta,
    L1: lambda _, v, delta, lam: _soft(v, lam) * delta,
    NonNegativeL1: lambda _, v, delta, lam: (v - lam).clamp_min(0) * delta,
    ElasticNet: _elastic_net,
}
"""The mirror maps that act on every entry alone."""


def check_compilable(group: Group) -> None:
    """Raise ValueError where the step of a group cannot be compiled in one pass."""
    regularizer = group["regularizer"]
    if not group["compiled"] or type(regularizer) in MIRRORS:
        return
    if type(regularizer) is not GroupL2:
        raise ValueError(
            f"compiled=True takes elementwise regularizers ({', '.join(kind.__name__ for kind in MIRRORS)}) and "
            f"GroupL2, got {regularizer!r}: set compiled=False for this group"
        )
    for param in group["params"]:
        if not fits(regularizer, param):
            raise ValueError(
                "compiled=True takes GroupL2 on float32 weights on a CPU whose groups are pieces of memory, such as "
                f"rows or filters, got {regularizer!r} for {param.dtype} of shape {tuple(param.shape)} on "
                f"{param.device}: set compiled=False for this group"
            )


class Program:
    """A formula, compiled for one group: once for every set of parameters that moves together, eight sets at most.

    Args:
        formula: called with a vector of numbers and lists of tensors, which it changes in place.
    """

    def __init__(self, formula: Callable[..., None]) -> None:
        # the sizes that inductor would check once more are guarded already
        self._run = torch.compile(_own(formula), fullgraph=True, dynamic=False, options={"size_asserts": False})
        self._values: Sequence[float] = ()
        self._numbers = torch.empty(0)

    def __call__(self, values: Sequence[float], batch: Batch, *states: Any) -> None:
        """Take one step of a batch; what is its own dual is passed once."""
        device = batch.duals[0].device
        if values != self._values or device != self._numbers.device:
            self._values, self._numbers = values, torch.tensor(values, dtype=torch.float64, device=device)
        params = [None if dual is param else param for param, dual in zip(batch.params, batch.duals, strict=True)]
        lists = batch.duals, batch.grads, params, *states
        if not all([dual.ndim for dual in batch.duals]):  # noqa: C419 - twice as fast as a generator
            lists = map(_with_dimensions, lists)
        self._run(self._numbers, *lists)


def _with_dimensions(tensors: Any) -> Any:
    # torch 2.13 takes a float64 tensor without dimensions for a Python number, and drops what is written to it
    if isinstance(tensors, list):
        return [t if t is None or t.ndim else t.unsqueeze(0) for t in tensors]
    return tensors


def _own(function: Any) -> Any:
    # dynamo keeps what it has compiled with the code object, which all optimizers would share
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def linbreg_formula(regularizer: Regularizer, *, nesterov: bool, maximize: bool, decay: bool) -> Callable[..., None]:
    """Return the step of `LinBreg`; numbers: τ, λ, δ, wd, μ, dampening. No buffers: no momentum."""
    mirror = MIRRORS[type(regularizer)]

    def step(
        numbers: Tensor, duals: list[Tensor], grads: list[Tensor], params: list[Tensor | None], buffers: list[Tensor]
    ) -> None:
        lr, lam, delta, weight_decay, momentum, dampening = numbers.unbind()
        for index, (v, grad, param) in enumerate(zip(duals, grads, params, strict=True)):
            d = -grad if maximize else grad
            if buffers:
                b = buffers[index]
                b.copy_(momentum * b + (1 - dampening) * d)
                d = d + momentum * b if nesterov else b
            if decay:
                v.sub_(lr * weight_decay * (v if param is None else param))
            v.sub_(lr * d)
            if param is not None:
                param.copy_(mirror(regularizer, v, delta, lam))

    return step


def adabreg_formula(regularizer: Regularizer, *, amsgrad: bool, maximize: bool, decay: bool) -> Callable[..., None]:
    """Return the step of `AdaBreg`; numbers: τ, λ, δ, wd, β₁, β₂, ε. Corrections: rows 1 − β₁ᵗ and 1 − β₂ᵗ."""
    mirror = MIRRORS[type(regularizer)]

    def step(
        numbers: Tensor,
        duals: list[Tensor],
        grads: list[Tensor],
        params: list[Tensor | None],
        means: list[Tensor],
        squares: list[Tensor],
        peaks: list[Tensor],
        corrections: Tensor,
    ) -> None:
        lr, lam, delta, weight_decay, beta1, beta2, eps = numbers.unbind()
        for index, (v, grad, param, m, n) in enumerate(zip(duals, grads, params, means, squares, strict=True)):
            d = -grad if maximize else grad
            m.copy_(beta1 * m + (1 - beta1) * d)
            n.copy_(beta2 * n + (1 - beta2) * d * d)
            if amsgrad:
                n = peaks[index].copy_(torch.maximum(peaks[index], n))
            if decay:
                v.sub_(lr * weight_decay * (v if param is None else param))
            v.sub_(lr / corrections[0, index] * m / (n.sqrt() / corrections[1, index].sqrt() + eps))
            if param is not None:
                param.copy_(mirror(regularizer, v, delta, lam))

    return step
