"""The backward pass in which the dual variable of a low-rank layer moves."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Moves(Protocol):
    """What holds a dual variable."""

    def move(self, dy: Tensor, x: Tensor) -> None:
        """Take V ← V − τ dyᵀx."""


class MoveDual(torch.autograd.Function):
    """y = (x Rᵀ) L + b; its backward pass moves V by dyᵀx, and returns ∂x = (∂y Lᵀ) R and ∂b.

    No thin product of the forward pass is kept, only x and the factors.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, left: Tensor, right: Tensor, bias: Tensor | None, anchor: Tensor, layer: Moves
    ) -> Tensor:
        """Return y."""
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, left, right)
        ctx.layer, ctx.shape = layer, x.shape
        thin = (right @ flat.mT).mT  # thin factors first: up to twice as fast as flat @ right.mT on a CPU
        y = thin @ left if bias is None else torch.addmm(bias, thin, left)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's doing
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Move V; return the gradients of input and bias."""
        (dy,) = grad_outputs
        device = dy.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return _backward(ctx, dy)
        return _backward(ctx, dy)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, left, right = ctx.saved_tensors
    dy = dy.reshape(-1, dy.shape[-1])
    ctx.layer.move(dy, x)
    dx = ((left @ dy.mT).mT @ right).view(ctx.shape) if ctx.needs_input_grad[0] else None
    return dx, None, None, dy.sum(0) if ctx.needs_input_grad[3] else None, None, None
