"""A matrix on a fixed support: products with it and its transpose, and its gradient on the support alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PIECE = 1 << 16
"""Entries whose search stays in the cache."""

Seen = Callable[[Tensor, Tensor], None]
"""Told of ∂y (out × batch) and x (in × batch) in a backward pass."""


class SupportMatrix:
    """W (out × in) on a fixed support, for activations of shape features × batch: the order that is fast on a CPU.

    W and Wᵀ are kept in compressed sparse rows with int32 indices. Whoever changes `values` in place changes W; Wᵀ
    follows when it is needed.

    Args:
        flat: rising positions of the entries in W, row by row.
        values: the entries; the matrix shares their memory.
        shape: out, in.

    Example:
        >>> matrix = SupportMatrix(torch.tensor([1, 2]), torch.tensor([2.0, 3.0]), (2, 2))
        >>> matrix.matmul(torch.eye(2)).tolist()
        [[0.0, 2.0], [3.0, 0.0]]
    """

    def __init__(self, flat: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.flat, self.values, self.shape = flat, values, shape
        rows, columns = flat // shape[1], flat % shape[1]
        pattern = _starts(rows, shape[0]), columns.int()
        self._matrix = _csr(*pattern, values, shape)
        self._gradient = _csr(*pattern, torch.zeros_like(values), shape)
        self._transpose: tuple[Tensor, Tensor] | None = None

    def matmul(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return W x for x of in × batch, added to `out` in place where that is given."""
        return self._matrix @ x if out is None else out.addmm_(self._matrix, x)

    def transposed_matmul(self, dy: Tensor, out: Tensor | None = None) -> Tensor:
        """Return Wᵀ ∂y for ∂y of out × batch, in `out` where that is given."""
        matrix = self._transposed_now()
        return matrix @ dy if out is None else torch.addmm(out, matrix, dy, beta=0.0, out=out)

    def linear(self, x: Tensor, bias: Tensor | None, relu: bool, out: Tensor) -> Tensor:
        """Return W x + b in `out`, or max(0, ·) of it."""
        self.matmul(x, out=out.zero_() if bias is None else out.copy_(bias[:, None]))
        return out.relu_() if relu else out

    def before_relu(self, dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient before y = max(0, ·), in the memory of y, and the sums of its rows."""
        torch.ops.aten.threshold_backward.grad_input(dy, y, 0, grad_input=y)
        return y, y.sum(1)

    def _transposed_now(self) -> Tensor:
        if self._transpose is None:
            self._transpose = self._transposed()
        order, matrix = self._transpose
        torch.index_select(self.values, 0, order, out=matrix.values())
        return matrix

    def _transposed(self) -> tuple[Tensor, Tensor]:
        """Return where in `values` each entry of Wᵀ is, and Wᵀ; a conversion that carries positions sorts them."""
        crow, column = self._matrix.crow_indices(), self._matrix.col_indices()
        positions = torch.arange(len(self.values), dtype=torch.float64, device=self.values.device)
        columns = _csr(crow, column, positions, self.shape).to_sparse_csc()
        start, row = columns.ccol_indices().int(), columns.row_indices().int()
        out = torch.empty_like(self.values)
        return columns.values().long(), _csr(start, row, out, (self.shape[1], self.shape[0]))

    def gradient(self, dy: Tensor, x: Tensor) -> Tensor:
        """Return the entries of ∂y xᵀ on the support, in memory that the next call takes again."""
        torch.sparse.sampled_addmm(self._gradient, dy, x.t(), beta=0.0, out=self._gradient)
        return self._gradient.values()

    @staticmethod
    def above(v: Tensor, lam: float) -> Tensor:
        """Return the rising positions of |v| > λ in a flat tensor."""
        found = [(v[i : i + _PIECE].abs() > lam).nonzero().view(-1).add_(i) for i in range(0, len(v), _PIECE)]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.long, device=v.device)

    def to_dense(self) -> Tensor:
        """Return W as a dense matrix."""
        dense = self.values.new_zeros(self.shape)
        dense.view(-1)[self.flat] = self.values
        return dense


def _starts(rows: Tensor, count: int) -> Tensor:
    starts = torch.zeros(count + 1, dtype=torch.int32, device=rows.device)
    starts[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return starts


def _csr(crow: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format beta
        return torch.sparse_csr_tensor(crow, column, values, shape, check_invariants=False)


class Workspace:
    """Memory for the activations and gradients of one layer, taken again at every step.

    Fresh memory of this size comes from the system page by page, which costs as much as the sparse products do.

    Args:
        shape: out, in of the layer.
        dtype: of its activations.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self._shape, self._dtype, self._batch = shape, dtype, -1

    def fit(self, batch: int) -> None:
        """Make room for a batch."""
        if batch != self._batch:
            self.y, self.dx = (torch.empty(size, batch, dtype=self._dtype) for size in self._shape)
            self._batch = batch


class SupportLinear(torch.autograd.Function):
    """y = W x + b, and ReLU of it if asked for; the gradient of W on its support goes to a callback.

    The output lies in a workspace, and with ReLU its gradient will lie in the same memory: no other step, and no second
    backward pass, may come before its own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, anchor: Tensor, matrix: SupportMatrix, room: Workspace, options: Any
    ) -> Tensor:
        """Return y of out × batch.

        Args:
            ctx: of autograd.
            x: in × batch.
            bias: b, or None.
            anchor: requires a gradient, so that autograd comes by where neither x nor b do.
            matrix: W.
            room: for y and ∂x.
            options: whether to end in max(y, 0), and who is told of ∂y and x in the backward pass.
        """
        relu, seen = options
        room.fit(x.shape[1])
        y = matrix.linear(x, bias, relu, room.y.detach())
        ctx.save_for_backward(x, y if relu else None)
        ctx.matrix, ctx.room, ctx.seen = matrix, room, seen
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's doing
        """Return the gradients of x and bias."""
        x, y = ctx.saved_tensors
        dy, db = grad_outputs[0].contiguous(), None
        if y is not None:
            dy, db = ctx.matrix.before_relu(dy, ctx.room.y.detach())
        elif ctx.needs_input_grad[1]:
            db = dy.sum(1)
        ctx.seen(dy, x)
        dx = ctx.matrix.transposed_matmul(dy, out=ctx.room.dx.detach()) if ctx.needs_input_grad[0] else None
        return dx, db if ctx.needs_input_grad[1] else None, None, None, None, None
