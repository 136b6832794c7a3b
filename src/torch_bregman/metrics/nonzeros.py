"""How many weights of a model are not zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torch_bregman.distributed.sharded import gathered


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters with 2 or more dimensions under their names, tied ones once, under the first name.

    Biases and the vectors of normalisation layers do not count, nor do parameters without entries.

    Raises:
        ValueError: where there are none, or where a lazy layer has no shape yet.

    Example:
        >>> from torch import nn
        >>> list(named_weights(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))))
        ['0.weight']
    """
    named = dict(model.named_parameters())
    lazy = [name for name, param in named.items() if is_lazy(param)]
    if lazy:
        raise ValueError(f"parameter {lazy[0]!r} has no shape yet: run the model once on a batch")
    weights: dict[str, Tensor] = {name: p for name, p in named.items() if p.ndim >= 2 and p.numel()}
    if not weights:
        raise ValueError(f"{type(model).__name__} has no weights with 2 or more dimensions, so it has no density")
    return weights


def count_nonzeros(weights: Iterable[Tensor]) -> list[int]:
    """Return the number of non-zero entries of each tensor; the device is waited for once, not once a tensor."""
    counts = [torch.count_nonzero(gathered(weight.detach())) for weight in weights]
    return torch.stack([count.to(counts[0].device) for count in counts]).tolist() if counts else []


def density(model: nn.Module) -> float:
    """Return the fraction of non-zero weights over all parameters with 2 or more dimensions.

    Args:
        model: any module; tied weights count once.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: for a model without such weights.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.eye(2, 4))
        >>> density(layer)
        0.25
    """
    weights = named_weights(model).values()
    return sum(count_nonzeros(weights)) / sum(weight.numel() for weight in weights)


def layer_densities(model: nn.Module) -> dict[str, float]:
    """Return the density of every weight under its name; one pass over each, cheap enough for every epoch.

    Args:
        model: any module; tied weights count once, under their first name.

    Raises:
        ValueError: for a model without parameters of 2 or more dimensions.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Linear(2, 2))
        >>> with torch.no_grad():
        ...     _ = model[1].weight.zero_()
        >>> layer_densities(model)
        {'0.weight': 1.0, '1.weight': 0.0}
    """
    weights = named_weights(model)
    counts = count_nonzeros(weights.values())
    return {name: count / weight.numel() for (name, weight), count in zip(weights.items(), counts, strict=True)}
