"""Which entries are awake, together with the groups they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_bregman.regularizers import GroupL2, Regularizer, SparseGroup, UnitL2


def supports(regularizer: Regularizer, params: Sequence[Tensor]) -> list[Tensor]:
    """Return the masks of all that is not zero, of whole groups; slices that belong to no group count as awake.

    Args:
        regularizer: of the parameters.
        params: as many as it takes together, else any number.

    Example:
        >>> supports(GroupL2(view="rows"), [torch.tensor([[1.0, 0.0], [0.0, 0.0]])])
        [tensor([[ True,  True],
                [False, False]])]
    """
    if not isinstance(regularizer, UnitL2):
        return [regularizer.coupled(param.detach() != 0) for param in params]
    return [mask for together in _apart(regularizer, params) for mask in _units(regularizer, together)]


def _apart(regularizer: UnitL2, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the tensors that are one argument: all of them, or each by itself."""
    return [list(tensors)] if regularizer.joint else [[tensor] for tensor in tensors]


def _units(regularizer: UnitL2, params: Sequence[Tensor]) -> list[Tensor]:
    masks = regularizer.coupled_all([param.detach() != 0 for param in params])
    return [mask | free for mask, free in zip(masks, _free(regularizer, params), strict=True)]


def _free(regularizer: UnitL2, params: Sequence[Tensor]) -> list[Tensor]:
    """Return the masks of what belongs to no unit."""
    of_units = torch.ones_like(regularizer.levels_all([param.detach() for param in params]))
    return [each == 0 for each in regularizer.spread_all(of_units, params)]


def clip_woken(
    regularizer: Regularizer, duals: Sequence[Tensor], awake: Sequence[Tensor], lam: float, clip: float
) -> None:
    """Shorten the duals of groups that have been asleep to clip·λ·w, in place; single entries are left alone."""
    if not has_groups(regularizer) or not lam:
        return
    rules: Any = regularizer
    if isinstance(regularizer, UnitL2):
        parts = _apart(regularizer, duals)
        spread = [each for vs in parts for each in regularizer.spread_all(regularizer.levels_all(vs), vs)]
    else:
        spread = [rules.spread(rules.levels(dual), dual) for dual in duals]
    for dual, levels, mask in zip(duals, spread, awake, strict=True):
        scale = (clip * lam / levels).clamp_max(1.0).to(dual.dtype)
        dual.mul_(torch.where(mask, 1.0, scale))


def has_groups(regularizer: Regularizer) -> bool:
    """Return whether entries sleep and wake in groups."""
    return isinstance(regularizer, (GroupL2, UnitL2, SparseGroup))
