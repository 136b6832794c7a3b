"""A matrix on a fixed support whose products are taken by a C program."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from torch_bregman.layers.support import SupportMatrix
from torch_bregman.optim.native.build import load

_PIECE = 1 << 20
SOURCE = Path(__file__).with_name("products.c")


class NativeSupportMatrix(SupportMatrix):
    """`SupportMatrix` of float32 on a CPU, in one thread. Sums are taken in another order than by torch.

    Args:
        flat: rising positions of the entries in W, row by row.
        values: the entries, float32; the matrix shares their memory.
        shape: out, in.

    Raises:
        CompilerError: where there is no C compiler, or it fails.
    """

    def __init__(self, flat: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        super().__init__(flat, values, shape)
        self._program = program()
        self._out = self._gradient.values()

    def matmul(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return W x for x of in × batch, added to `out` in place where that is given."""
        y = x.new_zeros(self.shape[0], x.shape[1]) if out is None else out
        return self._multiply(self._matrix, x, y)

    def transposed_matmul(self, dy: Tensor, out: Tensor | None = None) -> Tensor:
        """Return Wᵀ ∂y for ∂y of out × batch, in `out` where that is given."""
        matrix = self._transposed_now()
        return self._multiply(matrix, dy, dy.new_zeros(self.shape[1], dy.shape[1]) if out is None else out.zero_())

    def linear(self, x: Tensor, bias: Tensor | None, relu: bool, out: Tensor) -> Tensor:
        """Return W x + b in `out`, or max(0, ·) of it; in one pass."""
        return self._multiply(self._matrix, x, out if bias is not None else out.zero_(), bias, relu)

    def before_relu(self, dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient before y = max(0, ·), in the memory of y, and the sums of its rows; in one pass."""
        sums = y.new_empty(len(y))
        self._program.before_relu(*_address(dy, y, y, sums), *y.shape)
        increment_version(y)
        return y, sums

    def _multiply(self, matrix: Tensor, x: Tensor, y: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
        x, b = x.contiguous(), None if bias is None else bias.contiguous()
        added = None if b is None else b.data_ptr()
        self._program.multiply(*_addresses(matrix), *_address(x, y), added, matrix.shape[0], x.shape[1], relu)
        increment_version(y)
        return y

    @staticmethod
    def above(v: Tensor, lam: float) -> Tensor:
        """Return the rising positions of |v| > λ in a flat tensor."""
        v, room, search = v.contiguous(), torch.empty(min(_PIECE, len(v)), dtype=torch.long), program().above
        found = [torch.empty(0, dtype=torch.long)]
        for first in range(0, len(v), _PIECE):
            piece = v[first : first + _PIECE]
            count = search(piece.data_ptr(), len(piece), lam, first, room.data_ptr())
            found.append(room[:count].clone())
        return torch.cat(found)

    def gradient(self, dy: Tensor, x: Tensor) -> Tensor:
        """Return the entries of ∂y xᵀ on the support, in memory that the next call takes again."""
        x, dy = x.contiguous(), dy.contiguous()
        self._program.sample(*_addresses(self._gradient), *_address(x, dy), self.shape[0], x.shape[1])
        return self._out


def transposed(x: Tensor) -> Tensor:
    """Return the transpose of a contiguous matrix of float32, contiguous."""
    out = x.new_empty(x.shape[1], x.shape[0])
    program().transpose(*_address(x, out), *x.shape)
    return out


def _addresses(matrix: Tensor) -> list[int]:
    return _address(matrix.crow_indices(), matrix.col_indices(), matrix.values())


def _address(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


@functools.cache
def program() -> Any:
    """Return the program, built at the first call.

    Raises:
        CompilerError: where there is no C compiler, or it fails.
    """
    library = load(SOURCE)
    pointers, sizes = {"multiply": 6, "sample": 5, "before_relu": 4, "transpose": 2}, [ctypes.c_size_t] * 2
    for name, count in pointers.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * count + sizes + [ctypes.c_int] * (name == "multiply")
        function.restype = None
    library.above.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float, ctypes.c_int64, ctypes.c_void_p]
    library.above.restype = ctypes.c_size_t
    return library


def matrix_type(dtype: torch.dtype, compiled: bool) -> type[SupportMatrix]:
    """Return the kind of matrix for weights of a type."""
    return NativeSupportMatrix if compiled and dtype is torch.float32 else SupportMatrix
