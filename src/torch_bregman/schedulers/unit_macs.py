"""The multiply-adds of a network without the units that are off: a unit saves where it is made and where it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from torch_bregman.graph import trace_units
from torch_bregman.metrics import trace_uses
from torch_bregman.regularizers import GroupL2, Regularizer, UnitL2
from torch_bregman.schedulers.quantile import ROUNDING, Rated, fitting
from torch_bregman.schedulers.size import Costs, Member, Size, counted
from torch_bregman.schedulers.sizes import MultiplyAdds, Units

Group: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class UnitMultiplyAdds(MultiplyAdds):
    """The multiply-adds of one example through the network that `compact` leaves, under groups of whole units.

    A weight with a live rows and b live columns, an entry of which is used t times, has t·a·b. A unit therefore saves
    more while many others are live; it is charged what the network loses when units go in the order of their levels.

    Where each group of the optimizer meets it by itself, all keep the same share of their units, the largest that the
    goal allows; each group then has one weight, or weights that share their units.

    Args:
        goal: a share of the dense network's up to 1, a number above.
        uses: how often each entry of a weight is used, by parameter.
        units: the unit of each row and of each column, by parameter; -1 where there is none that may be removed.

    Example:
        >>> import torch_bregman as tb
        >>> model = tb.models.mlp([6, 4, 3])
        >>> size = UnitMultiplyAdds.of(model, torch.zeros(1, 1, 2, 3), goal=0.5)
        >>> rules = tb.outgoing_groups(model, torch.zeros(1, 1, 2, 3), lam=0.1)
        >>> optimizer = tb.LinBreg(tb.param_groups(model, rules), lr=0.1)
        >>> tb.schedulers.LamByQuantile(optimizer, size).watched[0].wholes
        [36.0]
    """

    units: Mapping[Tensor, Mapping[int, Tensor]] = field(default_factory=dict, compare=False)
    sampled: ClassVar[bool] = False

    @classmethod
    def of(cls, model: nn.Module, example: Any, goal: float) -> UnitMultiplyAdds:
        """Return the size of a model, which is called twice to see how its weights are used.

        Args:
            model: any module that `graph.trace_units` can follow.
            example: what it is called with, a tensor or a tuple of arguments.
            goal: a share up to 1, a number above.
        """
        params, units = dict(model.named_parameters()), {}
        for axis in trace_units(model, example).axes:
            if axis.name in params:
                units.setdefault(params[axis.name], {})[axis.dim] = axis.units
        return cls(goal, used(model, example), units)

    def least(self, regularizer: Regularizer, param: Tensor) -> float:
        """Return 0: what a unit costs depends on the others."""
        return 0.0

    def costs(self, members: Sequence[Member], beside: Sequence[Tensor]) -> Costs:
        """Return what is charged for each unit, and what is always there.

        Raises:
            ValueError: for a regulariser that makes something else than whole units sleep.
        """
        return _Costs(self, members, beside)

    def apart(self, groups: Sequence[Group], beside: Sequence[Tensor]) -> list[Size]:
        """Return for each group the share of its units that it keeps.

        Raises:
            ValueError: for a group of several weights, and a goal that would leave a group without a unit.
        """
        members = [(group, param) for group in groups for param in counted(group)]
        lengths = [_only_length(group) for group in groups]
        turns = torch.cat([(torch.arange(length) + 0.5) / length for length in lengths])
        order = turns.argsort(stable=True)
        spent = _Costs(self, members, beside).spent(order)
        budget = self.budget(float(spent[-1]))
        each = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        first = [int((each[order] == number).nonzero()[0]) for number in range(len(lengths))]
        if (least := float(spent[1 + max(first)])) > budget * (1 + ROUNDING):
            raise ValueError(
                f"a target of macs {self.goal:g} cannot be met: it is {budget:,.10g} of {float(spent[-1]):,.10g}, and "
                f"the least that leaves the same share of units in every weight is {least:,.10g}: raise it"
            )
        kept = torch.bincount(each[order[: fitting(spent, budget) - 1]], minlength=len(lengths))
        return [Units(count / length) for count, length in zip(kept.tolist(), lengths, strict=True)]


def used(model: nn.Module, example: Any) -> dict[Tensor, float]:
    """Return how many multiply-adds an entry of each weight takes part in, for one example.

    Args:
        model: any module.
        example: what it is called with.

    Example:
        >>> model = nn.Conv2d(1, 2, 3)
        >>> used(model, torch.zeros(1, 1, 8, 8))[model.weight]
        36.0
    """
    found: dict[Tensor, float] = {}
    for use in trace_uses(model, example).weights:
        if use.weight is not None:
            found[use.weight] = found.get(use.weight, 0.0) + use.times
    return found


class _Costs(Costs):
    """Charges every unit by the order of all levels."""

    def __init__(self, size: UnitMultiplyAdds, members: Sequence[Member], beside: Sequence[Tensor]) -> None:
        place = _places(size, members)
        params = dict.fromkeys([*(param for _, param in members), *beside])
        self._layers = [_Layer(size, param, place) for param in params if param.ndim >= 2]
        self._count = len(set(place.values()))
        self.always = float(self.spent(torch.arange(self._count))[0])

    def charge(self, rated: list[Rated]) -> list[Rated]:
        """Return the same levels, each with what it adds to the multiply-adds of those above it."""
        if not self._count:
            return rated
        levels = torch.cat([each.levels for each in rated])
        order = levels.argsort(descending=True, stable=True).cpu()
        costs = torch.empty(len(order), dtype=torch.float64)
        costs[order] = self.spent(order).diff()
        parts = costs.to(levels.device).split([len(each.levels) for each in rated])
        return [each._replace(cost=cost) for each, cost in zip(rated, parts, strict=True)]

    def spent(self, order: Tensor) -> Tensor:
        """Return the multiply-adds of the network with the first 0, 1, … units in this order."""
        return torch.stack([layer.spent(order) for layer in self._layers]).sum(0)


class _Layer:
    """One weight: how many rows and columns each level brings to life."""

    def __init__(self, size: UnitMultiplyAdds, param: Tensor, place: Mapping[int, int]) -> None:
        self.times = size.entry(param) * math.prod(param.shape[2:])
        count = 1 + max(place.values(), default=-1)
        axes = size.units.get(param, {})
        self.sides = [self._side(axes.get(dim), length, place, count) for dim, length in enumerate(param.shape[:2])]

    @staticmethod
    def _side(units: Tensor | None, length: int, place: Mapping[int, int], count: int) -> tuple[int, Tensor]:
        """Return how many indices are always live, and how many go with each level."""
        levels = [] if units is None else [place[u] for u in units.tolist() if u in place]
        return length - len(levels), torch.bincount(torch.tensor(levels, dtype=torch.long), minlength=count).double()

    def spent(self, order: Tensor) -> Tensor:
        """Return its multiply-adds with the first 0, 1, … levels in this order."""
        live = [free + torch.cumsum(torch.cat([each.new_zeros(1), each[order]]), 0) for free, each in self.sides]
        return self.times * live[0] * live[1]


def _only_length(group: Group) -> int:
    """Return how many units the one weight of a group has, or the weights that share theirs."""
    params = counted(group)
    if not group["regularizer"].joint and len(params) != 1:
        raise ValueError(
            f"each group of the optimizer must have one weight to meet multiply-adds by itself, got {len(params)}: "
            "make a group for each, or take scope global"
        )
    return _length(group["regularizer"], params)


def _places(size: UnitMultiplyAdds, members: Sequence[Member]) -> dict[int, int]:
    """Return where the level of each unit stands in the row of all levels."""
    place: dict[int, int] = {}
    start = 0
    for group, param in members:
        regularizer, params = group["regularizer"], group["params"]
        if regularizer.joint and param is not params[0]:
            continue
        for each, own in _levels(regularizer, params if regularizer.joint else [param]):
            place.update({unit: start + level for unit, level in _units(size, each, own, regularizer)})
        start += _length(regularizer, params if regularizer.joint else [param])
    return place


def _length(regularizer: Regularizer, params: Sequence[Tensor]) -> int:
    if isinstance(regularizer, UnitL2):
        return len(regularizer.levels_all([param.detach() for param in params]))
    return regularizer.levels(params[0].detach()).numel()


def _levels(regularizer: Regularizer, params: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return for each tensor the number of the level of each of its entries, counted from 1; 0 where there is none."""
    plain = [param.detach() for param in params]
    if isinstance(regularizer, UnitL2):
        numbers = torch.arange(1, 1 + len(regularizer.levels_all(plain)))
        return list(zip(params, regularizer.spread_all(numbers, [each.cpu() for each in plain]), strict=True))
    if isinstance(regularizer, GroupL2):
        shape = regularizer.levels(plain[0]).shape
        numbers = torch.arange(1, 1 + shape.numel()).view(shape)
        return [(params[0], regularizer.spread(numbers, plain[0].cpu()).expand(plain[0].shape))]
    raise ValueError(
        f"multiply-adds of units need groups of whole units, got {regularizer.name}: take the rules of "
        "outgoing_groups or incoming_groups, or MultiplyAdds"
    )


def _units(size: UnitMultiplyAdds, param: Tensor, levels: Tensor, regularizer: Any) -> list[tuple[int, int]]:
    """Return pairs of unit and level of the dimension along which the levels run."""
    for dim, units in size.units.get(param, {}).items():
        slices = levels.movedim(dim, 0).flatten(1) if levels.ndim > 1 else levels.unsqueeze(1)
        pairs = {(u, level) for u, level in zip(units.tolist(), slices[:, 0].tolist(), strict=True) if level}
        one_each = len({u for u, _ in pairs}) == len(pairs) and -1 not in {u for u, _ in pairs}
        if one_each and pairs and bool((slices == slices[:, :1]).all()):
            return [(u, level - 1) for u, level in pairs]
    raise ValueError(
        f"the groups of {regularizer!r} are no units of the model: take the rules of outgoing_groups or "
        "incoming_groups, or MultiplyAdds"
    )
