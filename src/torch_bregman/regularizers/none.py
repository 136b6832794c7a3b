"""No penalty at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, largest, write


@dataclass(frozen=True)
class NoRegularizer(Regularizer):
    """J = 0: Bregman methods become their plain counterparts (SGD, Adam).

    The proximal map is the identity. The dual norm is 0 at 0, infinite elsewhere: nothing holds a weight back.

    Example:
        >>> import torch
        >>> NoRegularizer().prox(torch.tensor([1.0, -2.0]))
        tensor([ 1., -2.])
    """

    lam: float = 0.0
    name: ClassVar[str] = "none"

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return 0."""
        return x.reshape(-1)[:0].sum()  # a zero that autograd can differentiate

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return x."""
        return write(x, out) if out is not None else x.clone()

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return 0, the only subgradient."""
        return torch.zeros_like(x)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return 0 at x = 0, else ∞."""
        peak = largest(x.detach().abs())
        return torch.where(peak > 0, torch.inf, peak)
