"""The C program of a step, called with tensors."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from torch_bregman.optim.base import Group
from torch_bregman.optim.gradients import is_dense
from torch_bregman.optim.mirror import Batch
from torch_bregman.optim.native.build import load
from torch_bregman.regularizers import L1, ElasticNet, GroupL2, NonNegativeL1, NoRegularizer, Regularizer
from torch_bregman.views import View

SGD, ADAM = 0, 1
_SCALE, _SOFT, _POSITIVE, _GROUPS = range(4)
_MIRRORS: dict[type[Regularizer], int] = {
    NoRegularizer: _SCALE,
    L1: _SOFT,
    NonNegativeL1: _POSITIVE,
    ElasticNet: _SOFT,
    GroupL2: _GROUPS,
}

_PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})
_POSIX = os.name == "posix"
_STREAMED = 1 << 20
"""Entries of a step from which on θ is written past the caches, which could not hold it until it is read again."""
_SHARE = 1 << 18
"""Entries from which on a thread of its own pays."""
_LINE = 16
"""Entries of a cache line, which two threads should not write to at once."""

Piece = tuple[Any, ...]
"""Addresses of dual, gradient, θ and up to three states; number of groups and their size; τ, and Adam's root."""
_LAYOUT = "6P2N2f"
"""`struct piece` of the C program."""


class Numbers(ctypes.Structure):
    """`struct numbers` of the C program: what all weights of a group share."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("update", "mirror", "nesterov", "weighted", "stream")),
        *((name, ctypes.c_float) for name in ("sign", "momentum", "gain", "beta1", "gain1", "beta2", "gain2", "eps")),
        *((name, ctypes.c_float) for name in ("decay", "before", "threshold", "after")),
    )


def fits(regularizer: Regularizer, param: Tensor) -> bool:
    """Return whether the program can take the step of a weight: float32 on a CPU, every group one piece of memory."""
    return (
        _POSIX
        and type(regularizer) in _MIRRORS
        and type(param) in _PLAIN
        and param.dtype is torch.float32
        and param.is_cpu
        and is_dense(param)
        and (type(regularizer) is not GroupL2 or _group_size(regularizer.view, param.shape, param.stride()) > 0)
    )


def split(batch: Batch, states: list[list[Tensor]]) -> tuple[list[int], list[int]]:
    """Return the places in a batch of the weights that the program can step, and of all others."""
    regularizer, own, rest = batch.group["regularizer"], [], []
    for place, (param, grad, *tensors) in enumerate(zip(batch.params, batch.grads, batch.duals, *states, strict=True)):
        sound = fits(regularizer, param) and type(grad) in _PLAIN and not grad.is_neg()
        (own if sound and _lie_alike(param, [grad, *tensors]) else rest).append(place)
    return own, rest


def _lie_alike(param: Tensor, tensors: list[Tensor]) -> bool:
    """Return whether the memory of all tensors may be walked through side by side."""
    contiguous, entries = param.is_contiguous(), param.numel()
    for tensor in tensors:
        if tensor.dtype is not torch.float32 or not tensor.is_cpu or tensor.numel() != entries:
            return False
        if not (contiguous and tensor.is_contiguous()) and tensor.stride() != param.stride():
            return False
    return True


@functools.lru_cache(maxsize=4096)
def _group_size(view: View, shape: torch.Size, stride: tuple[int, ...]) -> int:
    """Return the entries of a group, 0 where groups are no pieces of memory."""
    laid_out, inner = view.groups(torch.empty_strided(shape, stride, device="meta"))
    size = math.prod([laid_out.shape[d] for d in inner])
    outer = [laid_out.stride(d) for d in range(laid_out.ndim) if d not in inner and laid_out.shape[d] > 1]
    if laid_out.numel() == 0:
        return 1
    return size if min(outer, default=size) >= size else 0


def step(
    batch: Batch, states: list[list[Tensor]], rates: Sequence[float], roots: Sequence[float], **numbers: Any
) -> None:
    """Move the duals of a batch and map them back, both in place, on torch's number of threads.

    Args:
        batch: weights that `split` found fit, at least one.
        states: lists of what else a step changes: momentum buffers; or the means of g and g², and the largest of these.
        rates: τ of every weight, for Adam τ/(1 − β₁ᵗ).
        roots: 1/√(1 − β₂ᵗ) of every weight; only Adam reads them.
        numbers: fields of `Numbers` that belong to the update.
    """
    program, pieces = _program(), _pieces(batch, states, rates, roots)
    entries = sum([piece[6] * piece[7] for piece in pieces])
    constants = Numbers(stream=entries >= _STREAMED, **numbers, **_mirror_numbers(batch.group))
    count = max(1, min(torch.get_num_threads(), entries // _SHARE))
    shares = [(program, constants, _share(pieces, number, count)) for number in range(count)]
    threads = [threading.Thread(target=_take, args=share) for share in shares[1:]]
    for thread in threads:
        thread.start()
    _take(*shares[0])
    for thread in threads:
        thread.join()
    increment_version([*batch.duals, *batch.params, *itertools.chain(*states)])


@functools.cache
def _program() -> Any:
    function = load().torch_bregman_step
    function.argtypes = ctypes.POINTER(Numbers), ctypes.c_char_p, ctypes.c_size_t
    function.restype = None
    return function


def _take(program: Any, constants: Numbers, pieces: list[Piece]) -> None:
    program(constants, _layout(len(pieces)).pack(*itertools.chain(*pieces)), len(pieces))


@functools.lru_cache(maxsize=256)
def _layout(count: int) -> struct.Struct:
    return struct.Struct(_LAYOUT * count)


def _mirror_numbers(group: Group) -> dict[str, Any]:
    regularizer, delta, lam = group["regularizer"], float(group["delta"]), float(group["lam"])
    shared = {"mirror": _MIRRORS[type(regularizer)], "decay": float(group["lr"]) * group["weight_decay"]}
    if type(regularizer) is ElasticNet:
        strength, ratio = delta * lam, regularizer.l1_ratio
        return {**shared, "before": delta, "threshold": strength * ratio, "after": 1 / (1 + strength * (1 - ratio))}
    weighted = type(regularizer) is GroupL2 and regularizer.weighted
    return {**shared, "before": 1.0, "threshold": lam, "after": delta, "weighted": weighted}


def _pieces(batch: Batch, states: list[list[Tensor]], rates: Sequence[float], roots: Sequence[float]) -> list[Piece]:
    regularizer, missing = batch.group["regularizer"], (0,) * (3 - len(states))
    view = regularizer.view if type(regularizer) is GroupL2 else None
    pieces = []
    for param, dual, grad, rate, root, *others in zip(
        batch.params, batch.duals, batch.grads, rates, roots, *states, strict=True
    ):
        size = _group_size(view, param.shape, param.stride()) if view is not None else 1
        image = 0 if dual is param else param.data_ptr()
        places = [tensor.data_ptr() for tensor in others]
        pieces.append(
            (dual.data_ptr(), grad.data_ptr(), image, *places, *missing, param.numel() // size, size, rate, root)
        )
    return pieces


def _share(pieces: list[Piece], number: int, count: int) -> list[Piece]:
    """Return one of `count` about equal shares of every piece."""
    return pieces if count == 1 else [_cut(piece, number, count) for piece in pieces]


def _cut(piece: Piece, number: int, count: int) -> Piece:
    *places, groups, size, rate, root = piece
    unit = _LINE if size == 1 else 1
    units = -(-groups // unit)
    first, last = (min(groups, units * n // count * unit) for n in (number, number + 1))
    return (*(place and place + 4 * size * first for place in places), last - first, size, rate, root)
