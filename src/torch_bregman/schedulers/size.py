"""A size of a network: what it may have in all, and what one of its weights, units or directions adds to that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from torch_bregman.regularizers import Nuclear, Regularizer, UnitL2
from torch_bregman.schedulers.quantile import Rated

Member: TypeAlias = tuple[dict[str, Any], Tensor]
"""A weight, and the group of the optimizer that it is in."""


def counted(group: dict[str, Any]) -> list[Tensor]:
    """Return the parameters of a group of the optimizer that sizes count: weights, and what shares units with them."""
    return [p for p in group["params"] if (p.ndim >= 2 or group["regularizer"].joint) and p.numel()]


def joint_groups(members: Sequence[Member]) -> Iterator[dict[str, Any]]:
    """Yield each group once whose weights share units."""
    for group, param in members:
        if group["regularizer"].joint and param is group["params"][0]:
            yield group


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
        """Return what each group has to meet where each meets the target by itself: the same.

        Args:
            groups: of the optimizer, all that are steered.
            beside: further weights.
        """
        return [self] * len(groups)

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
