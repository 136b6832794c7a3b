"""Groups that can be removed: rules for `param_groups`, found by tracing a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.graph import Axis, Unsupported, trace_units
from torch_bregman.regularizers import GroupL2, Regularizer, Slices, UnitL2
from torch_bregman.rules import Key


def outgoing_groups(
    model: nn.Module, example: Any, lam: float = 1.0, *, weighted: bool = True, unsupported: Unsupported = "refuse"
) -> dict[Key, Regularizer]:
    """Return rules that make one group of all that reads a unit: λ Σ_u √n_u ‖(W_1[:, u], W_2[:, u], …)‖₂.

    A unit is off, whatever its bias and its normalisation say, when everything that reads it is zero: the columns of
    the next linear layer, the slices of the next convolution, the block behind a flatten, the columns of a head in the
    output projection of attention; over all readers together where there are several. Off, it still gets a gradient, so
    that it can wake, also behind a ReLU. `compact` removes it exactly. What makes the units stays without regulariser:
    start it at random.

    Units are left out where a reader is frozen, and where they cannot be removed (see `graph.trace_units`).

    Args:
        model: any module.
        example: what it is called with, a tensor or a tuple of arguments.
        lam: λ ≥ 0, default 1.
        weighted: w_u = √n_u, n_u the entries of a group (default); else 1.
        unsupported: "refuse" (default) a function that units flow into and that cannot be followed, or "leave" them.

    Returns:
        From names of weights to `GroupL2` where one weight alone reads its units, else `UnitL2`.

    Raises:
        ValueError: for a function that cannot be followed, naming the module that calls it; for a model without units
            that may be removed.

    References:
        Scardapane, Comminiello, Hussain, Uncini 2017.

    Example:
        >>> import torch, torch_bregman as tb
        >>> rules = outgoing_groups(tb.models.convnet(), torch.zeros(1, 1, 28, 28), lam=0.1)
        >>> for name, regularizer in rules.items():
        ...     print(name, regularizer.view)
        features.conv2.weight columns
        classifier.fc1.weight blocks(128, 16)
        classifier.fc2.weight columns
    """
    graph = trace_units(model, example, unsupported=unsupported)
    return _rules(model, graph.readers(), graph.pinned, lam, weighted)


@torch.no_grad()
def start_units_(
    model: nn.Module, example: Any, share: float, *, seed: int = 0, weights: Collection[str] | None = None
) -> nn.Module:
    """Let a share of the units of each layer sleep no more: what reads the others becomes 0, in place.

    What reads those that start awake is multiplied by 1/√share, so that activations keep their size; what makes units
    is left as it is, at random, for them to wake with.

    Args:
        model: any module.
        example: what it is called with, a tensor or a tuple of arguments.
        share: of the units that start awake, in (0, 1]; at least one a layer.
        seed: of the choice.
        weights: names of those that are to read a share of their units only, for those under a norm; default all.

    Returns:
        The model.

    Raises:
        ValueError: for a share out of range, or a model that cannot be followed.

    Example:
        >>> model = start_units_(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 3), 0.25)
        >>> int(model[2].weight.any(0).sum())
        2
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}: 0.1 starts with every tenth unit")
    graph, generator = trace_units(model, example), torch.Generator().manual_seed(seed)
    awake = torch.zeros(1 + max(graph.units(), default=0), dtype=torch.bool)
    for axis in graph.makers():
        units = axis.units[axis.units >= 0].unique()
        if axis.role == "makes" and len(units):
            count = max(1, round(share * len(units)))
            awake[units[torch.randperm(len(units), generator=generator)[:count]]] = True
    params = dict(model.named_parameters())
    for axis in graph.readers():
        if weights is not None and axis.name not in weights:
            continue
        free = axis.units >= 0
        scale = torch.where(awake[axis.units.clamp_min(0)], share**-0.5, 0.0)
        scale = torch.where(free, scale, 1.0).to(params[axis.name])
        params[axis.name].mul_(scale.view([-1 if d == axis.dim else 1 for d in range(params[axis.name].ndim)]))
    return model


def incoming_groups(
    model: nn.Module, example: Any, lam: float = 1.0, *, weighted: bool = True, unsupported: Unsupported = "refuse"
) -> dict[Key, Regularizer]:
    """Return rules that make one group of all that makes a unit: its filter, its bias, its BatchNorm scale and shift.

    This is the filter sparsity of the literature; a unit whose group is zero is exactly 0 before its activation, and
    `compact` folds the constant that the activation makes of it into the next bias. Sleeping ones wake only where the
    activation has a slope at 0 (not behind a ReLU whose input is at most 0): prefer `outgoing_groups` there.

    Units are left out where a part of the group is frozen, and where they cannot be removed.

    Args:
        model: any module.
        example: what it is called with, a tensor or a tuple of arguments.
        lam: λ ≥ 0, default 1.
        weighted: w_u = √n_u, n_u the entries of a group (default); else 1.
        unsupported: "refuse" (default) a function that units flow into and that cannot be followed, or "leave" them.

    Returns:
        From names of parameters that go together to `UnitL2`, or `GroupL2` where a weight makes its units alone.

    Raises:
        ValueError: for a function that cannot be followed, naming the module that calls it; for a model without units
            that may be removed.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.SiLU(), nn.Conv2d(3, 1, 3))
        >>> for names, regularizer in incoming_groups(model, torch.zeros(1, 1, 8, 8), lam=0.1).items():
        ...     print(names, regularizer)
        ('0.weight', '0.bias', '1.weight', '1.bias') UnitL2(lam=0.1, members='0:0-2;0:0-2;0:0-2;0:0-2', weighted=True)
    """
    graph = trace_units(model, example, unsupported=unsupported)
    return _rules(model, graph.makers(), graph.pinned, lam, weighted)


def _rules(
    model: nn.Module, axes: Iterable[Axis], pinned: dict[str, str], lam: float, weighted: bool
) -> dict[Key, Regularizer]:
    params = dict(model.named_parameters())
    chosen = {axis.name: axis for axis in reversed([axis for axis in axes if axis.name in params])}
    axes = [chosen[name] for name in params if name in chosen]
    frozen = {u for axis in axes if not params[axis.name].requires_grad for u in axis.units.tolist()}
    left = {axis.name: [u if u not in frozen else -1 for u in axis.units.tolist()] for axis in axes}
    dims = {axis.name: axis.dim for axis in axes if any(u >= 0 for u in left[axis.name])}
    if not dims:
        why = "; ".join(f"{name!r}: {reason}" for name, reason in list(pinned.items())[:3])
        raise ValueError(f"{type(model).__name__} has no trainable units that may be removed ({why})")
    rules: dict[Key, Regularizer] = {}
    for names in _components({name: left[name] for name in dims}):
        key, members = names[0] if len(names) == 1 else tuple(names), [(dims[n], left[n]) for n in names]
        rules[key] = _norm(members, [params[name] for name in names], lam, weighted)
    return rules


def _components(units: dict[str, list[int]]) -> list[list[str]]:
    """Return which tensors hang together by a unit that they share, each with its neighbours in their order."""
    component = {name: name for name in units}
    first: dict[int, str] = {}
    for name, own in units.items():
        for unit in {u for u in own if u >= 0}:
            old, new = component[name], component[first.setdefault(unit, name)]
            component = {each: new if root == old else root for each, root in component.items()}
    return [[name for name in units if component[name] == root] for root in dict.fromkeys(component.values())]


def _norm(members: Sequence[tuple[int, list[int]]], params: list[Tensor], lam: float, weighted: bool) -> Regularizer:
    if len(members) == 1 and (view := _as_view(*members[0], params[0])):
        return GroupL2(lam, view=view, weighted=weighted)
    order = {unit: None for _, units in members for unit in units if unit >= 0}
    number = {unit: i for i, unit in enumerate(order)} | {-1: -1}
    return UnitL2(lam, [Slices(dim, tuple(number[u] for u in units)) for dim, units in members], weighted)


def _as_view(dim: int, units: list[int], param: Tensor) -> str | None:
    """Return the view whose groups these are, None where there is none."""
    distinct = len(set(units))
    times, rest = divmod(len(units), distinct)
    if -1 in units or rest or units != torch.tensor(units[::times]).repeat_interleave(times).tolist():
        return None
    if dim == 0:
        return "rows" if times == 1 else f"heads({distinct})"
    return "columns" if times == 1 else f"blocks({param.shape[0]}, {times})" if dim == 1 else None
