"""Linear layers and convolutions of low rank as two thin layers, one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class FactoredLinear(nn.Sequential):
    """y = (x Rᵀ) Lᵀ + b: two plain linear layers in the place of one, W = L R.

    Args:
        in_features: length of x.
        out_features: length of y.
        rank: rows of R.
        bias: whether to add b, default True.
        device, dtype: of the weights.

    Example:
        >>> layer = FactoredLinear(6, 4, rank=1)
        >>> layer.weight.shape, sum(p.numel() for p in layer.parameters())
        (torch.Size([4, 6]), 14)
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        place = {"device": device, "dtype": dtype}
        super().__init__(nn.Linear(in_features, rank, False, **place), nn.Linear(rank, out_features, bias, **place))
        self.in_features, self.out_features = in_features, out_features

    @property
    def weight(self) -> Tensor:
        """W, formed anew at every call."""
        first, second = self
        return second.weight @ first.weight  # pyright: ignore[reportOperatorIssue, reportReturnType]

    @property
    def bias(self) -> Tensor | None:
        """B."""
        return self[1].bias  # pyright: ignore[reportReturnType]


def factored_linear(linear: nn.Linear, rank: int) -> FactoredLinear:
    """Return the two layers of that rank, not filled, in the place of a linear layer, whose bias they take over."""
    weight = linear.weight
    made = FactoredLinear(
        linear.in_features, linear.out_features, rank, linear.bias is not None, weight.device, weight.dtype
    )
    return _taken_over(made, linear)


def factored_convolution(conv: Convolution, rank: int) -> nn.Sequential:
    """Return a convolution with `rank` filters and one of 1 × 1, not filled, in the place of one convolution."""
    ones = (1,) * len(conv.kernel_size)
    kind = type(conv)
    first = _like(conv, kind, conv.in_channels, rank, conv.kernel_size, False, padding_mode=conv.padding_mode)
    second = kind(rank, conv.out_channels, ones, bias=conv.bias is not None, **_place(conv))  # pyright: ignore[reportArgumentType]
    return _taken_over(nn.Sequential(first, second), conv)


def separable_convolution(conv: nn.Conv2d, rank: int) -> nn.Sequential:
    """Return a 1 × k and a k × 1 convolution, not filled, in the place of one of k × k."""
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
    if isinstance(conv.padding, str):
        across, along = conv.padding, conv.padding
    else:
        across, along = (0, conv.padding[1]), (conv.padding[0], 0)
    first = nn.Conv2d(conv.in_channels, rank, (1, kw), (1, sw), across, (1, dw), bias=False, **_place(conv))
    second = nn.Conv2d(
        rank, conv.out_channels, (kh, 1), (sh, 1), along, (dh, 1), bias=conv.bias is not None, **_place(conv)
    )
    return _taken_over(nn.Sequential(first, second), conv)


def _like(conv: Convolution, kind: Any, inputs: int, outputs: int, kernel: Any, bias: bool, **options: Any) -> Any:
    return kind(inputs, outputs, kernel, conv.stride, conv.padding, conv.dilation, bias=bias, **options, **_place(conv))


def _place(module: Any) -> dict[str, Any]:
    return {"device": module.weight.device, "dtype": module.weight.dtype}


def _taken_over(made: Any, before: Any) -> Any:
    """Give the second layer the bias of the layer before, and both its mode and whether they are frozen."""
    for layer in made:
        layer.weight.requires_grad_(before.weight.requires_grad)
    if before.bias is not None:
        made[1].bias = before.bias
    return made.train(before.training)


@torch.no_grad()
def fill_factors(made: nn.Sequential, left: Tensor, right: Tensor) -> None:
    """Fill two layers with the factors of a weight.

    Args:
        made: what the functions above return.
        left: L (rank × out…).
        right: R (rank × in…).
    """
    first, second = made[0].weight, made[1].weight
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    first.copy_(right.reshape(first.shape))
    second.copy_(left.movedim(0, 1).reshape(second.shape))
