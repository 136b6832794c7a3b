"""Networks to train: plain modules without an activation after the last layer.

A model is one function in a file of its family, and one row of the table below. Those for images take `in_channels`,
`classes` and `size`, so that a training loop can fit any of them to its data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from torch_bregman.models.autoencoder import denoiser
from torch_bregman.models.checks import check_options
from torch_bregman.models.convolutional import convnet
from torch_bregman.models.lenet import lenet5_caffe, lenet_300_100
from torch_bregman.models.low_rank import factored
from torch_bregman.models.perceptron import mlp
from torch_bregman.models.residual import resnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    function.__name__: function for function in (mlp, convnet, lenet_300_100, lenet5_caffe, resnet, denoiser, factored)
}


def build(name: str, **options: Any) -> nn.Module:
    """Return a new model of that name.

    Args:
        name: one of the keys of `MODELS`.
        options: what that model's function takes.

    Raises:
        ValueError: for an unknown name, an unknown option, an option missing, or a value the model refuses.

    Example:
        >>> type(build("mlp", sizes=(4, 3, 2))).__name__
        'Sequential'
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown: use one of {', '.join(MODELS)}")
    check_options(name, MODELS[name], options)
    known = inspect.signature(MODELS[name]).parameters
    missing = [option for option, p in known.items() if p.default is p.empty and option not in options]
    if missing:
        raise ValueError(f"model {name!r} takes {', '.join(known)}: it needs {', '.join(missing)}")
    return MODELS[name](**options)


__all__ = ["MODELS", "build", "convnet", "denoiser", "factored", "lenet5_caffe", "lenet_300_100", "mlp", "resnet"]
