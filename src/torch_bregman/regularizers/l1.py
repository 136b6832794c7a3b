"""The ℓ1 norm: single weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from torch_bregman.regularizers.base import Regularizer, largest


def soft_threshold(x: Tensor, threshold: float, out: Tensor | None = None) -> Tensor:
    """Return sign(x)·max(|x| − threshold, 0), in one pass and without a temporary."""
    if out is None:
        return softshrink(x, threshold)
    if out.dtype is not x.dtype:
        return out.copy_(softshrink(x, threshold))
    return softshrink(x, threshold, out=out)  # pyright: ignore[reportCallIssue] - a built-in that takes `out`


@dataclass(frozen=True)
class L1(Regularizer):
    """J(x) = λ Σ |x_i|: whole networks grow weight by weight.

    prox_{sJ}(x) = sign(x)·max(|x| − sλ, 0); the dual norm is max |x_i|.

    Args:
        lam: λ ≥ 0, default 1.

    References:
        Daubechies, Defrise, De Mol 2004; Bungert et al., JMLR 2022.

    Example:
        >>> import torch
        >>> L1(lam=0.5).prox(torch.tensor([2.0, 0.3, -1.0]))
        tensor([ 1.5000,  0.0000, -0.5000])
    """

    name: ClassVar[str] = "l1"

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ Σ |x_i|."""
        return self.strength(lam) * x.abs().sum()

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return sign(x)·max(|x| − step·λ, 0)."""
        return soft_threshold(x, step * self.strength(lam), out)

    def mirror(self, v: Tensor, delta: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return the mirror map δ·sign(v)·max(|v| − λ, 0), without the calls in between that small layers pay for."""
        strength = self.strength(lam)
        if out is not None and out.dtype is v.dtype:
            theta = softshrink(v, strength, out=out)  # pyright: ignore[reportCallIssue] - see soft_threshold
        else:
            theta = soft_threshold(v, strength, out)
        return theta if delta == 1 else theta.mul_(delta)

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ·sign(x)."""
        return torch.sign(x).mul_(self.strength(lam))

    def levels(self, v: Tensor) -> Tensor:
        """Return |v_i|."""
        return v.abs()

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return max |x_i|."""
        return largest(x.abs())
