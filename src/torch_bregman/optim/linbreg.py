"""Linearised Bregman iterations: plain, with momentum, with Nesterov momentum, accelerated with restart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from torch_bregman.optim.acceleration import next_momentum
from torch_bregman.optim.base import Group, Params, check_momentum
from torch_bregman.optim.compiled import linbreg_formula
from torch_bregman.optim.dual_step import DualStepOptimizer, decay_into_dual
from torch_bregman.optim.gradients import spared
from torch_bregman.optim.mirror import Batch
from torch_bregman.optim.native import kernel as native
from torch_bregman.regularizers import Regularizer


class LinBreg(DualStepOptimizer):
    """Linearised Bregman iterations: gradient descent on the dual variable, θ its image.

    v ← v − τ·d,  θ ← prox_{δJ}(δv), with d the direction of `torch.optim.SGD`, acting on v:
    b ← μb + (1 − dampening)·g from b = 0, and d = g + μb with Nesterov, else b (g without momentum).

    - plain: `momentum=0`;
    - the paper's momentum: `dampening=momentum`. The factor 1 − μ removes nearly all acceleration: compare methods at
      equal τ(1 − dampening)/(1 − μ);
    - Nesterov: `momentum=0.9, nesterov=True`;
    - `accelerated=True`: μ_k = (t_k − 1)/t_{k+1} from Nesterov's sequence, back to t = 1 when ⟨g, v⁺ − v⟩ > 0 (Huang,
      Ma, Goldfarb 2013; O'Donoghue, Candès 2015). For full batches or little noise: with small minibatches that sign is
      itself noise.

    With J = 0, δ = 1 and no dampening this is `torch.optim.SGD`.

    Args:
        params: parameters or groups, e.g. from `param_groups`.
        lr: τ ≥ 0, a number or a tensor; default 0.1.
        regularizer: J of the groups that bring none of their own; default none.
        momentum: μ in [0, 1), default 0.
        dampening: in [0, 1], default 0.
        nesterov: look ahead; needs momentum > 0 and no dampening.
        accelerated: vary μ by itself, with restart; takes momentum = 0, no dampening and no Nesterov.
        delta: δ > 0, default 1. Scales magnitudes, not the support.
        weight_decay: wd ≥ 0, default 0: v ← v − τ·wd·θ before the step.
        maximize: ascend instead.
        foreach, fused: which of torch's implementations takes the dual step; default the fused kernel on a CPU, torch's
            own choice elsewhere.
        compiled: move and map in one pass, default False; for elementwise regularisers, and `GroupL2` on float32
            weights on a CPU whose groups are pieces of memory (rows, filters, kernels). float32 weights on a CPU take a
            C program, on torch's number of threads: the system's compiler (CC, cc, gcc or clang) builds it at the first
            step, in about a second, and it is kept in the user's cache. All others take `torch.compile`: the first step
            then waits for seconds (6 parameters) to two minutes (144), and so does one where another set of parameters
            has gradients, but not a change of lr or λ. It pays for millions of
            weights; small models gain nothing.

    Raises:
        ValueError: for a number out of range or options that do not go together; at the first step for a C compiler
            that is missing or fails.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022; Yin, Osher, Goldfarb, Darbon 2008.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(3))
        >>> optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.L1(0.5))
        >>> for _ in range(2):
        ...     loss = 0.5 * (weight - torch.tensor([1.0, 0.3, 0.1])).square().sum()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> weight
        Parameter containing:
        tensor([1.0000, 0.1000, 0.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        *,
        regularizer: Regularizer | None = None,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        accelerated: bool = False,
        delta: float = 1.0,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        compiled: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "accelerated": accelerated,
            "delta": delta,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "compiled": compiled,
        }
        super().__init__(params, defaults, regularizer)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_momentum(group)
        if group["accelerated"]:
            if group["momentum"] or group["dampening"]:
                raise ValueError(
                    f"accelerated=True varies the momentum itself, got momentum {group['momentum']!r} and dampening "
                    f"{group['dampening']!r}: leave both at 0, or set accelerated=False"
                )
            if group["compiled"]:
                raise ValueError("accelerated=True does not go with compiled=True: leave compiled unset")
            group.setdefault("t", 1.0)
            group.setdefault("look_ahead", 0.0)

    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        decay_into_dual(batch)
        group = batch.group
        if group["accelerated"]:
            _look_ahead(batch)
            return
        if not group["momentum"] and foreach is False:
            _descend(batch, together=fused is True)
            return
        sgd(
            batch.duals,
            spared(batch.grads, nesterov=group["nesterov"], foreach=foreach, fused=fused),
            _buffers(batch) if group["momentum"] else [None] * len(batch.duals),
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            foreach=foreach,
            fused=fused,
        )

    def _states(self, batch: Batch) -> list[list[Tensor]]:
        return [_buffers(batch)] if batch.group["momentum"] else []

    def _run_native(self, batch: Batch, states: list[list[Tensor]]) -> None:
        group, count = batch.group, len(batch.params)
        sign, rate = -1.0 if group["maximize"] else 1.0, float(group["lr"])
        native.step(
            batch,
            states,
            [rate] * count,
            [1.0] * count,
            update=native.SGD,
            sign=sign,
            momentum=group["momentum"],
            gain=sign * (1 - group["dampening"]),
            nesterov=group["nesterov"],
        )

    def _run(self, batch: Batch, states: list[list[Tensor]]) -> None:
        group = batch.group
        numbers = [float(group[key]) for key in ("lr", "lam", "delta", "weight_decay", "momentum", "dampening")]
        options = {"nesterov": group["nesterov"], "maximize": group["maximize"], "decay": group["weight_decay"] != 0}
        self._program(group, linbreg_formula, **options)(numbers, batch, states[0] if states else [])

    def _prepare(self, batches: list[Batch]) -> None:
        """Advance the buffers of accelerated groups, and restart all of them together where the momentum climbs."""
        accelerated = [batch for batch in batches if batch.group["accelerated"]]
        climbing = sum(map(_accumulate, accelerated))
        for group in {id(batch.group): batch.group for batch in accelerated}.values():
            group["t"], group["look_ahead"] = (1.0, 0.0) if climbing > 0 else next_momentum(group["t"])


def _descend(batch: Batch, *, together: bool) -> None:
    """Take v ← v − τg: the loop of torch's own SGD without momentum, which on small layers its wrapper outweighs."""
    step = batch.group["lr"] if batch.group["maximize"] else -batch.group["lr"]
    if together:  # the same loop, in C++
        torch._foreach_add_(batch.duals, batch.grads, alpha=step)  # pyright: ignore[reportPrivateImportUsage] - as torch
        return
    for dual, grad in zip(batch.duals, batch.grads, strict=True):
        dual.add_(grad, alpha=step)


def _buffers(batch: Batch) -> list[Any]:
    # started at zero, so that dampening acts from the first step on
    for dual, state in zip(batch.duals, batch.states, strict=True):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(dual)
    return [state["momentum_buffer"] for state in batch.states]


def _accumulate(batch: Batch) -> float:
    """Take b ← μ_{k−1} b + g and return ⟨g, v_{k+1} − v_k⟩/τ = −⟨g, b⟩."""
    sign = -1 if batch.group["maximize"] else 1
    inner = 0.0
    for buffer, grad in zip(_buffers(batch), batch.grads, strict=True):
        buffer.mul_(batch.group["look_ahead"]).add_(grad, alpha=sign)
        inner -= sign * float(torch.vdot(buffer.reshape(-1), grad.reshape(-1)))
    return inner


def _look_ahead(batch: Batch) -> None:
    """Take v ← v − τ (g + μ_k b)."""
    group, sign = batch.group, -1 if batch.group["maximize"] else 1
    lr = float(group["lr"])
    for dual, grad, state in zip(batch.duals, batch.grads, batch.states, strict=True):
        dual.add_(grad, alpha=-sign * lr).add_(state["momentum_buffer"], alpha=-lr * group["look_ahead"])
