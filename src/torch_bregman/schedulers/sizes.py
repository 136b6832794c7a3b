"""What is counted of a network: weights, units, ranks, stored numbers, multiply-adds, bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.regularizers import GroupL2, Nuclear, Regularizer, UnitL2
from torch_bregman.schedulers.quantile import Rated
from torch_bregman.schedulers.same_ranks import same_ranks
from torch_bregman.schedulers.size import Size
from torch_bregman.views import View, get_view


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


class Stored(Size):
    """A size of what is stored or used, to which several ranks add up.

    Under a nuclear norm each layer meets it by the same rank where each meets it by itself.
    """

    def apart(self, groups: Sequence[dict[str, Any]], beside: Sequence[Tensor]) -> list[Size]:
        """Return the same rank for each group where all are of low rank; see `same_ranks`."""
        return [Rank(share) for share in same_ranks(self, groups, beside)] or [self] * len(groups)


@dataclass(frozen=True)
class Parameters(Stored):
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
class MultiplyAdds(Stored):
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
class Bytes(Stored):
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


SIZES: dict[str, Callable[..., Size]] = {
    kind.name: kind for kind in (Density, Units, Rank, Parameters, MultiplyAdds, Bytes)
}
