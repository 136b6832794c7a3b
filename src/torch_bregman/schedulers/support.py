"""Which weights are kept for good, exactly as many as a target allows, and how their support is held."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import Nuclear
from torch_bregman.schedulers.quantile import Rated, fitting
from torch_bregman.schedulers.watched import Group, Watched, dual, duals


def kept_levels(watched: Watched, number: int, budget: float) -> list[Tensor]:
    """Return for each weight which of its levels are kept: the highest ones, exactly as many as the budget allows.

    Every weight keeps its highest level where the budget is enough for that: a layer without any would cut the network
    in two. Among equal levels the first are kept.
    """
    kept = _highest(watched.rated(number, firsts=True), budget)
    return kept if all(each.any() or not len(each) for each in kept) else _highest(watched.rated(number), budget)


def _highest(rated: list[Rated], budget: float) -> list[Tensor]:
    levels = torch.cat([each.levels.double().cpu() for each in rated])
    costs = [torch.as_tensor(each.cost, dtype=torch.float64).cpu().expand(len(each.levels)) for each in rated]
    order = levels.argsort(descending=True, stable=True)
    count = fitting(torch.cumsum(torch.cat(costs)[order], 0), budget)
    kept = torch.zeros(len(levels), dtype=torch.bool)
    kept[order[:count]] = True
    parts = kept.split([len(each.levels) for each in rated])
    return [part.to(each.levels.device) for part, each in zip(parts, rated, strict=True)]


def kept_entries(watched: Watched) -> list[Tensor | int]:
    """Return for each weight the mask of what is kept, or the rank under a nuclear norm; all targets are met.

    Without a target it is what is awake.
    """
    members, optimizer = list(watched.members()), watched.optimizer
    found: list[Tensor | int] = [
        min(group["regularizer"].matrix(param).shape) if isinstance(group["regularizer"], Nuclear) else param == param
        for _, group, param in members
    ]
    shared: list[Tensor] = []
    for number, budget in enumerate(watched.budgets()):
        for i, kept in enumerate(kept_levels(watched, number, budget)):
            _, group, param = members[i]
            mine = found[i]
            if group["regularizer"].joint:
                if param is group["params"][0]:
                    shared = _joint_entries(optimizer, group, kept)
                place = next(n for n, each in enumerate(group["params"]) if each is param)
                found[i] = mine & shared[place]
            elif isinstance(mine, int):
                found[i] = min(mine, int(kept.sum()))
            else:
                v = dual(optimizer, group, param)
                found[i] = mine & watched.sizes[number].entries(kept, group["regularizer"], v)
    return found


def _joint_entries(optimizer: RegularizedOptimizer, group: Group, kept: Tensor) -> list[Tensor]:
    """Return the masks of tensors that share units: what belongs to those kept, and to none."""
    regularizer, vs = group["regularizer"], duals(optimizer, group)
    own, every = regularizer.spread_all(kept, vs), regularizer.spread_all(torch.ones_like(kept), vs)
    return [mask | ~unit for mask, unit in zip(own, every, strict=True)]


def awake(watched: Watched) -> list[Tensor | int]:
    """Return for each weight the mask of what is not zero, or its rank under a nuclear norm."""
    return [
        len(watched.optimizer.factors(param)[0]) if isinstance(group["regularizer"], Nuclear) else param != 0
        for _, group, param in watched.members()
    ]


class Support:
    """A weight that is zero off a mask, for good.

    Args:
        param: the weight.
        mask: of its shape, true where it may be other than zero.
    """

    def __init__(self, param: Tensor, mask: Tensor) -> None:
        self.param, self.mask = param, mask

    @torch.no_grad()
    def clear(self, optimizer: RegularizedOptimizer, group: Group) -> None:
        """Set all off the mask to 0, the momentum too; what the mask adds to what is awake wakes."""
        missing = self.mask & (self.param == 0)
        if missing.any():
            self._wake(missing, optimizer, group)
        self.param.mul_(self.mask)
        for name, value in optimizer.state.get(self.param, {}).items():
            if name != "subgrad" and isinstance(value, Tensor) and value.shape == self.param.shape:
                value.mul_(self.mask)

    def _wake(self, missing: Tensor, optimizer: RegularizedOptimizer, group: Group) -> None:
        """Set what sleeps on the mask to what it would be under a λ that is just small enough."""
        regularizer, delta = group["regularizer"], float(group.get("delta", 1.0))
        if regularizer.joint:
            vs = duals(optimizer, group)
            place = next(n for n, each in enumerate(group["params"]) if each is self.param)
            own = regularizer.spread_all(regularizer.levels_all(vs), vs)[place]
            image = regularizer.mirror_all(vs, delta, lam=self._lam(own, missing, group))[place]
        else:
            v = dual(optimizer, group, self.param)
            own = regularizer.spread(regularizer.levels(v), v)
            image = regularizer.mirror(v, delta, lam=self._lam(own, missing, group))
        self.param.copy_(torch.where(missing, image.to(self.param.dtype), self.param))

    def _lam(self, own: Tensor, missing: Tensor, group: Group) -> float:
        lam = float(own[~self.mask].max()) if bool((~self.mask).any()) else 0.0
        return min(lam, float(group["lam"]), float(own[missing].min()) * 0.999)

    def hold(self) -> None:
        """From now on, mask every gradient."""
        self.param.register_hook(partial(_masked, self.mask))

    def state(self) -> dict[str, Any]:
        """Return the mask."""
        return {"mask": self.mask}


def _masked(mask: Tensor, grad: Tensor) -> Tensor:
    return grad * mask
