"""Shapes of the parameters of three models, for benchmarks that need tensors and no model."""

from __future__ import annotations

Shapes = list[tuple[int, ...]]


def mlp() -> Shapes:
    """Shapes of an MLP 784-200-80-10."""
    widths = [(200, 784), (80, 200), (10, 80)]
    return [shape for out, into in widths for shape in ((out, into), (out,))]


def resnet18() -> Shapes:
    """Shapes of a ResNet-18 for 1000 classes, batch normalisation included."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width in (64, 128, 256, 512):
        for into in (channels, width):
            shapes += [(width, into, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            shapes += [(width, into, 1, 1), (width,), (width,)] if into != width else []
        channels = width
    return [*shapes, (1000, 512), (1000,)]


def transformer() -> Shapes:
    """Shapes of 12 transformer blocks of width 512."""
    attention: Shapes = [(512,), (512,), (1536, 512), (1536,), (512, 512), (512,)]
    feed_forward: Shapes = [(512,), (512,), (2048, 512), (2048,), (512, 2048), (512,)]
    return (attention + feed_forward) * 12
