"""Networks that map images to images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from torch_bregman.models.checks import check_positive


def denoiser(in_channels: int = 1, size: int = 28, layers: int = 7, width: int | None = None) -> nn.Sequential:
    """Return the denoising autoencoder of the Bregman paper: `layers` linear layers with ReLU between them.

    No bottleneck is built in: under a group norm of rows training finds one, as units stay off. Its layers are named
    flatten, fc1, act1, fc2 and so on, and unflatten. With the defaults it has 4,308,080 parameters.

    Args:
        in_channels: channels of the images, default 1.
        size: height and width of the images in pixels, default 28.
        layers: linear layers, at least 2, default 7.
        width: units of every hidden layer, default as many as the image has entries.

    Returns:
        A module that maps (batch, in_channels, size, size) to the same shape.

    Raises:
        ValueError: for arguments that are no integers in their range.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022.

    Example:
        >>> import torch
        >>> denoiser(size=8, layers=3, width=5)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """
    entries = _entries(in_channels, size)
    hidden = entries if width is None else width
    check_positive("layers", layers, least=2)
    check_positive("width", hidden)
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for depth in range(1, layers + 1):
        inputs, outputs = (entries if depth == 1 else hidden), (entries if depth == layers else hidden)
        parts[f"fc{depth}"] = nn.Linear(inputs, outputs)
        if depth < layers:
            parts[f"act{depth}"] = nn.ReLU()
    parts["unflatten"] = nn.Unflatten(1, (in_channels, size, size))
    return nn.Sequential(parts)


def _entries(in_channels: int, size: int) -> int:
    check_positive("in_channels", in_channels)
    check_positive("size", size)
    return in_channels * size**2
