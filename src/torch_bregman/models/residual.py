"""Residual networks for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from torch_bregman.models.checks import check_positive


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation, added to the input; a 1 × 1 convolution where shapes differ.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution, default 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A 3 × 3 convolution, three stages of basic blocks of growing width, a mean over pixels, a linear layer.

    Args:
        depth: 6n + 2.
        width: channels of the first stage.
        in_channels: channels of the images.
        classes: outputs.
    """

    def __init__(self, depth: int, width: int, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, inputs = (depth - 2) // 6, width
        stages: list[nn.Module] = []
        for number in range(3):
            outputs = width * 2**number
            strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
            widths = [inputs] + [outputs] * blocks
            stages.append(nn.Sequential(*map(BasicBlock, widths, widths[1:], strides)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return a number for each class.

        Args:
            x: (batch, in_channels, size, size).
        """
        x = self.stages(relu(self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))


def resnet(in_channels: int = 1, classes: int = 10, size: int = 28, depth: int = 8, width: int = 16) -> ResNet:
    """Return the residual network for small images of He et al.: 6n + 2 layers, channels width, 2·width, 4·width.

    With depth 20 and width 16 it is their ResNet-20 for CIFAR-10, but for shortcuts by 1 × 1 convolutions where shapes
    change (their option B). With the defaults it has 77,754 parameters, whatever the size.

    Args:
        in_channels: channels of the images, default 1.
        classes: outputs, default 10.
        size: height and width of the images in pixels, at least 4, default 28.
        depth: 8, 14, 20, …, that is 6n + 2, default 8.
        width: channels of the first stage, default 16.

    Returns:
        A module that maps (batch, in_channels, height, width) to (batch, classes).

    Raises:
        ValueError: for arguments that are no positive integers, or a depth that is not 6n + 2.

    References:
        He, Zhang, Ren, Sun 2016, section 4.2.

    Example:
        >>> import torch
        >>> resnet(in_channels=3, depth=20)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    for name, number in {"in_channels": in_channels, "classes": classes, "width": width}.items():
        check_positive(name, number)
    check_positive("size", size, least=4)
    check_positive("depth", depth, least=8)
    if (depth - 2) % 6:
        raise ValueError(f"depth must be 6n + 2, got {depth}: 8, 14 or 20, for example")
    return ResNet(depth, width, in_channels, classes)
