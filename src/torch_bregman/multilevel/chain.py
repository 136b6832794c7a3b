"""Models that are one chain of layers, run on activations of features × batch."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


class Unsuited(ValueError):  # noqa: N818 - it says why, and the mask form goes on
    """Why a model cannot be trained in compact form."""


_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Tanhshrink, nn.Softshrink),
    *(nn.Hardshrink, nn.Threshold, nn.Dropout, nn.AlphaDropout, nn.Identity),
)
_BY_FEATURE = (nn.BatchNorm1d, nn.LayerNorm)


def linear_chain(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of a model with their names, without the flattening in front.

    Args:
        model: `nn.Sequential`, nested at will, of linear layers, elementwise activations, dropout and normalisation of
            features.

    Raises:
        Unsuited: for anything else, naming the module.

    Example:
        >>> [name for name, _ in linear_chain(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU()))]
        ['1', '2']
    """
    layers = list(_leaves("", model))
    while layers and isinstance(layers[0][1], nn.Flatten):
        if (layers[0][1].start_dim, layers[0][1].end_dim) != (1, -1):
            raise Unsuited(f"module {layers[0][0]!r} (Flatten) flattens some dimensions only")
        del layers[0]
    seen: set[int] = set()
    for name, module in layers:
        plain = type(module) is nn.Linear or isinstance(module, (*_ELEMENTWISE, *_BY_FEATURE))
        if not plain:
            raise Unsuited(f"module {name!r} ({type(module).__name__}) is no part of a chain of linear layers")
        if id(module) in seen and any(True for _ in module.parameters()):
            raise Unsuited(f"module {name!r} ({type(module).__name__}) is used twice")
        seen.add(id(module))
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Unsuited(f"{type(model).__name__} has forward hooks, which would not be called")
    return layers


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for child, inner in module._modules.items():  # with those that are used twice
        assert inner is not None
        yield from _leaves(f"{name}.{child}".lstrip("."), inner)


def columnwise(module: nn.Module, h: Tensor) -> Tensor:
    """Return what a module other than a linear layer makes of activations of features × batch."""
    return module(h) if isinstance(module, _ELEMENTWISE) else module(h.t()).t()
