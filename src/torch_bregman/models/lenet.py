"""The two LeNets that papers on pruning compare on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from torch_bregman.models.checks import check_positive
from torch_bregman.models.convolutional import pooled_size
from torch_bregman.models.perceptron import mlp


def lenet_300_100(in_channels: int = 1, classes: int = 10, size: int = 28) -> nn.Sequential:
    """Return LeNet-300-100: a perceptron with 300 and 100 hidden units and ReLU, that flattens its input.

    With the defaults (784-300-100-10) it has 266,610 parameters.

    Args:
        in_channels: channels of the images, default 1.
        classes: outputs, default 10.
        size: height and width of the images in pixels, default 28.

    Returns:
        A module that maps (batch, in_channels, size, size) to (batch, classes).

    Raises:
        ValueError: for arguments that are no positive integers.

    References:
        LeCun, Bottou, Bengio, Haffner 1998; Han, Pool, Tran, Dally 2015, whose table others compare with.

    Example:
        >>> import torch
        >>> lenet_300_100()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    for name, number in {"in_channels": in_channels, "classes": classes, "size": size}.items():
        check_positive(name, number)
    return mlp((in_channels * size**2, 300, 100, classes))


def lenet5_caffe(
    in_channels: int = 1,
    classes: int = 10,
    size: int = 28,
    conv_relu: bool = False,
    widths: Sequence[int] = (20, 50, 500),
) -> nn.Sequential:
    """Return LeNet-5-Caffe: 5 × 5 convolutions of 20 and 50 filters, both max-pooled by 2, then 500 and 10 units.

    Caffe's own network, which Han et al. 2015 pruned, has a ReLU after the 500 units only: the convolutions are
    followed by nothing but pooling. Most later papers and their code (SNIP, ℓ0 regularisation, sparse momentum) call
    by the same name a network with a ReLU after each convolution too; `conv_relu=True` gives that one. Either way,
    nothing is padded, and with the defaults it has 431,080 parameters.

    Args:
        in_channels: channels of the images, default 1.
        classes: outputs, default 10.
        size: height and width of the images in pixels, at least 16, default 28.
        conv_relu: a ReLU after each convolution, default False.
        widths: filters of the two convolutions and hidden units, default (20, 50, 500).

    Returns:
        A module that maps (batch, in_channels, size, size) to (batch, classes).

    Raises:
        ValueError: for arguments that are no integers in their range, and other than three widths.

    References:
        `examples/mnist/lenet.prototxt` of Caffe; Han, Pool, Tran, Dally 2015; Louizos, Welling, Kingma 2018 (ℓ0);
        Lee, Ajanthan, Torr 2019 (SNIP); Dettmers, Zettlemoyer 2019 (sparse momentum).

    Example:
        >>> import torch
        >>> lenet5_caffe()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    side = pooled_size(in_channels, classes, size)
    first, second, units = _three(widths)
    features: OrderedDict[str, nn.Module] = OrderedDict()
    for depth, (inputs, outputs) in enumerate([(in_channels, first), (first, second)], start=1):
        features[f"conv{depth}"] = nn.Conv2d(inputs, outputs, 5)
        features[f"pool{depth}"] = nn.MaxPool2d(2)
        if conv_relu:  # the same function as before the pooling, on a quarter of the numbers
            features[f"relu{depth}"] = nn.ReLU()
    classifier = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * side**2, units),
            relu1=nn.ReLU(),
            fc2=nn.Linear(units, classes),
        )
    )
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), classifier=classifier))


def _three(widths: Sequence[int]) -> tuple[int, int, int]:
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) != 3:
        raise ValueError(f"widths must be three: filters of the two convolutions and hidden units, got {widths!r}")
    for width in widths:
        check_positive("every one of widths", width)
    return widths[0], widths[1], widths[2]
