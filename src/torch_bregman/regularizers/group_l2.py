"""The group norm: rows, columns, filters, kernels, heads or blocks that live or die as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.distributed.sharded import is_sharded
from torch_bregman.regularizers.base import Regularizer, at_least_float, largest, write
from torch_bregman.regularizers.l1 import soft_threshold
from torch_bregman.views import View, get_view

_LEAST = 1e-12
_FEW = 16
_LITTLE = 512


_ONES = {dtype: torch.ones((), dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)}


def group_norms(split: Tensor, inner: tuple[int, ...]) -> Tensor:
    """Return the ℓ2 norms over the dimensions `inner`, kept with length 1, without overflow or underflow.

    Squares of entries beyond about 1e±18 leave the range of float32. On a CPU a look at the norms tells whether that
    may have happened, and they are taken again from scaled entries; elsewhere, where looking would stall the device,
    the squares are summed in float64. The norms of halves are float32: a group of large halves is longer than 65504.
    """
    split = at_least_float(split)
    if not inner:
        return split.abs()
    if split.numel() == 0:
        return torch.linalg.vector_norm(split, dim=inner, keepdim=True)
    if split.device.type != "cpu" or is_sharded(split):
        return torch.linalg.vector_norm(split, dim=inner, keepdim=True, dtype=torch.float64).to(split.dtype)
    norms = _fast_norms(split, inner)
    return norms if _in_range(norms.detach(), split.detach(), inner) else _scaled_norms(split, inner)


def _in_range(norms: Tensor, split: Tensor, inner: tuple[int, ...]) -> bool:
    limits = torch.finfo(norms.dtype)
    low, high = limits.tiny**0.5 / limits.eps, limits.max**0.5 * limits.eps
    least, most = torch.aminmax(norms)
    if least > low and most < high:
        return True
    # sparse weights have many zero groups, whose norms are right
    asleep = split.abs().amax(dim=inner, keepdim=True) == 0
    return bool((asleep | ((norms > low) & (norms < high))).all())


def _fast_norms(split: Tensor, inner: tuple[int, ...]) -> Tensor:
    split = at_least_float(split)
    if not inner:  # to torch, no dimension means all of them
        return split.abs()
    # vector_norm is fast where a group is one long piece of memory, and up to 20 times slower elsewhere
    if split.requires_grad or split.numel() <= _LITTLE or _in_one_piece(split, inner):
        return torch.linalg.vector_norm(split, dim=inner, keepdim=True)
    squares, tail = split.square(), split.ndim
    while tail - 1 in inner:
        tail -= 1
    if 1 < math.prod(split.shape[tail:]) <= _FEW and squares.is_contiguous():
        # a few neighbours (a 3 × 3 kernel) are summed by a product with ones, several times faster than by `sum`
        sums = squares.flatten(tail) @ squares.new_ones(math.prod(split.shape[tail:]))
        squares, inner = sums.view(*split.shape[:tail], *[1] * (split.ndim - tail)), inner[: tail - split.ndim]
    # out of place: in place, roots of the partial sums of shards fail
    return (squares.sum(dim=inner, keepdim=True) if inner else squares).sqrt()


def _in_one_piece(split: Tensor, inner: tuple[int, ...]) -> bool:
    """Return whether each group is a piece of memory of its own, with more than a few entries."""
    size = math.prod([split.shape[d] for d in inner])
    if inner[0] == split.ndim - len(inner) and split.is_contiguous():
        return size > _FEW
    outer = [split.stride(d) for d in range(split.ndim) if d not in inner and split.shape[d] > 1]
    return size > _FEW and min(outer, default=size) >= size


def _scaled_norms(split: Tensor, inner: tuple[int, ...]) -> Tensor:
    wide = split.double()
    peak = wide.detach().abs().amax(dim=inner, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (torch.linalg.vector_norm(wide / peak, dim=inner, keepdim=True) * peak).to(split.dtype)


@dataclass(frozen=True)
class GroupL2(Regularizer):
    """J(x) = λ Σ_g w_g ‖x_g‖₂ with w_g = √n_g: groups of weights sleep and wake as one.

    prox_{sJ}(x)_g = x_g·max(0, 1 − sλw_g / ‖x_g‖); the dual norm is max_g ‖x_g‖ / w_g.

    Args:
        lam: λ ≥ 0, default 1.
        view: what the groups are, a name or a `View`, default "rows".
        weighted: w_g = √n_g, n_g the entries of a group (default); else w_g = 1.

    Raises:
        ValueError: for an unknown view, or, when used, for a tensor that has no such groups.

    References:
        Yuan, Lin 2006; Bungert et al., JMLR 2022.

    Example:
        >>> import torch
        >>> GroupL2(lam=1.0, view="rows", weighted=False).prox(torch.tensor([[3.0, 4.0], [0.6, 0.0]]))
        tensor([[2.4000, 3.2000],
                [0.0000, 0.0000]])
    """

    view: str | View = "rows"
    weighted: bool = True
    name: ClassVar[str] = "group_l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "view", get_view(self.view))

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ Σ_g w_g ‖x_g‖₂."""
        return (self.strength(lam) * self.weight(x) * group_norms(*self.groups(x)).sum()).to(x.dtype)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return every group, shortened by step·λ·w_g, or 0 where it is no longer than that."""
        split, inner = self.groups(x)
        size = math.prod([split.shape[d] for d in inner])
        if size == 1:
            return soft_threshold(x, step * self.strength(lam), out)
        threshold = step * self.strength(lam) * (math.sqrt(size) if self.weighted else 1.0)
        return shrink_groups(split, inner, threshold, like=x, out=out)

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ·w_g·x_g / ‖x_g‖ for every group, 0 for a zero group."""
        split, inner = self.groups(x)
        directions = split / _no_zeros(group_norms(split, inner))
        return directions.reshape(x.shape).mul_(self.strength(lam) * self.weight(x)).to(x.dtype)

    def levels(self, v: Tensor) -> Tensor:
        """Return ‖v_g‖₂ / w_g."""
        return group_norms(*self.groups(v)) / max(self.weight(v), 1.0)

    def spread(self, levels: Tensor, like: Tensor) -> Tensor:
        """Return what was found for every group, for all its entries."""
        return levels.expand_as(self.groups(like)[0]).reshape(like.shape)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return max_g ‖x_g‖₂ / w_g."""
        return largest(self.levels(x)).to(x.dtype)

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen the mask to whole groups."""
        split, inner = self.groups(mask)
        return split.any(dim=inner, keepdim=True).expand_as(split).reshape(mask.shape) if inner else mask

    def groups(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return `x` split into its groups, and the dimensions within a group."""
        return get_view(self.view).groups(x)

    def weight(self, x: Tensor) -> float:
        """Return w_g, the same for all groups of a tensor."""
        return math.sqrt(get_view(self.view).size(x)) if self.weighted else 1.0


def shrink_groups(
    split: Tensor, inner: tuple[int, ...], threshold: float, *, like: Tensor, out: Tensor | None
) -> Tensor:
    """Return split·max(0, 1 − threshold / norm) in the shape of `like`; zero groups stay zero.

    A norm out of the range of the squares counts as infinite or zero, which is right for every threshold that is not
    itself extreme: so the norms need a second look only then.
    """
    if threshold == 0:
        return write(like, out) if out is not None else like.clone()
    norms = _fast_norms(split, inner) if _LEAST < threshold < 1 / _LEAST else group_norms(split, inner)
    scale = _one_minus(threshold, norms).relu_()
    if out is None or out.dtype != like.dtype or is_sharded(out):
        return write((split * scale).to(like.dtype).reshape(like.shape), out)
    torch.mul(split, scale, out=_reshape_view(out, split, like))
    return out


def _one_minus(threshold: float, norms: Tensor) -> Tensor:
    """Return 1 − threshold / norms."""
    if norms.is_cpu and type(norms) is Tensor and not torch.compiler.is_compiling():
        one = _ONES[norms.dtype]  # kept: to make a tensor of a number takes longer than all the rest, on small layers
        return torch.addcdiv(one, one, norms, value=-threshold)
    return torch.rsub(norms.reciprocal(), 1, alpha=threshold)


def _reshape_view(out: Tensor, split: Tensor, like: Tensor) -> Tensor:
    # splitting dimensions never copies, so this is `out` itself under another shape
    return out.view_as(split) if split.shape != like.shape else out


def _no_zeros(norms: Tensor) -> Tensor:
    return norms.masked_fill(norms == 0, 1)
