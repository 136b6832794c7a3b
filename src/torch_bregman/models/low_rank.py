"""Networks whose layers are two thin ones from the start: low rank as an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from torch_bregman.layers.factors import factored_convolution, factored_linear
from torch_bregman.models.checks import check_options, check_positive
from torch_bregman.models.convolutional import convnet
from torch_bregman.models.lenet import lenet5_caffe, lenet_300_100

_BASES = {function.__name__: function for function in (lenet_300_100, lenet5_caffe, convnet)}


def factored(
    base: str = "lenet_300_100",
    ranks: Mapping[str, int] | None = None,
    in_channels: int = 1,
    classes: int = 10,
    size: int = 28,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a network with W = L R in the place of some weights, two layers that are trained instead.

    R is drawn with variance 1/fan_in, L with variance 2/rank, so that L R has the variance of a start for ReLU. With
    the defaults nothing is factored, and it has 266,610 parameters.

    Args:
        base: lenet_300_100 (default), lenet5_caffe or convnet.
        ranks: by name of a layer, e.g. {"fc1": 20, "fc2": 20}; the others stay as they are.
        in_channels: channels of the images, default 1.
        classes: outputs, default 10.
        size: height and width of the images in pixels, default 28.
        options: further ones of that network, e.g. {"conv_relu": True} of lenet5_caffe; default none.

    Returns:
        A module that maps (batch, in_channels, size, size) to (batch, classes).

    Raises:
        ValueError: for an unknown network, an option that it lacks, a name that is no linear or convolutional layer of
            it, a rank below 1.

    Example:
        >>> sum(p.numel() for p in factored(ranks={"fc1": 20, "fc2": 20}).parameters() if p.ndim > 1)
        30680
    """
    if base not in _BASES:
        raise ValueError(f"base {base!r} is unknown: use one of {', '.join(_BASES)}")
    check_options(base, _BASES[base], options or {})
    model = _BASES[base](**{"in_channels": in_channels, "classes": classes, "size": size, **(options or {})})
    layers = {name: each for name, each in model.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d))}
    for name, rank in (ranks or {}).items():
        if name not in layers:
            raise ValueError(f"ranks must name layers of {base}, got {name!r}: use some of {', '.join(layers)}")
        check_positive(f"the rank of {name}", rank)
        model.set_submodule(name, _in_two(layers[name], rank))
    return model


def _in_two(layer: nn.Linear | nn.Conv2d, rank: int) -> nn.Sequential:
    made = factored_linear(layer, rank) if isinstance(layer, nn.Linear) else factored_convolution(layer, rank)
    for each, kind in zip(made, ("linear", "relu"), strict=True):
        assert isinstance(each, (nn.Linear, nn.Conv2d))
        nn.init.kaiming_normal_(each.weight, nonlinearity=kind)
    return made
