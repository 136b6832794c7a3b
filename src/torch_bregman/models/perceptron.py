"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from torch_bregman.models.checks import check_positive

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def mlp(sizes: Sequence[int], activation: str = "relu", dropout: float = 0.0) -> nn.Sequential:
    """Return a multilayer perceptron that flattens its input.

    Its layers are named flatten, fc1, act1, (dropout1,) fc2 and so on; nothing follows the last one. It has
    Σ (s_i + 1)·s_{i+1} parameters.

    Args:
        sizes: units of the input, of each hidden layer and of the output, e.g. (784, 200, 80, 10).
        activation: after every hidden layer: relu (default), leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: probability that a hidden unit is dropped in training, in [0, 1), default 0.

    Returns:
        A module that maps (batch, …) with s_0 entries a sample to (batch, s_last).

    Raises:
        ValueError: for fewer than 2 sizes, sizes that are no positive integers, an unknown activation, a dropout
            outside [0, 1).

    Example:
        >>> import torch
        >>> model = mlp([784, 200, 80, 10])
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in model.parameters())
        173890
    """
    _check(sizes, activation, dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for depth, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{depth}"] = nn.Linear(inputs, outputs)
        if depth < len(sizes) - 1:
            layers[f"act{depth}"] = ACTIVATIONS[activation]()
            if dropout:
                layers[f"dropout{depth}"] = nn.Dropout(dropout)
    return nn.Sequential(layers)


def _check(sizes: Sequence[int], activation: str, dropout: float) -> None:
    if isinstance(sizes, str) or len(sizes) < 2:
        raise ValueError(f"sizes must hold at least 2 numbers of units (input, …, output), got {sizes!r}")
    for size in sizes:
        check_positive("every one of sizes", size)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown: use one of {', '.join(ACTIVATIONS)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}: 0 switches it off")
