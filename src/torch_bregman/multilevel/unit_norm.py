"""The group norm of units, on the part of the tensors that is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_bregman.multilevel.descent import Drift
from torch_bregman.multilevel.part import Part
from torch_bregman.regularizers import GroupL2, UnitL2


@dataclass(frozen=True, eq=False)
class Member:
    """A tensor that reads units.

    Args:
        name: of the parameter.
        dim: along which units run.
        ids: of each slice, −1 for no unit.
    """

    name: str
    dim: int
    ids: Tensor


class UnitNorm:
    """θ_u = v_u·max(0, 1 − λ w_u/‖v_u‖) for units of which only a part of the entries is at hand.

    The entries in rows of sleeping units count to ‖v_u‖ but get no gradient; where their momentum has brought them is
    known from three numbers a unit.

    Args:
        members: the tensors that are one argument of the norm.
        weights: w_u, or one number for all.
    """

    def __init__(self, members: list[Member], weights: Tensor | float) -> None:
        self.members, self._weights = members, weights
        self.count = 1 + max(int(member.ids.max()) for member in members)

    def begin(self, parts: dict[str, Part], awake: dict[str, Tensor]) -> None:
        """Take up the parts of its tensors.

        Args:
            parts: by name.
            awake: masks of the supports, by name.
        """
        self._parts = [parts[member.name] for member in self.members]
        some = self._parts[0].dual
        self._awake = torch.zeros(self.count + 1, dtype=some.dtype, device=some.device)
        self._ids, outside = [], torch.zeros(3, self.count + 1, dtype=some.dtype, device=some.device)
        for member, part in zip(self.members, self._parts, strict=True):
            ids = torch.where(member.ids >= 0, member.ids, self.count).to(some.device)
            live = _slices(awake[member.name], member.dim).any(1)
            self._awake.index_fill_(0, ids[live], 1.0)
            self._ids.append(part.kept(member.dim, ids))
            for row, values in zip(outside, part.outside(member.dim), strict=True):
                row.index_add_(0, self._ids[-1], values)
        self._awake[self.count] = 1.0
        self._outside = outside if bool(outside.any()) else None
        for number, (part, ids) in enumerate(zip(self._parts, self._ids, strict=True)):
            part.still = None if bool(self._awake[ids].all()) else self._along(self._awake, number)

    def _along(self, values: Tensor, number: int) -> Tensor:
        """Return the value of each slice of a member, in a shape that broadcasts over its part."""
        dim, ndim = self.members[number].dim, self._parts[number].dual.ndim
        return values[self._ids[number]].view([-1 if d == dim else 1 for d in range(ndim)])

    def scales(self, lam: float, drift: Drift) -> Tensor:
        """Return the factor of each unit, 1 for slices of none."""
        if self._outside is None:
            squares = self._awake.new_zeros(self.count + 1)
        else:
            own, mixed, moving = self._outside
            squares = own - 2 * drift.far * mixed + drift.far**2 * moving
        for member, part, ids in zip(self.members, self._parts, self._ids, strict=True):
            squares = squares.index_add(0, ids, _slices(part.dual, member.dim).square().sum(1))
        norms = squares[: self.count].clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
        scales = torch.relu(1 - lam * self._weights / norms) * self._awake[: self.count]
        return torch.cat([scales, scales.new_ones(1)])

    def map(self, lam: float, drift: Drift) -> None:
        """Set the weights of all parts to the images of their duals."""
        scales = self.scales(lam, drift)
        for number, part in enumerate(self._parts):
            torch.mul(part.dual, self._along(scales, number), out=part.values)

    def spread(self, lam: float, drift: Drift) -> None:
        """Set all of the full weights whose slices are active, when their duals are up to date."""
        scales = self.scales(lam, drift)
        for member, part, ids in zip(self.members, self._parts, self._ids, strict=True):
            part.scale_into(member.dim, scales[ids])


def _slices(x: Tensor, dim: int) -> Tensor:
    return x.movedim(dim, 0).flatten(1)


def unit_norm(regularizer: Any, members: list[Member], params: list[Tensor]) -> UnitNorm:
    """Return the norm of a regulariser.

    Args:
        regularizer: `GroupL2` of one member, or `UnitL2`.
        members: in its order, with ids as it counts them.
        params: the full weights.
    """
    if isinstance(regularizer, GroupL2):
        return UnitNorm(members, float(regularizer.weight(params[0].detach())))
    assert isinstance(regularizer, UnitL2)
    return UnitNorm(members, regularizer.unit_weights([param.detach() for param in params]))
