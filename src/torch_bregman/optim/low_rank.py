"""Thresholding the singular values of a weight step after step: an engine and the factors are kept in its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bregman.regularizers import Nuclear, Regularizer
from torch_bregman.views import get_view

State = dict[str, Any]


def threshold_into(regularizer: Nuclear, x: Tensor, threshold: float, delta: float, out: Tensor, state: State) -> None:
    """Write δ·SVT_t(X) into `out`, and keep its factors in the state.

    Args:
        regularizer: the nuclear norm, which says how a weight becomes a matrix.
        x: what is thresholded; may be `out`.
        threshold: t ≥ 0.
        delta: δ > 0.
        out: the weight.
        state: gets "engine", "left" and "right" with W = leftᵀ·right.
    """
    if "engine" not in state:
        state["engine"] = regularizer.new_engine()
    result = regularizer.threshold(x, threshold, state["engine"])
    left = result.left if delta == 1 else result.left * delta
    state["left"], state["right"] = left, result.right
    out.copy_(get_view(regularizer.view).restore(left.mT @ result.right, out))


def image(regularizer: Nuclear, state: State, like: Tensor) -> Tensor | None:
    """Return the weight that was written last, or None where its factors are not at hand."""
    if "left" not in state:
        return None
    return get_view(regularizer.view).restore(state["left"].mT @ state["right"], like)


def exact_factors(regularizer: Regularizer, param: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of a weight, to its numerical rank, by a full decomposition."""
    view = get_view(regularizer.view if isinstance(regularizer, Nuclear) else "rows")
    matrix = view.matrix(param.detach())
    wide = matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
    U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
    rank = int((max(wide.shape) * torch.finfo(wide.dtype).eps * S.max() < S).sum()) if S.numel() else 0
    return (U[:, :rank] * S[:rank]).mT, Vh[:rank]


def pack(state: State) -> State:
    """Return the state with the engine as plain values."""
    return {**state, "engine": state["engine"].state()} if "engine" in state else state


def forget(state: State) -> None:
    """Drop engine and factors, which belong to a weight that is no more."""
    for key in ("engine", "left", "right"):
        state.pop(key, None)
