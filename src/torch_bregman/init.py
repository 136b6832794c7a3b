"""Where training starts: almost empty, or of low rank, with the variance that keeps activations alive."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from torch_bregman.rules import Key, Place, assign, collect, fitting_view
from torch_bregman.views import Elements, View

Views: TypeAlias = str | View | Mapping[Any, str | View | None]
"""One view for all weights, or one for each `Key`."""


def sparsify_(
    model: nn.Module,
    density: float = 0.01,
    *,
    seed: int = 0,
    view: Views = "elements",
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Redraw the linear and convolutional weights of a model so that a given fraction of them is not zero, in place.

    Of the N groups of all layers together, round(density·N) are kept, drawn without replacement: the same fraction of
    each layer by largest remainder, but at least one group a layer where that number reaches. Weights of kept groups
    are drawn from N(0, α/r), r the fraction kept of the layer, with α = 2/fan_in ("kaiming") or 2/(fan_in + fan_out)
    ("xavier"), so that activations keep their size. Biases are drawn uniformly from (0, 1/√fan_in]: positive, for
    units whose bias is 0 may never wake under ReLU.

    Only `nn.Linear` and convolutions, transposed ones too, are drawn anew; embeddings, recurrent cells and the
    in-projections of `nn.MultiheadAttention` stay as they are. Tied weights are drawn once, frozen ones too.

    Args:
        model: changed in place; storage, dtype, memory format and requires_grad stay.
        density: fraction of groups to keep, in (0, 1], default 0.01.
        seed: of a generator on the CPU made for this call, so that the numbers are the same on every device.
        view: the groups kept or dropped as one, default "elements". A dict from module types or name globs to views
            gives each layer the view of the first key that fits, names before types; layers with no key, or with
            None, stay as they are.
        init: "kaiming" (default, for ReLU) or "xavier".
        generator: a generator on the CPU to draw from instead of one made from `seed`.

    Returns:
        The model.

    Raises:
        ValueError: for a density outside (0, 1] or so small that nothing is kept, a view that does not fit a layer, a
            name that fits none, an unknown init, a generator that is not on the CPU, a model without such layers.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022, on sparse initialisation; there with Bernoulli masks.

    Example:
        >>> model = sparsify_(nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10)), density=0.02)
        >>> [int(model[i].weight.count_nonzero()) for i in (0, 2)]
        [100, 10]
    """
    _check_density(density)
    layers, alpha, rng = _layers(model, view), _variance(init), _generator(seed, generator)
    for layer, kept in zip(layers, _allot([layer.shape[0] for layer in layers], density), strict=True):
        _fill(layer, _sparse(layer, kept, alpha, rng), rng)
    return model


def low_rank_(
    model: nn.Module,
    rank: int,
    *,
    seed: int = 0,
    init: str = "kaiming",
    view: Views = "rows",
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Redraw the linear and convolutional weights of a model as matrices of a given rank, in place.

    Each weight is Q·B: Q with `rank` orthonormal columns of uniformly drawn directions on the short side, B Gaussian.
    Entries have mean 0 and variance α exactly, α as in `sparsify_`, and so have the activations their size. (With two
    Gaussian factors the last singular values of nearly full rank would drown in rounding.) Biases as in `sparsify_`.

    Args:
        model: changed in place; storage, dtype, memory format and requires_grad stay.
        rank: at least 1; capped at the shorter side of each layer's matrix.
        seed: of a generator on the CPU made for this call, so that the numbers are the same on every device.
        init: "kaiming" (default, for ReLU) or "xavier".
        view: how a weight becomes a matrix, default "rows": out × rest. A dict as in `sparsify_`.
        generator: a generator on the CPU to draw from instead of one made from `seed`.

    Returns:
        The model.

    Raises:
        ValueError: for a rank below 1 or no integer, the view "elements", which has no rank, and as `sparsify_`.

    Example:
        >>> model = low_rank_(nn.Linear(30, 20), rank=3)
        >>> int(torch.linalg.matrix_rank(model.weight))
        3
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be an integer >= 1, got {rank!r}: each layer caps it at its shorter side")
    layers, alpha, rng = _layers(model, view), _variance(init), _generator(seed, generator)
    for layer in layers:
        if layer.view == Elements():
            raise ValueError(f"view 'elements' of parameter {layer.place.name!r} is no matrix with a rank: use 'rows'")
    for layer in layers:
        _fill(layer, _product(layer.shape, rank, alpha(*layer.fans), rng), rng)
    return model


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer to draw anew, and the view its weight is seen through."""

    place: Place
    view: View

    @property
    def module(self) -> nn.Linear | _ConvNd:
        return cast("nn.Linear | _ConvNd", self.place.owner)

    @property
    def weight(self) -> Tensor:
        return self.place.param

    @property
    def shape(self) -> tuple[int, int]:
        """Number of groups, entries of a group."""
        size = self.view.size(self.weight.detach())
        return self.weight.numel() // size, size

    @property
    def fans(self) -> tuple[float, float]:
        """Inputs that feed one output, outputs that one input feeds (strides of a convolution left out, as usual)."""
        shape, taps = self.weight.shape, math.prod(self.weight.shape[2:])
        if not isinstance(self.module, _ConvNd):
            return shape[1], shape[0]
        if not isinstance(self.module, _ConvTransposeNd):
            return shape[1] * taps, shape[0] // self.module.groups * taps
        # a transposed convolution spreads its kernel over stride outputs, so each hears a part of the taps
        heard = math.prod(max(k / s, 1.0) for k, s in zip(self.module.kernel_size, self.module.stride, strict=True))
        return shape[0] // self.module.groups * heard, shape[1] * taps


def _layers(model: nn.Module, view: Views) -> list[_Layer]:
    views: Mapping[Key, str | View | None] = view if isinstance(view, Mapping) else {nn.Module: view}
    places = collect(model, _redrawable(model))
    if not places:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer to draw anew")
    keys = assign(views, places)
    chosen = [(place, views[key]) for place, key in zip(places, keys, strict=True) if key is not None]
    layers = [_Layer(place, fitting_view(v, place)) for place, v in chosen if v is not None and place.param.numel()]
    if not layers:
        raise ValueError("view leaves no layer to draw anew: give at least one of them a view, e.g. 'elements'")
    return layers


def _redrawable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.Linear, _ConvNd)):
            weight = module._parameters.get("weight")
            if weight is None:
                raise ValueError(
                    f"layer {name!r} computes its weight (a parametrisation?): draw the start before that is registered"
                )
            yield f"{name}.weight".removeprefix("."), weight


def _check_density(density: float) -> None:
    if not isinstance(density, Real) or not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density!r}: 0.01 keeps 1 % of the weights, 1.0 all of them")


def _variance(init: str) -> Callable[[float, float], float]:
    rules: dict[str, Callable[[float, float], float]] = {
        "kaiming": lambda fan_in, fan_out: 2 / fan_in,
        "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    }
    if init not in rules:
        raise ValueError(f"init {init!r} is unknown: use one of {', '.join(rules)}")
    return rules[init]


def _generator(seed: int, generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        return torch.Generator().manual_seed(seed)
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, got one on {generator.device}: weights may be anywhere")
    return generator


def _allot(groups: list[int], density: float) -> list[int]:
    """Return how many groups each layer keeps."""
    total = round(density * sum(groups))
    if total == 0:
        least = 1 / sum(groups)
        raise ValueError(f"density {density!r} keeps none of {sum(groups)} groups: use at least {least:.2g}")
    quotas = [density * count for count in groups]
    kept = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(groups)), key=lambda i: kept[i] - quotas[i])
    for i in by_remainder[: total - sum(kept)]:
        kept[i] += 1
    while total >= len(groups) and 0 in kept:
        kept[kept.index(max(kept))] -= 1
        kept[kept.index(0)] = 1
    return kept


def _sparse(layer: _Layer, kept: int, alpha: Callable[[float, float], float], rng: torch.Generator) -> Tensor:
    """Return groups × entries, `kept` of the groups Gaussian, the others zero."""
    groups, size = layer.shape
    chosen = torch.randperm(groups, generator=rng, device="cpu")[:kept]
    std = math.sqrt(alpha(*layer.fans) * groups / max(kept, 1))
    wide = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
    values = _gaussian(kept, size, rng, wide).mul_(std).to(layer.weight.dtype)
    values.masked_fill_(values == 0, std)  # a draw may round to 0, and would be missing from the density asked for
    return values.new_zeros(groups, size).index_copy_(0, chosen, values)


def _product(shape: tuple[int, int], rank: int, variance: float, rng: torch.Generator) -> Tensor:
    """Return a matrix of that shape and rank whose entries have that variance."""
    short, long = sorted(shape)
    rank = min(rank, short)
    Q = torch.linalg.qr(_gaussian(short, rank, rng, torch.float64)).Q
    B = _gaussian(rank, long, rng, torch.float64).mul_(math.sqrt(variance * short / rank))
    return Q @ B if shape[0] <= shape[1] else (Q @ B).mT


def _gaussian(rows: int, columns: int, rng: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, generator=rng, dtype=dtype, device="cpu")  # whatever the default device


@torch.no_grad()
def _fill(layer: _Layer, matrix: Tensor, rng: torch.Generator) -> None:
    layer.weight.copy_(layer.view.restore(matrix, layer.weight))
    bias = layer.module.bias
    if bias is not None:
        bias.copy_((1 - torch.rand(bias.shape, generator=rng, device="cpu")) / math.sqrt(layer.fans[0]))
