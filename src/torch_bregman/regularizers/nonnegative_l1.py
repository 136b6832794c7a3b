"""The ℓ1 norm on non-negative weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, largest, write


@dataclass(frozen=True)
class NonNegativeL1(Regularizer):
    """J(x) = λ Σ x_i for x ≥ 0, infinite elsewhere: sparse weights that never turn negative.

    prox_{sJ}(x) = max(x − sλ, 0). The dual norm is one-sided, max(max x_i, 0): a gradient that asks for negative
    weights wakes nothing.

    Args:
        lam: λ ≥ 0, default 1.

    Example:
        >>> import torch
        >>> NonNegativeL1(lam=0.5).prox(torch.tensor([2.0, 0.3, -1.0]))
        tensor([1.5000, 0.0000, 0.0000])
    """

    name: ClassVar[str] = "nonnegative_l1"

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ Σ x_i, or ∞ where an entry is negative."""
        total = self.strength(lam) * x.sum()
        return torch.where((x < 0).any(), torch.inf, total)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return max(x − step·λ, 0)."""
        threshold = step * self.strength(lam)
        if out is None or out.dtype != x.dtype:
            return write((x - threshold).clamp_min_(0), out)
        return torch.sub(x, threshold, out=out).clamp_min_(0)

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ where x > 0 and 0 where x = 0."""
        return torch.sign(x).mul_(self.strength(lam))

    def levels(self, v: Tensor) -> Tensor:
        """Return max(v_i, 0)."""
        return v.clamp_min(0)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return max(max x_i, 0)."""
        return largest(x).clamp_min(0)

    def check_domain(self, x: Tensor) -> None:
        """Raise ValueError where an entry is negative."""
        if x.numel() and bool(x.min() < 0):
            raise ValueError(
                f"NonNegativeL1 cannot start at negative weights, got a smallest entry of {x.min():.3g}: "
                "start from model weights made non-negative, e.g. param.abs_() or sparsify_ followed by abs_()"
            )
