"""The convolutional network of the linearised Bregman paper."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from torch_bregman.models.checks import check_positive


def convnet(in_channels: int = 1, classes: int = 10, size: int = 28) -> nn.Sequential:
    """Return the MNIST network of the Bregman paper: two 5 × 5 convolutions of 64 filters, two linear layers.

    features: conv1 (64, 5 × 5), ReLU, max-pool 2, conv2 (64, 5 × 5), ReLU, max-pool 2; classifier: flatten, fc1 (128),
    ReLU, fc2. Nothing is padded. With the defaults it has 236,618 parameters.

    Args:
        in_channels: channels of the images, default 1.
        classes: outputs, default 10.
        size: height and width of the images in pixels, at least 16, default 28.

    Returns:
        A module that maps (batch, in_channels, size, size) to (batch, classes).

    Raises:
        ValueError: for arguments that are no integers in their range.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022.

    Example:
        >>> import torch
        >>> convnet(in_channels=3, size=32)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    side = pooled_size(in_channels, classes, size)
    features = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 64, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(64, 64, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
        )
    )
    classifier = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(), fc1=nn.Linear(64 * side**2, 128), relu1=nn.ReLU(), fc2=nn.Linear(128, classes)
        )
    )
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))


def pooled_size(in_channels: int, classes: int, size: int) -> int:
    """Return the side in pixels after two 5 × 5 convolutions without padding, each pooled by 2; 4 for 28.

    Raises:
        ValueError: for arguments that are no positive integers, or images too small for that.
    """
    check_positive("in_channels", in_channels)
    check_positive("classes", classes)
    check_positive("size", size, least=16)
    return ((size - 4) // 2 - 4) // 2
