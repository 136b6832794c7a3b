"""The λ that leaves just as much awake as a budget allows, found by counting, without sorting all levels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_BRACKETS = (0.01, 0.05)
"""Widths of the first brackets around the guess, relative to it."""
_SMALL, _EVERY = 4096, 32
"""Beyond so many levels a sample of every 32nd is sorted before all are."""
ROUNDING = 1e-12
"""Relative, of sums of costs."""


class Rated(NamedTuple):
    """Levels, and what each of them costs while it is awake.

    Args:
        levels: the λ up to which each unit is awake, a vector.
        cost: of a unit: one number for all, or a vector.
    """

    levels: Tensor
    cost: float | Tensor


class Crossing(NamedTuple):
    """Where the budget is used up.

    Args:
        kept: the lowest level that still fits the budget; inf where nothing does.
        dropped: the next one; 0 where everything fits.
    """

    kept: float
    dropped: float

    @property
    def middle(self) -> float:
        """The λ in the middle: at it what fits is awake, the rest asleep."""
        return self.dropped if math.isinf(self.kept) else (self.kept + self.dropped) / 2


def crossing(rated: Sequence[Rated], budget: float, guess: float = 0.0) -> Crossing:
    """Return between which two levels the budget is used up when the highest levels come first.

    Levels are counted above and below a bracket around the guess, and only those within it are sorted: with a guess
    from ten steps ago these are few.

    Args:
        rated: levels and costs.
        budget: what all that is awake may cost; levels are taken in falling order as long as their sum is no larger.
        guess: near the answer, if anything is known; it costs time when wrong, never accuracy.

    Raises:
        ValueError: for levels that are nan.

    Example:
        >>> crossing([Rated(torch.tensor([1.0, 5.0, 3.0, 2.0]), 1.0)], budget=2).middle
        2.5
    """
    whole = sum(_whole(each) for each in rated)
    if budget >= whole:
        return Crossing(min((float(each.levels.amin()) for each in rated if each.levels.numel()), default=0.0), 0.0)
    levels, total, above = _search(rated, budget, guess)
    count = fitting(total, budget)
    return Crossing(float(levels[count - 1]) if count else _least_above(rated, above), float(levels[count]))


def fitting(total: Tensor, budget: float) -> int:
    """Return how many of these sums, which rise, stay within a budget, but for rounding.

    Example:
        >>> fitting(torch.tensor([1.0, 3.0, 6.0]), budget=3)
        2
    """
    return int((total <= budget * (1 + ROUNDING)).sum())


def spent(rated: Sequence[Rated], lam: float) -> float:
    """Return what is awake at λ costs."""
    parts = [_cost_above(each, lam) for each in rated]
    if not parts:
        return 0.0
    return float(torch.stack([part.to(parts[0].device) for part in parts]).sum())  # the device is waited for once


def merged(rated: Sequence[Rated]) -> list[Rated]:
    """Return the same with levels of one cost as one vector: small tensors are counted faster together.

    Example:
        >>> merged([Rated(torch.ones(2), 1.0), Rated(torch.ones(3), 4.0), Rated(torch.ones(1), 1.0)])[0].levels
        tensor([1., 1., 1.])
    """
    alike: dict[tuple[float, torch.device, torch.dtype], list[Tensor]] = {}
    for each in rated:
        if not isinstance(each.cost, Tensor):
            alike.setdefault((each.cost, each.levels.device, each.levels.dtype), []).append(each.levels)
    together = [Rated(torch.cat(levels), cost) for (cost, _, _), levels in alike.items()]
    return [*together, *(each for each in rated if isinstance(each.cost, Tensor))]


def _cost_above(rated: Rated, lam: float) -> Tensor:
    awake = rated.levels > lam
    if isinstance(rated.cost, Tensor):
        return (rated.cost.double() * awake).sum()
    return torch.count_nonzero(awake).double() * rated.cost


def _whole(rated: Rated) -> float:
    return float(rated.cost.sum()) if isinstance(rated.cost, Tensor) else len(rated.levels) * rated.cost


def _search(rated: Sequence[Rated], budget: float, guess: float) -> tuple[Tensor, Tensor, float]:
    """Return levels around the answer, falling, what all down to each costs, and the upper end of the bracket."""
    for low, high in _brackets(rated, budget, guess):
        above = spent(rated, high)
        if above <= budget:
            levels, costs = _within(rated, low, high)
            if above + float(costs.sum()) > budget:
                return levels, above + torch.cumsum(costs, 0), high
    raise ValueError("a target cannot be met with dual variables that are nan: lower lr or clip gradients")


def _brackets(rated: Sequence[Rated], budget: float, guess: float) -> Iterator[tuple[float, float]]:
    """Yield where to look: around the guess, where a sample of the levels has the answer, and everywhere."""
    for width in _BRACKETS:
        yield guess * (1 - width), guess * (1 + width)
    if sum(len(each.levels) for each in rated) > _SMALL:
        levels, costs = _within([_thinned(each) for each in rated], -1.0, math.inf)
        place = int((torch.cumsum(costs, 0) <= budget).sum())
        margin = 4 * math.isqrt(place + 1)
        first, last = place - margin, place + margin
        if first >= 0 and last < len(levels):
            yield float(levels[last]), float(levels[first])
    yield -1.0, math.inf


def _thinned(rated: Rated) -> Rated:
    cost = rated.cost[::_EVERY] if isinstance(rated.cost, Tensor) else rated.cost
    return Rated(rated.levels[::_EVERY], cost * _EVERY)


def _within(rated: Sequence[Rated], low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the levels in (low, high], falling, and their costs, in float64 on the CPU."""
    levels, costs = [], []
    for each in rated:
        inside = (each.levels > low) & (each.levels <= high)
        chosen = each.levels[inside]
        levels.append(chosen.double().cpu())
        cost = each.cost[inside].double().cpu() if isinstance(each.cost, Tensor) else chosen.new_full((), each.cost)
        costs.append(cost.double().cpu().expand(len(chosen)))
    ordered = torch.cat(levels).sort(descending=True, stable=True)
    return ordered.values, torch.cat(costs)[ordered.indices]


def _least_above(rated: Sequence[Rated], lam: float) -> float:
    above = [each.levels[each.levels > lam] for each in rated]
    return min((float(levels.amin()) for levels in above if levels.numel()), default=math.inf)
