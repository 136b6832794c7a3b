"""The elastic net: ℓ1 norm and squared ℓ2 norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, check_ratio, largest
from torch_bregman.regularizers.l1 import soft_threshold


@dataclass(frozen=True)
class ElasticNet(Regularizer):
    """J(x) = λ (ρ Σ |x_i| + (1 − ρ)/2 Σ x_i²): sparse, with large weights held back.

    prox_{sJ}(x) = S(x, sλρ) / (1 + sλ(1 − ρ)), S the soft threshold. Not homogeneous. What counts for waking is the ℓ1
    part alone: the dual norm is max |x_i| / ρ (0 at 0, else infinite, for ρ = 0, where nothing ever sleeps).

    Args:
        lam: λ ≥ 0, default 1.
        l1_ratio: ρ in [0, 1], default 0.5.

    References:
        Zou, Hastie 2005.

    Example:
        >>> import torch
        >>> ElasticNet(lam=1.0, l1_ratio=0.5).prox(torch.tensor([2.0, 0.3]))
        tensor([1., 0.])
    """

    l1_ratio: float = 0.5
    name: ClassVar[str] = "elastic_net"
    homogeneous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio("l1_ratio", self.l1_ratio)

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ (ρ Σ |x_i| + (1 − ρ)/2 Σ x_i²)."""
        penalty = self.l1_ratio * x.abs().sum() + (1 - self.l1_ratio) / 2 * x.square().sum()
        return self.strength(lam) * penalty

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return the soft threshold of x at step·λ·ρ, divided by 1 + step·λ·(1 − ρ)."""
        strength = step * self.strength(lam)
        return soft_threshold(x, strength * self.l1_ratio, out).div_(1 + strength * (1 - self.l1_ratio))

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ (ρ·sign(x) + (1 − ρ)·x)."""
        p = torch.sign(x).mul_(self.l1_ratio).add_(x, alpha=1 - self.l1_ratio)
        return p.mul_(self.strength(lam))

    def levels(self, v: Tensor) -> Tensor:
        """Return |v_i| / ρ.

        Raises:
            ValueError: for ρ = 0.
        """
        return v.abs().div_(self.l1_ratio) if self.l1_ratio else super().levels(v)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return max |x_i| / ρ."""
        peak = largest(x.abs())
        return torch.where(peak > 0, peak / self.l1_ratio if self.l1_ratio else torch.inf, peak)
