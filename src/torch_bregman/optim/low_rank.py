"""Thresholding the singular values of a weight step after step: an engine and the factors are kept in its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bregman.distributed.sharded import gathered
from torch_bregman.regularizers import Nuclear, Regularizer
from torch_bregman.views import get_view

State = dict[str, Any]
_PLAIN = (Tensor, torch.nn.Parameter)


def threshold_into(
    regularizer: Nuclear, xs: list[Tensor], threshold: float, delta: float, outs: list[Tensor], states: list[State]
) -> None:
    """Write δ·SVT_{tw}(X) of every weight, and keep its factors in its state.

    Engines without memory are given all matrices of one shape as one batch.

    Args:
        regularizer: the nuclear norm, which says how a weight becomes a matrix.
        xs: what is thresholded; may be `outs`.
        threshold: t ≥ 0.
        delta: δ > 0.
        outs: the weights.
        states: of the weights; get "left" and "right" with W = leftᵀ·right, and "engine" where it has a memory.
    """
    if threshold == 0:  # as it is: factors are for those who ask
        for x, out, state in zip(xs, outs, states, strict=True):
            forget(state)
            torch.mul(x, delta, out=out) if delta != 1 else out.copy_(x)
        return
    matrices = [regularizer.matrix(x) for x in xs]
    for (left, right), out, state in zip(find(regularizer, matrices, threshold, states), outs, states, strict=True):
        write(regularizer, left, right, delta, out, state)


def find(
    regularizer: Nuclear, matrices: list[Tensor], threshold: float, states: list[State]
) -> list[tuple[Tensor, Tensor]]:
    """Return the factors of SVT_{tw} of every matrix; an engine with a memory is kept in the state of its weight."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for members in _alike(matrices):
        engine = regularizer.batch_engine(matrices[members[0]].device) if len(members) > 1 else None
        if engine is None:
            for i in members:
                own = states[i].get("engine")
                if own is None:
                    own = states[i]["engine"] = regularizer.new_engine()
                result = regularizer.threshold(matrices[i], threshold, own)
                found[i] = result.left, result.right
        else:
            result = regularizer.threshold(torch.stack([matrices[i] for i in members]), threshold, engine)
            for number, i in enumerate(members):
                kept = result.values[number] > result.threshold
                found[i] = result.left[number, kept], result.right[number, kept]
    return [found[i] for i in range(len(matrices))]


def _alike(matrices: list[Tensor]) -> list[list[int]]:
    """Return the indices of matrices that can stand in one batch."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        found.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(index)
    return list(found.values())


def write(regularizer: Nuclear, left: Tensor, right: Tensor, delta: float, out: Tensor, state: State) -> None:
    """Set a weight to δ·LᵀR, and keep the factors in its state."""
    left = left if delta == 1 else left * delta
    state["left"], state["right"] = left, right
    place = regularizer.matrix(out) if type(out) in _PLAIN else None
    if place is not None and _is_same_memory(place, out) and left.dtype is out.dtype:
        torch.mm(left.mT, right, out=place)  # no temporary as large as the weight, and one pass less
    else:
        out.copy_(regularizer.restore(left.mT @ right, out))


def _is_same_memory(matrix: Tensor, param: Tensor) -> bool:
    return matrix.is_contiguous() and matrix.numel() > 0 and matrix.data_ptr() == param.data_ptr()


def image(regularizer: Nuclear, state: State, like: Tensor) -> Tensor | None:
    """Return the weight that was written last, or None where its factors are not at hand."""
    if "left" not in state:
        return None
    return regularizer.restore(state["left"].mT @ state["right"], like)


def exact_factors(regularizer: Regularizer, param: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of a weight, to its numerical rank, by a full decomposition."""
    view = get_view(regularizer.view if isinstance(regularizer, Nuclear) else "rows")
    matrix = view.matrix(gathered(param.detach()))
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
