"""The sparse group norm: groups that live or die as one, sparse within."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, check_ratio, largest
from torch_bregman.regularizers.group_l2 import GroupL2
from torch_bregman.regularizers.l1 import L1
from torch_bregman.views import View, get_view


@dataclass(frozen=True)
class SparseGroup(Regularizer):
    """J(x) = λ (ρ Σ |x_i| + (1 − ρ) Σ_g √n_g ‖x_g‖₂).

    Its proximal map is that of the group part after that of the ℓ1 part. Its dual norm is the largest ε-norm over the
    groups: for each, the t with ‖S(x_g, ρt)‖₂ = t(1 − ρ)√n_g, S the soft threshold.

    Args:
        lam: λ ≥ 0, default 1.
        l1_ratio: ρ in [0, 1], default 0.5; 1 is the ℓ1 norm, 0 the group norm.
        view: what the groups are, a name or a `View`, default "rows".

    Raises:
        ValueError: for an unknown view, or, when used, for a tensor that has no such groups.

    References:
        Simon, Friedman, Hastie, Tibshirani 2013; Ndiaye et al. 2016 (ε-norm); Scardapane et al. 2017.

    Example:
        >>> import torch
        >>> SparseGroup(lam=1.0, l1_ratio=0.5).prox(torch.tensor([[3.0, 0.2], [0.6, 0.5]]))
        tensor([[1.7929, 0.0000],
                [0.0000, 0.0000]])
    """

    l1_ratio: float = 0.5
    view: str | View = "rows"
    name: ClassVar[str] = "sparse_group"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio("l1_ratio", self.l1_ratio)
        object.__setattr__(self, "view", get_view(self.view))

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ (ρ Σ |x_i| + (1 − ρ) Σ_g √n_g ‖x_g‖₂)."""
        sparse, grouped = self._parts(lam)
        return sparse.value(x) + grouped.value(x)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return the group threshold of the soft threshold of x."""
        sparse, grouped = self._parts(lam)
        thresholded = sparse.prox(x, step, out=out if out is not None and out.dtype == x.dtype else None)
        return grouped.prox(thresholded, step, out=thresholded if out is None else out)

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ (ρ·sign(x) + (1 − ρ)·√n_g·x_g / ‖x_g‖), the second part 0 for a zero group."""
        sparse, grouped = self._parts(lam)
        return sparse.subgradient(x).add_(grouped.subgradient(x))

    def levels(self, v: Tensor) -> Tensor:
        """Return for every entry the smaller of |v_i| / ρ and the ε-norm of its group."""
        view = get_view(self.view)
        matrix = view.matrix(v).abs().double()
        if not matrix.numel():
            return v.abs()
        groups = _epsilon_norms(matrix, self.l1_ratio, (1 - self.l1_ratio) * math.sqrt(matrix.shape[1])).unsqueeze(1)
        levels = torch.minimum(groups, matrix / self.l1_ratio) if self.l1_ratio else groups.expand_as(matrix)
        return view.restore(levels, v).to(v.dtype)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return the largest ε-norm of the groups."""
        if x.numel() == 0:
            return largest(x)
        groups = get_view(self.view).matrix(x).abs()
        wide = groups.double() if groups.dtype != torch.float64 else groups
        return _epsilon_norms(wide, self.l1_ratio, (1 - self.l1_ratio) * math.sqrt(wide.shape[1])).amax().to(x.dtype)

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen the mask to whole groups."""
        return self._parts(None)[1].coupled(mask)

    def _parts(self, lam: float | None) -> tuple[L1, GroupL2]:
        strength = self.strength(lam)
        return L1(strength * self.l1_ratio), GroupL2(strength * (1 - self.l1_ratio), view=self.view)


def _epsilon_norms(groups: Tensor, ratio: float, weight: float) -> Tensor:
    """Return for each row a ≥ 0 the t ≥ 0 with ‖max(a − ratio·t, 0)‖₂ = weight·t.

    Where the k largest entries exceed ratio·t, t solves (w² − kρ²) t² + 2ρ c_k t − s_k = 0, with c_k and s_k their sum
    and sum of squares; the left norm falls and the right side grows with t, so that exactly one k fits.
    """
    peak = groups.amax(dim=1, keepdim=True)
    a = (groups / peak.clamp_min(torch.finfo(groups.dtype).tiny)).sort(dim=1, descending=True).values
    sums, squares = a.cumsum(1), a.square().cumsum(1)
    count = torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device)
    # ρ² times what is left above the k-th entry, against what the group part carries there: k fits while it is smaller
    excess = ratio**2 * (squares - 2 * a * sums + count * a.square()) - (weight * a) ** 2
    fitting = (excess <= 0).sum(dim=1, keepdim=True).clamp_min(1) - 1
    c, s = sums.gather(1, fitting), squares.gather(1, fitting)
    k = count[fitting]
    root = (ratio * c) ** 2 + (weight**2 - k * ratio**2) * s
    t = s / (ratio * c + root.clamp_min(0).sqrt()).clamp_min(torch.finfo(a.dtype).tiny)
    return (t * peak).squeeze(1)
