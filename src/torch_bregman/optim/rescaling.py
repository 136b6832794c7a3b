"""The dual variable under another λ."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torch_bregman.regularizers.base import largest

_MODERATE = 8.0
"""Up to this λ_new/λ_old the rounding of v may be amplified."""
_UNMOVED = 1e-4
"""How far, relative to the largest weight, rounding may move θ when λ grows much in one go."""


def rescaled(v: Tensor, theta: Tensor, group: dict[str, Any], old: float, lam: float) -> Tensor:
    """Return θ/δ + (λ_new/λ_old)·(v − θ/δ), as far as the rounding of v lets θ be its image.

    Where θ alone says what p is, as for every weight that is awake under a norm of single weights or groups, p must not
    be read off rounding errors times λ_new/λ_old: those entries start afresh, and all do if even that is not enough.
    """
    regularizer, delta, ratio = group["regularizer"], group["delta"], lam / old if old else math.inf
    if ratio <= _MODERATE:
        return v * ratio + theta * ((1 - ratio) / delta)
    fresh = regularizer.inverse_mirror(theta, delta, lam=lam)
    if ratio < 1 / torch.finfo(v.dtype).eps and regularizer.deterministic:
        scaled = v * ratio + theta * ((1 - ratio) / delta)
        memory = (theta == 0) | ((scaled - fresh).abs() > ratio * rounding(v))
        mixed = torch.where(memory, scaled, fresh)
        for dual in (mixed, scaled):
            moved = regularizer.mirror(dual, delta, lam=lam).sub_(theta)
            if largest(moved.abs()) <= _UNMOVED * largest(theta.abs()) + delta * rounding(dual):
                return dual
    return fresh


def rounding(v: Tensor) -> Tensor:
    """Return a generous bound on what v and its image may be off by."""
    return 64 * torch.finfo(v.dtype).eps * largest(v.abs())
