"""The group norm over units that live in several tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, largest, write
from torch_bregman.regularizers.group_l2 import group_norms
from torch_bregman.regularizers.slices import FREE, Slices, get_slices


@dataclass(frozen=True, repr=False)
class UnitL2(Regularizer):
    """J(x_1, x_2, …) = λ Σ_u w_u ‖(x_1[u], x_2[u], …)‖₂: all slices of a unit, over several tensors, are one group.

    prox_{sJ} shortens every slice of a unit by the same factor max(0, 1 − sλw_u / ‖x[u]‖), so that a unit sleeps in all
    tensors at once; the dual norm is max_u ‖x[u]‖ / w_u. Slices that belong to no unit are not regularised.

    With several members it takes as many tensors, in their order: in an optimizer a group of these parameters
    (`outgoing_groups` and `incoming_groups` make them), by hand the methods that end in `_all`, or `joined`.

    Args:
        lam: λ ≥ 0, default 1.
        members: for every tensor its slices, as `Slices` or spelled, separated by ";"; default "0", the rows of one
            tensor.
        weighted: w_u = √n_u, n_u the entries of a unit in all tensors (default); else w_u = 1.

    Raises:
        ValueError: for slices that are spelled wrongly, or, when used, do not fit the tensors.

    References:
        Yuan, Lin 2006; Scardapane, Comminiello, Hussain, Uncini 2017 (outgoing connections as groups).

    Example:
        >>> import torch
        >>> norm = UnitL2(lam=1.0, members="0;1", weighted=False)
        >>> rows, columns = torch.tensor([[3.0], [0.1]]), torch.tensor([[4.0, 0.1]])
        >>> norm.prox_all([rows, columns])
        [tensor([[2.4000],
                [0.0000]]), tensor([[3.2000, 0.0000]])]
    """

    members: str | Sequence[Slices | str] = "0"
    weighted: bool = True
    name: ClassVar[str] = "unit_l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.members.split(";") if isinstance(self.members, str) else self.members
        object.__setattr__(self, "members", tuple(get_slices(each) for each in given))

    @property
    def slices(self) -> tuple[Slices, ...]:
        """The members."""
        return tuple(get_slices(each) for each in self.members)

    @property
    def joint(self) -> bool:
        """Whether several tensors make one argument."""
        return len(self.members) > 1

    def __repr__(self) -> str:
        return f"UnitL2(lam={self.lam}, members='{';'.join(map(str, self.members))}', weighted={self.weighted})"

    def spec(self) -> dict[str, Any]:
        """Return the regulariser as plain values, without λ."""
        return {**super().spec(), "members": ";".join(map(str, self.members))}

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ Σ_u w_u ‖x[u]‖₂ of one tensor."""
        return self.value_all([x], lam=lam)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return every unit of one tensor, shortened by step·λ·w_u, or 0 where it is no longer than that."""
        return self.prox_all([x], step, lam=lam, outs=None if out is None else [out])[0]

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ·w_u·x[u] / ‖x[u]‖ for every unit of one tensor, 0 for a zero unit."""
        return self.subgradient_all([x], lam=lam)[0]

    def levels(self, v: Tensor) -> Tensor:
        """Return ‖v[u]‖₂ / w_u of every unit of one tensor."""
        return self.levels_all([v])

    def spread(self, levels: Tensor, like: Tensor) -> Tensor:
        """Return what was found for every unit of one tensor, for all its entries; 0 or false for those of no unit."""
        return self.spread_all(levels, [like])[0]

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return max_u ‖x[u]‖₂ / w_u of one tensor; infinite where an entry of no unit is not zero."""
        return self.dual_norm_all([x])

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen the mask to whole units."""
        return self.coupled_all([mask])[0]

    def value_all(self, xs: Sequence[Tensor], *, lam: float | None = None) -> Tensor:
        """Return J of all tensors."""
        norms, weights = self._norms(xs), self._weights(xs)
        return (self.strength(lam) * (weights * norms).sum()).to(xs[0].dtype)

    def prox_all(
        self, xs: Sequence[Tensor], step: float = 1.0, *, lam: float | None = None, outs: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Return the proximal map of all tensors together.

        Args:
            xs: as many tensors as there are members, in their order.
            step: how much of J, ≥ 0.
            lam: λ in force, default the regulariser's own.
            outs: where to write the results; may be `xs` themselves.
        """
        threshold, scale = step * self.strength(lam), None
        if threshold > 0:
            scale = torch.relu(1 - threshold * self._weights(xs) / self._norms(xs))
        results = []
        for number, (x, factor) in enumerate(self._spread(xs, scale, 1.0)):
            out = None if outs is None else outs[number]
            if factor is None:
                results.append(x.clone() if out is None else write(x, out))
            elif out is not None and out.dtype == x.dtype == factor.dtype:
                results.append(torch.mul(x, factor, out=out))
            else:
                results.append(write((x * factor).to(x.dtype), out))
        return results

    def mirror_all(
        self, vs: Sequence[Tensor], delta: float, *, lam: float | None = None, outs: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Return the mirror map θ = δ·prox_J(v) of all tensors together."""
        thetas = self.prox_all(vs, 1.0, lam=lam, outs=outs)
        return thetas if delta == 1 else [theta.mul_(delta) for theta in thetas]

    def subgradient_all(self, xs: Sequence[Tensor], *, lam: float | None = None) -> list[Tensor]:
        """Return an element of ∂J of all tensors together, 0 for zero units."""
        norms = self._norms(xs)
        factors = self.strength(lam) * self._weights(xs) / norms.masked_fill(norms == 0, 1)
        return [(x * factor).to(x.dtype) for x, factor in self._spread(xs, factors, 0.0)]

    def levels_all(self, vs: Sequence[Tensor]) -> Tensor:
        """Return ‖v[u]‖₂ / w_u of every unit of all tensors, up to which λ it is awake."""
        return self._norms(vs) / self._weights(vs).clamp_min(1)

    def spread_all(self, levels: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        """Return what was found for every unit, for all entries of all tensors; 0 or false for those of no unit."""
        padded = torch.cat([levels, levels.new_zeros(1)])
        pairs = zip(self.slices, like, strict=True)
        return [each.along(padded[each.index(x)], x).expand(x.shape) for each, x in pairs]

    def dual_norm_all(self, xs: Sequence[Tensor]) -> Tensor:
        """Return max_u ‖x[u]‖₂ / w_u of all tensors."""
        free = [x[_select(each, each.index(x) == FREE)] for each, x in zip(self.slices, xs, strict=True) if x.ndim]
        if any(bool(part.any()) for part in free):
            return xs[0].new_full((), math.inf)
        return largest(self.levels_all(xs)).to(xs[0].dtype)

    def coupled_all(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """Widen masks of entries to whole units in all tensors; slices of no unit stay by themselves."""
        hit = (self._norms([mask.float() for mask in masks]) > 0).float()
        return [mask | (factor > 0) for mask, factor in self._spread(masks, hit, 0.0)]

    def check(self, xs: Sequence[Tensor]) -> None:
        """Raise ValueError where these tensors do not have the slices."""
        if len(xs) != len(self.slices):
            raise ValueError(f"{self!r} is for {len(self.slices)} tensors together, got {len(xs)}: one for each member")
        for each, x in zip(self.slices, xs, strict=True):
            each.index(x)

    def joined(self, shapes: Sequence[torch.Size]) -> Regularizer:
        """Return the same norm on one vector, all tensors of these shapes in a row."""
        return Joined(self.lam, self, tuple(shapes))

    def unit_weights(self, xs: Sequence[Tensor]) -> Tensor:
        """Return w_u of every unit of all tensors."""
        return self._weights(xs)

    def _norms(self, xs: Sequence[Tensor]) -> Tensor:
        """Return ‖x[u]‖ of every unit."""
        norms = [
            group_norms(x, each.inner(x.ndim)).reshape(-1) for each, x in zip(self.slices, _vectors(xs), strict=True)
        ]
        if not self.joint and self.slices[0].units is None:
            return norms[0]
        return self._combine(xs, norms)

    def _combine(self, xs: Sequence[Tensor], norms: Sequence[Tensor]) -> Tensor:
        """Return the norms of units from those of their slices, without overflow."""
        indices = [each.index(x) for each, x in zip(self.slices, xs, strict=True)]
        count = 1 + max((int(index.max()) for index in indices if len(index)), default=FREE)
        kept = [(norm[index >= 0], index[index >= 0]) for norm, index in zip(norms, indices, strict=True)]
        slices, units = torch.cat([n for n, _ in kept]), torch.cat([i for _, i in kept])
        peak = slices.new_zeros(count).scatter_reduce(0, units, slices.detach(), "amax")
        peak = peak.masked_fill(peak == 0, 1)
        sums = slices.new_zeros(count).index_add(0, units, (slices / peak[units]).square())
        return torch.where(sums > 0, sums, 1).sqrt() * (sums > 0) * peak

    def _weights(self, xs: Sequence[Tensor]) -> Tensor:
        """Return w_u of every unit."""
        sizes = [x.numel() // max(each.length(x), 1) for each, x in zip(self.slices, xs, strict=True)]
        dtype = torch.promote_types(xs[0].dtype, torch.float32)
        if not self.joint and self.slices[0].units is None:
            weight = math.sqrt(sizes[0]) if self.weighted else 1.0
            return torch.full((self.slices[0].length(xs[0]),), weight, dtype=dtype, device=xs[0].device)
        indices = [each.index(x) for each, x in zip(self.slices, xs, strict=True)]
        count = 1 + max((int(index.max()) for index in indices if len(index)), default=FREE)
        total = torch.zeros(count, dtype=dtype, device=xs[0].device)
        for size, index in zip(sizes, indices, strict=True):
            kept = index[index >= 0]
            total.index_add_(0, kept, total.new_full((len(kept),), float(size)))
        return total.sqrt() if self.weighted else torch.ones_like(total)

    def _spread(self, xs: Sequence[Tensor], factors: Tensor | None, free: float) -> Iterator[tuple[Tensor, Any]]:
        """Yield every tensor with the factor of each of its slices, `free` for those of no unit."""
        padded = None if factors is None else torch.cat([factors, factors.new_full((1,), free)])
        for each, x in zip(self.slices, xs, strict=True):
            yield x, None if padded is None else each.along(padded[each.index(x)], x)


@dataclass(frozen=True)
class Joined(Regularizer):
    """A norm on several tensors as one on a vector, all of them in a row."""

    of: UnitL2 = UnitL2()
    shapes: tuple[torch.Size, ...] = ()
    name: ClassVar[str] = "joined"

    def split(self, x: Tensor) -> list[Tensor]:
        """Return the tensors of a vector."""
        parts = x.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return J of the tensors in a vector."""
        return self.of.value_all(self.split(x), lam=self.strength(lam))

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return the proximal map as a vector."""
        return write(in_a_row(self.of.prox_all(self.split(x), step, lam=self.strength(lam))), out)

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return a subgradient as a vector."""
        return in_a_row(self.of.subgradient_all(self.split(x), lam=self.strength(lam)))

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return the dual norm of the tensors in a vector."""
        return self.of.dual_norm_all(self.split(x))

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen the mask to whole units."""
        return in_a_row(self.of.coupled_all(self.split(mask)))


def in_a_row(xs: Sequence[Tensor]) -> Tensor:
    """Return tensors as one vector."""
    return torch.cat([x.reshape(-1) for x in xs])


def _vectors(xs: Sequence[Tensor]) -> list[Tensor]:
    return [x if x.ndim else x.unsqueeze(0) for x in xs]


def _select(each: Slices, mask: Tensor) -> tuple[Any, ...]:
    return (slice(None),) * each.dim + (mask,)
