"""The learning rate of methods that train, cut, and train on."""

from __future__ import annotations

import math

from torch.optim import Optimizer, lr_scheduler


def two_phases(
    optimizer: Optimizer, steps: int, at: float, *, floor: float = 0.0, again: float = 1.0
) -> lr_scheduler.LambdaLR:
    """Return a schedule, one step a training step: by cosine to a floor, then anew by cosine to 0.

    Args:
        optimizer: whose learning rate it moves.
        steps: of the whole training.
        at: share of them in the first phase.
        floor: share of the learning rate at its end, default 0.
        again: share of the learning rate with which the second starts, default 1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule, seen = two_phases(optimizer, 4, at=0.5, floor=0.1, again=0.5), []
        >>> for _ in range(4):
        ...     seen.append(round(optimizer.param_groups[0]["lr"], 3))
        ...     optimizer.step()
        ...     schedule.step()
        >>> seen
        [1.0, 0.55, 0.5, 0.25]
    """
    end = max(1, round(at * steps))

    def factor(step: int) -> float:
        if step >= end:
            return again * _falling((step - end) / max(steps - end, 1))
        return floor + (1 - floor) * _falling(step / end)

    return lr_scheduler.LambdaLR(optimizer, factor)


def _falling(share: float) -> float:
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
