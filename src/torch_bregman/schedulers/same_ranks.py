"""One rank for all layers, by what all of them may cost together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_bregman.regularizers import Nuclear
from torch_bregman.schedulers.quantile import ROUNDING, fitting
from torch_bregman.schedulers.size import Size, counted


def same_ranks(size: Size, groups: Sequence[dict[str, Any]], beside: Sequence[Tensor]) -> list[float]:
    """Return a rank for each group, so that all together meet a size; the same one, or one more where that still fits.

    Ranks are shares of the full ones, and a weight whose full rank is less has that. Nothing where a group has another
    norm than the nuclear one, or several weights.

    Args:
        size: what all together may have: stored numbers, multiply-adds or bytes.
        groups: of the optimizer, all that are steered.
        beside: further weights, which count.

    Raises:
        ValueError: for a size that is less than rank 1 in every weight.

    Example:
        >>> from torch_bregman.schedulers import Parameters
        >>> groups = [{"regularizer": Nuclear(), "params": [torch.zeros(shape)]} for shape in ((4, 5), (5, 9))]
        >>> same_ranks(Parameters(32.0), groups, [])
        [0.5, 0.2]
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
    return [kept.count(which) / each for which, each in enumerate(full)]
