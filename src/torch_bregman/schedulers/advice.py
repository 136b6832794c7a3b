"""Which λ makes sense, read off one gradient before training starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.optim import AdaBreg, Bregman, LinBreg, MirrorOptimizer, RegularizedOptimizer
from torch_bregman.regularizers import NoRegularizer
from torch_bregman.schedulers.watched import Group

_WAKING = 0.02
"""Share of the run after which the first weights should wake under the λ suggested."""
_BY_SIGN = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adadelta", "Adagrad", "Rprop")


@dataclass(frozen=True)
class LamAdvice:
    """What one gradient says about λ of a group.

    Args:
        group: its index.
        regularizer: its name.
        lam: λ in force.
        first: steps until the first of what sleeps wakes, were the gradient to stay; inf for never.
        silent: λ from which on nothing wakes within the run.
        suggested: λ under which the first wake after a fiftieth of the run.
        steps: of the run.
    """

    group: int
    regularizer: str
    lam: float
    first: float
    silent: float
    suggested: float
    steps: int

    def __str__(self) -> str:
        if self.silent == 0:
            return f"group {self.group} ({self.regularizer}): no gradient reaches what sleeps, so nothing wakes, ever"
        waking = f"wake after about {self.first:.0f} steps" if self.first < math.inf else "never wake"
        return (
            f"group {self.group} ({self.regularizer}, λ = {self.lam:.3g}): the first weights {waking}; at λ >= "
            f"{self.silent:.3g} none within {self.steps}; λ = {self.suggested:.3g} is a start"
        )


def suggest_lam(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    optimizer: RegularizedOptimizer,
    *,
    steps: int = 1000,
) -> list[LamAdvice]:
    """Return for each group with a regulariser what one gradient says about its λ; `print` them as sentences.

    A weight that sleeps at v = 0 wakes after ⌊λ/(τ·J₁°(−g))⌋ + 1 plain steps, with momentum τ(1 − dampening)/(1 − μ)
    for τ. AdaBreg's steps are blind to the size of gradients: sign(g) for g. Nothing is changed, gradients included.

    Args:
        model: at its start.
        loss: of outputs and targets.
        batch: inputs and targets.
        optimizer: LinBreg, AdaBreg, or `Bregman` of an optimizer like SGD or Adam.
        steps: of the run to come, default 1000.

    Raises:
        ValueError: for a proximal optimizer, fewer than 1 step, a gradient with nan, or nothing regularised.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022; Burger, Osher 2013, for the time of first activation.

    Example:
        >>> import torch_bregman as tb
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> optimizer = tb.LinBreg(model.parameters(), lr=0.1, regularizer=tb.L1(1.0))
        >>> batch = (torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0]]))
        >>> print(suggest_lam(model, nn.functional.mse_loss, batch, optimizer, steps=100)[0])
        group 0 (l1, λ = 1): the first weights wake after about 6 steps; at λ >= 20 none within 100; λ = 0.4 is a start
    """
    if not isinstance(optimizer, MirrorOptimizer):
        raise ValueError(
            f"suggest_lam needs a Bregman optimizer, got {type(optimizer).__name__}: use LinBreg or AdaBreg"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}: those of the run to come")
    groups = {i: g for i, g in enumerate(optimizer.param_groups) if not isinstance(g["regularizer"], NoRegularizer)}
    params = [param for group in groups.values() for param in group["params"]]
    if not params:
        raise ValueError("suggest_lam needs a group with a regularizer, e.g. L1(0.1)")
    found = torch.autograd.grad(loss(model(batch[0]), batch[1]), params, allow_unused=True)
    grads = {id(param): grad for param, grad in zip(params, found, strict=True) if grad is not None}
    return [_advice(i, group, optimizer, grads, steps) for i, group in groups.items()]


@torch.no_grad()
def _advice(index: int, group: Group, optimizer: MirrorOptimizer, grads: dict[int, Tensor], steps: int) -> LamAdvice:
    regularizer, lam = group["regularizer"], float(group["lam"])
    paces = [_pace(group, optimizer, param, grads[id(param)]) for param in group["params"] if id(param) in grads]
    pace = max(paces, default=0.0)
    if math.isnan(pace):
        raise ValueError("suggest_lam got a gradient with nan: look at the loss, or start with smaller weights")
    first = math.floor(lam / pace) + 1.0 if pace else math.inf
    return LamAdvice(index, regularizer.name, lam, first, pace * steps, pace * steps * _WAKING, steps)


def _pace(group: Group, optimizer: MirrorOptimizer, param: Tensor, grad: Tensor) -> float:
    """Return by how much λ the level of what wakes first rises a step."""
    sign = 1.0 if group.get("maximize") else -1.0
    asleep = torch.where(param == 0, sign * grad, 0.0) if _singly(group, grad) else sign * grad
    direction = asleep.sign() if _blind(optimizer) else asleep
    lr, momentum = float(group["lr"]), float(group.get("momentum", 0.0) or 0.0)
    speed = lr if _blind(optimizer) else lr * (1 - float(group.get("dampening", 0.0))) / (1 - momentum)
    return speed * float(group["regularizer"].dual_norm(direction))


def _singly(group: Group, grad: Tensor) -> bool:
    """Return whether single entries sleep, so that those awake do not count."""
    return group["regularizer"].name in ("l1", "nonnegative_l1", "elastic_net") and grad.numel() > 0


def _blind(optimizer: Any) -> bool:
    """Return whether steps are blind to the size of gradients."""
    if isinstance(optimizer, Bregman):
        return type(optimizer.base).__name__ in _BY_SIGN
    return isinstance(optimizer, AdaBreg) and not isinstance(optimizer, LinBreg)
