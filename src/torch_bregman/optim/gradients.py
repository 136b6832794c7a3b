"""Gradients in the form torch's functional updates need, the live ones untouched; and when a step stands still."""

from __future__ import annotations

import torch
from torch import Tensor


def matching(grad: Tensor, like: Tensor) -> Tensor:
    """Return a gradient in the dtype and memory layout of what it moves; itself where it fits, and never written to.

    torch's fused kernels on a CPU read the memory in order and never look at the strides.

    Raises:
        RuntimeError: for a sparse gradient.
    """
    if grad.layout is not torch.strided:
        raise RuntimeError("sparse gradients are not supported: build the embedding with sparse=False")
    if grad.dtype is not like.dtype:
        grad = grad.to(like.dtype)
    if (grad.is_contiguous() and like.is_contiguous()) or grad.stride() == like.stride():
        return grad
    return torch.empty_like(like).copy_(grad)


def is_dense(param: Tensor) -> bool:
    """Return whether the entries fill a piece of memory, in whatever order; false for slices of a larger tensor."""
    return param.is_contiguous() or torch.empty_like(param).stride() == param.stride()


def stands_still(lr: float | Tensor) -> bool:
    """Return whether τ = 0; not asked of a tensor that a device, or the compiler, would have to stop for."""
    if isinstance(lr, Tensor):
        return lr.is_cpu and not torch.compiler.is_compiling() and float(lr) == 0
    return lr == 0


def spared(grads: list[Tensor], *, nesterov: bool | None, foreach: bool | None, fused: bool | None) -> list[Tensor]:
    """Return gradients that torch's SGD may write to: its foreach path adds Nesterov's buffer into them."""
    loop = not foreach and (foreach is not None or fused is not None or grads[0].is_cpu)
    return grads if loop or not nesterov else [grad.clone() for grad in grads]
