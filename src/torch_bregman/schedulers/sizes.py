"""What is counted of a network: weights, units, ranks, stored numbers, multiply-adds, bytes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from torch_bregman.regularizers import GroupL2, Nuclear, Regularizer, UnitL2
from torch_bregman.schedulers.quantile import ROUNDING, Rated, fitting
from torch_bregman.views import View, get_view

Member: TypeAlias = tuple[dict[str, Any], Tensor]
"""A weight, and the group of the optimizer that it is in."""


def counted(group: dict[str, Any]) -> list[Tensor]:
    """Return the parameters of a group of the optimizer that sizes count: weights, and what shares units with them."""
    return [p for p in group["params"] if (p.ndim >= 2 or group["regularizer"].joint) and p.numel()]


@dataclass
class Costs:
    """What weights that are steered together cost.

    Args:
        always: what is there whatever sleeps.
    """

    always: float

    def charge(self, rated: list[Rated]) -> list[Rated]:
        """Return levels and costs of all weights, once the levels of all are known."""
        return rated


@dataclass(frozen=True)
class Size(ABC):
    """How large a network may be, and what one of its weights adds to that.

    Args:
        goal: up to 1 a share of the whole, above 1 a number.

    Raises:
        ValueError: for a goal that is not above 0.
    """

    goal: float
    name: ClassVar[str]
    sampled: ClassVar[bool] = True
    """Whether some of the levels tell what all cost."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.goal) and self.goal > 0):
            raise ValueError(f"a target of {self.name} must be a number > 0, got {self.goal!r}: {self._hint()}")

    def _hint(self) -> str:
        return "0.05 is 5 % of the whole, 5000 a number"

    def budget(self, whole: float) -> float:
        """Return the goal as a number.

        Args:
            whole: what the dense network has.
        """
        return self.goal * whole if self.goal <= 1 else self.goal

    @abstractmethod
    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return what a weight adds when all of it is awake.

        Raises:
            ValueError: where this regulariser makes nothing of the kind sleep.
        """

    def rate(self, regularizer: Regularizer, v: Tensor, param: Tensor) -> Rated:
        """Return the levels of a weight and what each costs while it is awake.

        Args:
            regularizer: of the weight.
            v: its dual variable, or some of its rows.
            param: the weight itself.
        """
        levels = regularizer.levels(v).flatten()
        if isinstance(regularizer, Nuclear):
            return Rated(levels, self.directions(len(levels), regularizer, param).to(levels.device))
        return Rated(levels, self.entry(param) * v.numel() / max(len(levels), 1))

    def entries(self, kept: Tensor, regularizer: Regularizer, v: Tensor) -> Tensor:
        """Return which entries of a weight belong to the levels that are kept.

        Args:
            kept: for each level that `rate` returned, whether it is kept.
            regularizer: of the weight; makes entries or groups sleep.
            v: its dual variable.
        """
        return regularizer.spread(kept.view(regularizer.levels(v).shape), v)

    def rate_joint(self, regularizer: UnitL2, duals: list[Tensor], params: list[Tensor]) -> Rated:
        """Return levels and costs of units that several tensors share; vectors are not counted."""
        levels = regularizer.levels_all(duals)
        cost = torch.zeros(len(levels), dtype=torch.float64)
        for slices, param in zip(regularizer.slices, params, strict=True):
            index = slices.index(param).cpu()
            if param.ndim >= 2 and len(index):
                each = param.numel() / len(index) * self.entry(param)
                cost.index_add_(0, index[index >= 0], torch.full((int((index >= 0).sum()),), each, dtype=torch.float64))
        return Rated(levels, cost.to(levels.device))

    def whole_joint(self, regularizer: UnitL2, params: list[Tensor]) -> float:
        """Return what tensors that share units add when all is awake."""
        return sum(self.whole(param, regularizer) for param in params if param.ndim >= 2)

    def costs(self, members: Sequence[Member], beside: Sequence[Tensor]) -> Costs:
        """Return what weights that are steered together cost.

        Args:
            members: those that are steered.
            beside: further weights that count.
        """
        free = [self._of_no_unit(group) for group in joint_groups(members)]
        return Costs(sum(self.beside(param) for param in beside) + sum(free))

    def apart(self, groups: Sequence[dict[str, Any]], beside: Sequence[Tensor]) -> list[Size]:
        """Return what each group has to meet where each meets the target by itself: the same; see `same_ranks`.

        Args:
            groups: of the optimizer, all that are steered.
            beside: further weights.
        """
        return same_ranks(self, groups, beside) or [self] * len(groups)

    def beside(self, param: Tensor) -> float:
        """Return what a weight without a regulariser adds."""
        return self.entry(param) * param.numel()

    def least(self, regularizer: Regularizer, param: Tensor) -> float:
        """Return what one weight, group or singular direction of a weight costs."""
        if isinstance(regularizer, Nuclear):
            return float(self.directions(1, regularizer, param)[0])
        return float(torch.as_tensor(self.rate(regularizer, param.detach(), param).cost).min())

    def _of_no_unit(self, group: dict[str, Any]) -> float:
        """Return what slices of joint weights cost that belong to no unit, and are always awake."""
        regularizer, params = group["regularizer"], group["params"]
        cost = self.rate_joint(regularizer, [param.detach() for param in params], params).cost
        return self.whole_joint(regularizer, params) - float(cost.sum()) if isinstance(cost, Tensor) else 0.0

    def entry(self, param: Tensor) -> float:
        """Return what one entry costs."""
        return 1.0

    def directions(self, count: int, regularizer: Nuclear, param: Tensor) -> Tensor:
        """Return what each of the leading singular directions costs: its two factors, until dense storage is less."""
        rows, columns = regularizer.matrix(param.detach()).shape
        stored = torch.arange(count + 1, dtype=torch.float64).mul_(rows + columns).clamp_max_(rows * columns)
        return stored.diff().mul_(self.entry(param))


@dataclass(frozen=True)
class Density(Size):
    """The share of the weights that are not zero, or their number: ℓ1, groups, sparse groups.

    Example:
        >>> Density(0.05).budget(266200)
        13310
    """

    name: ClassVar[str] = "density"

    def budget(self, whole: float) -> float:
        """Return a whole number of weights."""
        return round(super().budget(whole))

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return the number of entries."""
        if isinstance(regularizer, Nuclear):
            raise ValueError(f"{regularizer.name} makes no single weights sleep: set a target of rank or params")
        return float(param.numel())


@dataclass(frozen=True)
class Units(Size):
    """The share of the live groups, or their number.

    Args:
        goal: a share up to 1, a number above.
        view: what a unit is where the regulariser makes single weights sleep, default "rows".

    Example:
        >>> from torch_bregman.regularizers import GroupL2
        >>> Units(0.5).whole(torch.zeros(4, 3), GroupL2(view="columns"))
        3.0
    """

    view: str | View = "rows"
    name: ClassVar[str] = "units"

    def budget(self, whole: float) -> float:
        """Return a whole number of units."""
        return round(super().budget(whole))

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return the number of groups."""
        if isinstance(regularizer, Nuclear):
            raise ValueError(f"{regularizer.name} makes no units sleep: set a target of rank or params")
        if isinstance(regularizer, UnitL2):
            return float(len(regularizer.levels(param.detach())))
        return float(param.numel() / self._view(regularizer).size(param))

    def beside(self, param: Tensor) -> float:
        """Return 0: a weight without a regulariser has no units that sleep."""
        return 0.0

    def rate_joint(self, regularizer: UnitL2, duals: list[Tensor], params: list[Tensor]) -> Rated:
        """Return the levels of the units, each of which costs 1."""
        return Rated(regularizer.levels_all(duals), 1.0)

    def whole_joint(self, regularizer: UnitL2, params: list[Tensor]) -> float:
        """Return the number of units."""
        return float(len(regularizer.levels_all([param.detach() for param in params])))

    def rate(self, regularizer: Regularizer, v: Tensor, param: Tensor) -> Rated:
        """Return the highest level within each unit."""
        levels = regularizer.levels(v)
        if not isinstance(regularizer, (GroupL2, UnitL2)):
            split, inner = self._view(regularizer).groups(levels)
            levels = split.amax(inner) if inner else split
        return Rated(levels.flatten(), 1.0)

    def entries(self, kept: Tensor, regularizer: Regularizer, v: Tensor) -> Tensor:
        """Return all entries of the units that are kept."""
        if isinstance(regularizer, (GroupL2, UnitL2)):
            return super().entries(kept, regularizer, v)
        split, inner = self._view(regularizer).groups(v)
        shape = [1 if d in inner else length for d, length in enumerate(split.shape)]
        return kept.view(shape).expand_as(split).reshape(v.shape)

    def _view(self, regularizer: Regularizer) -> View:
        return get_view(getattr(regularizer, "view", self.view))


@dataclass(frozen=True)
class Rank(Size):
    """The number of singular directions of all weights together, or the share of their full ranks.

    Example:
        >>> Rank(12).budget(400)
        12
    """

    name: ClassVar[str] = "rank"

    def apart(self, groups: Sequence[dict[str, Any]], beside: Sequence[Tensor]) -> list[Size]:
        """Return the same rank, or share of the full one, for each group."""
        return [self] * len(groups)

    def budget(self, whole: float) -> float:
        """Return a whole number of directions."""
        return round(super().budget(whole))

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return the full rank."""
        if not isinstance(regularizer, Nuclear):
            raise ValueError(f"a target of rank needs the nuclear norm, got {regularizer.name}: set one of density")
        return float(min(regularizer.matrix(param.detach()).shape))

    def beside(self, param: Tensor) -> float:
        """Return 0: a weight without a regulariser has no directions that sleep."""
        return 0.0

    def directions(self, count: int, regularizer: Nuclear, param: Tensor) -> Tensor:
        """Return 1 for each."""
        return torch.ones(count, dtype=torch.float64)


@dataclass(frozen=True)
class Parameters(Size):
    """The numbers that store all weights: those that are not zero, and two factors of a low-rank weight.

    A rank r of an m × n weight costs r(m + n) numbers, at most m·n.

    Example:
        >>> from torch_bregman.regularizers import Nuclear
        >>> Parameters(9.0).directions(3, Nuclear(), torch.zeros(4, 4)).tolist()
        [8.0, 8.0, 0.0]
    """

    name: ClassVar[str] = "params"

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return the number of entries."""
        return float(param.numel())


@dataclass(frozen=True)
class MultiplyAdds(Size):
    """The multiply-adds of one example with the weights that are not zero, or with two factors where they are fewer.

    Args:
        goal: a share of the dense network's up to 1, a number above.
        uses: how often each weight's matrix is applied to one example, by parameter: 1 for linear layers, the number of
            output positions for convolutions; 1 where it is missing. See `metrics` for finding it.

    Example:
        >>> weight = torch.zeros(2, 3)
        >>> MultiplyAdds(0.5, {weight: 10}).entry(weight)
        10.0
    """

    uses: Mapping[Tensor, float] = field(default_factory=dict, compare=False)
    name: ClassVar[str] = "macs"

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return those of the dense weight."""
        return param.numel() * self.entry(param)

    def entry(self, param: Tensor) -> float:
        """Return how often each entry is used."""
        return float(self.uses.get(param, 1.0))


@dataclass(frozen=True)
class Bytes(Size):
    """The bytes that hold all weights: groups and factors by value, single weights with an index beside each.

    Args:
        goal: a share of the dense network's up to 1, a number above.
        index: bytes of an index, default 4.

    Example:
        >>> from torch_bregman.regularizers import L1
        >>> weight = torch.zeros(2, 3)
        >>> Bytes(100).rate(L1(), weight, weight).cost
        8.0
    """

    index: int = 4
    name: ClassVar[str] = "bytes"

    def whole(self, param: Tensor, regularizer: Regularizer) -> float:
        """Return those of the dense weight."""
        return param.numel() * self.entry(param)

    def entry(self, param: Tensor) -> float:
        """Return the bytes of a value."""
        return float(param.element_size())

    def rate(self, regularizer: Regularizer, v: Tensor, param: Tensor) -> Rated:
        """Return levels and costs, with an index for each single weight."""
        rated = super().rate(regularizer, v, param)
        single = not isinstance(regularizer, Nuclear) and len(rated.levels) == v.numel()
        return rated._replace(cost=rated.cost + self.index) if single else rated


def joint_groups(members: Sequence[Member]) -> Iterator[dict[str, Any]]:
    """Yield each group once whose weights share units."""
    for group, param in members:
        if group["regularizer"].joint and param is group["params"][0]:
            yield group


SIZES: dict[str, Callable[..., Size]] = {
    kind.name: kind for kind in (Density, Units, Rank, Parameters, MultiplyAdds, Bytes)
}


def same_ranks(size: Size, groups: Sequence[dict[str, Any]], beside: Sequence[Tensor]) -> list[Size]:
    """Return a rank for each group, so that all together meet a size; the same one, or one more where that still fits.

    A weight whose full rank is less has that. Nothing where a group has another norm than the nuclear one, or several
    weights.

    Args:
        size: what all together may have: stored numbers, multiply-adds or bytes.
        groups: of the optimizer, all that are steered.
        beside: further weights, which count.

    Raises:
        ValueError: for a size that is less than rank 1 in every weight.

    Example:
        >>> from torch_bregman.regularizers import Nuclear
        >>> groups = [{"regularizer": Nuclear(), "params": [torch.zeros(shape)]} for shape in ((4, 5), (5, 9))]
        >>> [rank.budget(rank_of) for rank, rank_of in zip(same_ranks(Parameters(32.0), groups, []), (4, 5))]
        [2, 1]
    """
    members = [counted(group) for group in groups]
    norms = [group["regularizer"] for group in groups]
    if not all(isinstance(norm, Nuclear) and len(each) == 1 for norm, each in zip(norms, members, strict=True)):
        return []
    weights = [each[0].detach() for each in members]
    full = [min(norm.matrix(weight).shape) for norm, weight in zip(norms, weights, strict=True)]
    costs = [size.directions(n, norm, w) for n, norm, w in zip(full, norms, weights, strict=True)]
    turns = sorted((turn, float(cost[turn]), which) for which, cost in enumerate(costs) for turn in range(len(cost)))
    always = sum(size.beside(param) for param in beside)
    budget = size.budget(sum(size.whole(w, norm) for w, norm in zip(weights, norms, strict=True)) + always)
    if (least := always + sum(float(cost[0]) for cost in costs)) > budget * (1 + ROUNDING):
        raise ValueError(
            f"a target of {size.name} {size.goal:g} cannot be met: it is {budget:,.10g}, and the least that keeps "
            f"rank 1 in every weight is {least:,.10g}: raise it"
        )
    spent = always + torch.cumsum(torch.tensor([cost for _, cost, _ in turns], dtype=torch.float64), 0)
    kept = [which for _, _, which in turns[: fitting(spent, budget)]]
    return [Rank(kept.count(which) / each) for which, each in enumerate(full)]
