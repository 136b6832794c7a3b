"""A linear layer that stores and multiplies its non-zero weights only."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class CSRLinear(nn.Module):
    """y = x Wᵀ + b with W in compressed sparse rows; computed as (W xᵀ)ᵀ, which on a CPU is the fast order.

    Its non-zero entries are a parameter and can be trained; which entries there are stays as it is. Whether it is
    faster than a dense layer depends on density, size, batch and machine: measure (`compact` does).

    Args:
        in_features: length of x.
        out_features: length of y.
        nonzeros: number of stored entries.
        bias: whether to add b, default True.
        device, dtype: of entries and b.

    Example:
        >>> linear = nn.Linear(6, 4)
        >>> with torch.no_grad():
        ...     _ = linear.weight.mul_(torch.rand(4, 6) < 0.3)
        >>> layer = CSRLinear.from_linear(linear)
        >>> x = torch.randn(2, 6)
        >>> torch.allclose(layer(x), linear(x), atol=1e-6)
        True
    """

    crow: Tensor
    column: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        nonzeros: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.values = nn.Parameter(torch.zeros(nonzeros, device=device, dtype=dtype))
        self.register_buffer("crow", torch.zeros(out_features + 1, dtype=torch.int32, device=device))
        self.register_buffer("column", torch.zeros(nonzeros, dtype=torch.int32, device=device))
        free = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", free)
        self._cached: tuple[Any, Tensor] | None = None

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> CSRLinear:
        """Return the layer with the non-zero weights of a dense one, and its bias."""
        weight = linear.weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        layer = cls(linear.in_features, linear.out_features, len(rows), False, weight.device, weight.dtype)
        counts = torch.bincount(rows, minlength=linear.out_features)
        layer.crow[1:] = counts.cumsum(0)
        layer.column.copy_(columns)
        layer.values = nn.Parameter(weight[rows, columns].clone(), requires_grad=linear.weight.requires_grad)
        layer.bias = linear.bias
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """Return the dense layer with the same weights."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.weight, requires_grad=self.values.requires_grad)
        linear.bias = self.bias  # pyright: ignore[reportAttributeAccessIssue]
        return linear.train(self.training)

    @property
    def rows(self) -> Tensor:
        """The row of every stored entry."""
        counts = self.crow.diff().long()
        return torch.repeat_interleave(torch.arange(self.out_features, device=counts.device), counts)

    @property
    def weight(self) -> Tensor:
        """W as a dense matrix, formed anew at every call."""
        dense = self.values.new_zeros(self.out_features, self.in_features)
        return dense.index_put_((self.rows, self.column.long()), self.values.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b.

        Args:
            x: (…, in_features).
        """
        flat = x.reshape(-1, self.in_features)
        if torch.is_grad_enabled() and (flat.requires_grad or self.values.requires_grad):
            y = _Multiply.apply(flat, self.values, self)
            y = y if self.bias is None else y + self.bias
        else:
            y = self.multiply(flat, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x Wᵀ + b for a matrix x, outside of autograd."""
        columns = x.t().contiguous()
        if bias is None:
            return (self._matrix() @ columns).t()
        return torch.addmm(bias.detach()[:, None].expand(-1, len(x)), self._matrix(), columns).t()

    def _matrix(self) -> Tensor:
        key = (self.values._version, self.values.data_ptr(), self.crow.data_ptr(), self.crow._version)
        if self._cached is None or self._cached[0] != key:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls the format beta
                shape = (self.out_features, self.in_features)
                matrix = torch.sparse_csr_tensor(self.crow, self.column, self.values.detach(), shape)
            self._cached = (key, matrix)
        return self._cached[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}

    def extra_repr(self) -> str:
        """Return sizes and density for `print`."""
        density = len(self.values) / max(self.in_features * self.out_features, 1)
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, density={density:.2%}"


class _Multiply(torch.autograd.Function):
    """x Wᵀ, differentiable in x and in the stored entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, layer: CSRLinear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer.multiply(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        rows, columns = ctx.layer.rows, ctx.layer.column.long()
        dx = dy @ ctx.layer.weight if ctx.needs_input_grad[0] else None
        dv = None
        if ctx.needs_input_grad[1]:
            dv = (dy.t() @ x)[rows, columns]
        return dx, dv, None
