"""The dual step of LinBreg on tensors that are part of a weight, and what it does to the part that gets no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def descend(dual: Tensor, theta: Tensor, grad: Tensor, buffer: Tensor | None, group: dict[str, Any]) -> Tensor | None:
    """Take v ← v − τ(d + wd·θ) in place, d the direction of SGD; return the momentum, None where there is none.

    Args:
        dual: v.
        theta: θ.
        grad: of θ.
        buffer: the momentum so far.
        group: of the optimizer.
    """
    lr, mu = float(group["lr"]), group["momentum"]
    if group["weight_decay"]:
        dual.add_(theta, alpha=-lr * group["weight_decay"])
    lr = -lr if group["maximize"] else lr
    if not mu:
        dual.add_(grad, alpha=-lr)
        return buffer
    buffer = torch.zeros_like(dual) if buffer is None else buffer
    buffer.mul_(mu).add_(grad, alpha=1 - group["dampening"])
    if group["nesterov"]:
        dual.add_(grad, alpha=-lr).add_(buffer, alpha=-lr * mu)
    else:
        dual.add_(buffer, alpha=-lr)
    return buffer


class Drift:
    """Where v and momentum b of entries without a gradient have come to: v → keep·v − far·b, b → fade·b."""

    def __init__(self) -> None:
        self.keep, self.far, self.fade = 1.0, 0.0, 1.0

    def step(self, group: dict[str, Any]) -> None:
        """Follow a step of the group."""
        lr, mu = float(group["lr"]), group["momentum"]
        kept = 1 - lr * group["weight_decay"]
        lr = -lr if group["maximize"] else lr
        self.fade *= mu if mu else 1.0
        ahead = 0.0 if not mu else mu if group["nesterov"] else 1.0
        self.keep, self.far = self.keep * kept, self.far * kept + lr * ahead * self.fade

    def apply(self, dual: Tensor, buffer: Tensor | None) -> None:
        """Move a dual and its momentum there, in place."""
        if self.keep != 1:
            dual.mul_(self.keep)
        if buffer is not None and self.far:
            dual.add_(buffer, alpha=-self.far)
            buffer.mul_(self.fade)
