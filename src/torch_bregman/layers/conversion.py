"""Between dense linear layers and low-rank ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from torch_bregman.layers.low_rank import LowRankLinear


def to_factored(
    model: nn.Module,
    lam: float,
    *,
    layers: Sequence[str] | None = None,
    delta: float = 1.0,
    lr: float = 0.1,
    refresh: int = 1,
    tolerance: float = 1e-3,
) -> nn.Module:
    """Replace linear layers by `LowRankLinear`, in place; weights stay what they are, to rounding.

    Biases are carried over as they are, tied modules once; hooks are not.

    Args:
        model: of low rank where it is to be replaced: start from `low_rank_`.
        lam: λ > 0.
        layers: names of linear layers, or patterns (`fnmatch`) of them; default all `nn.Linear` but the last, in the
            order of `named_modules`. Subclasses of `nn.Linear`, whose weights others may read, stay dense.
        delta: δ > 0, default 1.
        lr: τ ≥ 0 where no optimizer drives the layers, default 0.1.
        refresh: steps between two readings of the dual, default 1; 10 is a good pass-free choice.
        tolerance: of the tracked engine, default 1e-3.

    Returns:
        The model; a linear layer that is no part of a model comes back as a new layer.

    Raises:
        ValueError: for a pattern that fits no linear layer, a model with none to replace, a weight that is tied,
            computed, frozen or of full rank.

    Example:
        >>> import torch_bregman as tb
        >>> model = tb.low_rank_(tb.models.mlp([784, 200, 80, 10]), rank=5)
        >>> tb.layers.to_factored(model, lam=0.5).fc1
        LowRankLinear(in_features=784, out_features=200, bias=True, rank=5, lam=0.5, refresh=1)
    """
    options = {"lam": lam, "delta": delta, "lr": lr, "refresh": refresh, "tolerance": tolerance}
    made = {linear: _factored(name, linear, options) for name, linear in _chosen(model, layers).items()}
    return _replace(model, made)


def from_factored(model: nn.Module) -> nn.Module:
    """Replace every `LowRankLinear` by an `nn.Linear` with the same weight and bias, in place.

    Outputs are equal to rounding. The dual variables are gone: a copy of the model keeps them.

    Args:
        model: any.

    Returns:
        The model; a layer that is no part of a model comes back as a new layer.

    Example:
        >>> from_factored(nn.Sequential(LowRankLinear(6, 4, lam=0.1, rank=2)))
        Sequential(
          (0): Linear(in_features=6, out_features=4, bias=True)
        )
    """
    return _replace(model, {module: _dense(module) for module in model.modules() if isinstance(module, LowRankLinear)})


def _chosen(model: nn.Module, patterns: Sequence[str] | None) -> dict[str, nn.Linear]:
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    if patterns is None:
        names = list(linear) if model in linear.values() else list(linear)[:-1]
    else:
        patterns = [patterns] if isinstance(patterns, str) else patterns
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in linear):
                raise ValueError(f"layers: {pattern!r} fits no nn.Linear of {', '.join(linear) or 'the model'}")
        names = [name for name in linear if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        raise ValueError(
            f"{type(model).__name__} has {len(linear)} nn.Linear, the last of which stays dense by default: "
            "name what to replace in layers"
        )
    _check_own_weights(model, {name: linear[name] for name in names})
    return {name: linear[name] for name in names}


def _check_own_weights(model: nn.Module, chosen: dict[str, nn.Linear]) -> None:
    owners = Counter(id(param) for module in model.modules() for param in module._parameters.values())
    for name, linear in chosen.items():
        weight = linear._parameters.get("weight")
        if weight is None:
            why = "computed (a parametrisation?)"
        elif owners[id(weight)] > 1:
            why = "tied to another module"
        elif not weight.requires_grad:
            why = "frozen"
        else:
            continue
        raise ValueError(f"the weight of layer {name!r} is {why}: leave the layer out of layers")


def _factored(name: str, linear: nn.Linear, options: dict[str, Any]) -> LowRankLinear:
    weight = linear.weight.detach()
    place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    try:
        layer = LowRankLinear(linear.in_features, linear.out_features, False, rank=0, **options, **place)
        layer.set_weight_(weight)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from None
    layer.bias = linear.bias
    layer.train(linear.training)
    return layer


def _dense(layer: LowRankLinear) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")  # draws nothing
    linear.weight = nn.Parameter(layer.weight)
    if layer.bias is not None:
        linear.bias = layer.bias
    linear.train(layer.training)
    return linear


def _replace(model: nn.Module, made: Mapping[Any, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            parent._modules[name] = made.get(child, child)
    return made.get(model, model)
