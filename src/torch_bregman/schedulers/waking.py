"""How close sleeping weights are to waking, and when each of them woke."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.optim import MirrorOptimizer, RegularizedOptimizer
from torch_bregman.regularizers import NoRegularizer
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.watched import dual


@torch.no_grad()
def waking_scores(optimizer: MirrorOptimizer, param: Tensor) -> Tensor:
    """Return level/λ of everything that sleeps and wakes by itself: asleep below 1, and the sooner awake the closer.

    Args:
        optimizer: a Bregman optimizer.
        param: a weight of it under a regulariser.

    Returns:
        Scores ≥ 0 in the shape of `Regularizer.levels`: of entries, groups, or singular directions.

    Raises:
        ValueError: for a parameter that is not in the optimizer, has no regulariser, or λ = 0.

    Example:
        >>> import torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(1.0))
        >>> weight.grad = torch.tensor([5.0, -20.0])
        >>> optimizer.step()
        >>> waking_scores(optimizer, weight), weight.detach() != 0
        (tensor([0.5000, 2.0000]), tensor([False,  True]))
    """
    group = next((g for g in optimizer.param_groups if any(param is p for p in g["params"])), None)
    if group is None:
        raise ValueError(f"a tensor of shape {tuple(param.shape)} is no parameter of this optimizer")
    if not group["lam"] > 0:
        raise ValueError("with lam = 0 nothing sleeps, so that nothing is close to waking")
    return group["regularizer"].levels(dual(optimizer, group, param)) / float(group["lam"])


class EntryTimes(Schedule):
    """Notes at which step each weight was first seen other than zero; call `step` after each step of training.

    Args:
        optimizer: any of this library; weights of 2 or more dimensions under a regulariser are looked at.
        every: steps between two looks, default 10; one pass over the weights each.

    Raises:
        ValueError: for `every` below 1.

    Example:
        >>> import torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0, 0.0]]))
        >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(1.0))
        >>> times = EntryTimes(optimizer, every=1)
        >>> for _ in range(3):
        ...     weight.grad = torch.tensor([[0.0, -4.0, 0.0]])
        ...     optimizer.step()
        ...     times.step()
        >>> times.of(weight)
        tensor([[ 0,  3, -1]], dtype=torch.int32)
    """

    saved: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(self, optimizer: RegularizedOptimizer, every: int = 10) -> None:
        super().__init__(optimizer)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a whole number of steps >= 1, got {every!r}")
        self.every = every
        found = [
            (param, name)
            for group in optimizer.param_groups
            if not isinstance(group["regularizer"], NoRegularizer)
            for param, name in zip(
                group["params"], group.get("param_names", ()) or [""] * len(group["params"]), strict=True
            )
            if param.ndim >= 2
        ]
        self.params = [param for param, _ in found]
        self.names = [name or str(number) for number, (_, name) in enumerate(found)]
        self.times = [torch.where(param != 0, 0, -1).int() for param in self.params]

    def _act(self, metric: float | None) -> None:
        if self.steps % self.every == 0:
            for param, times in zip(self.params, self.times, strict=True):
                times.masked_fill_((times < 0) & (param != 0), self.steps)

    def of(self, param: Tensor) -> Tensor:
        """Return the step at which each entry woke: 0 at the start, −1 never.

        Raises:
            ValueError: for a parameter that is not looked at.
        """
        for each, times in zip(self.params, self.times, strict=True):
            if each is param:
                return times
        raise ValueError(f"a tensor of shape {tuple(param.shape)} has no entry times: it has no regularizer here")

    def state_dict(self) -> dict[str, Any]:
        """Return steps, times, and the names of the weights where the groups have them."""
        names = dict(zip(map(str, range(len(self.names))), self.names, strict=True))
        return {**super().state_dict(), "names": names, "times": {str(i): t for i, t in enumerate(self.times)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        for i, times in enumerate(self.times):
            times.copy_(state_dict["times"][str(i)])
