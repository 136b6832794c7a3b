"""Which units of a model do something, and what those that do nothing leave in the biases behind them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_bregman.graph import Axis, UnitGraph


@dataclass(frozen=True, eq=False)
class Living:
    """What is left of a model without its dead units.

    Args:
        kept: for every dimension of a tensor that loses entries, which ones stay.
        folded: for weights that read units which are always the same, what these add to the bias.
    """

    kept: dict[tuple[str, int], Tensor]
    folded: dict[str, Tensor]


def find_living(model: nn.Module, graph: UnitGraph, round_to: int = 1) -> Living:
    """Return what stays.

    A unit is dead where all that reads it is zero, rows of dead units left aside, or where it is the same for every
    input and can be folded into the biases of what reads it.

    Args:
        model: whose weights are looked at.
        graph: of the same model.
        round_to: widths are rounded up to multiples of this, as far as there are units.
    """
    tensors: dict[str, Tensor] = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    constants = _foldable(model, graph)
    count = 1 + max(graph.units(), default=0)
    alive = torch.zeros(count, dtype=torch.bool)
    for unit in graph.units():
        alive[unit] = True
    while True:
        now = alive & _needed(tensors, graph, constants, alive)
        if torch.equal(now, alive):
            break
        alive = now
    alive = _rounded(graph, alive, round_to)
    kept = {(axis.name, axis.dim): _stays(axis, alive) for axis in graph.axes}
    folded = {
        axis.name: constants[axis.name]
        for axis in graph.readers()
        if bool((~_stays(axis, alive) & (constants[axis.name].nan_to_num(0.0) != 0)).any())
    }
    return Living({key: mask for key, mask in kept.items() if not bool(mask.all())}, folded)


def _foldable(model: nn.Module, graph: UnitGraph) -> dict[str, Tensor]:
    """Return the constants that a bias can take up: those of weights with one owner; 0 is no burden to any."""
    owners = Counter(id(p) for m in set(model.modules()) for p in m._parameters.values() if p is not None)
    params = dict(model.named_parameters())
    found = {}
    for name, constants in graph.constants.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        single = owners[id(params[name])] == 1 and name.endswith("weight") and hasattr(owner, "bias")
        found[name] = constants if single else torch.where(constants == 0, constants, float("nan"))
    return found


def _needed(tensors: dict[str, Tensor], graph: UnitGraph, constants: dict[str, Tensor], alive: Tensor) -> Tensor:
    """Return which units are read by a weight that is not zero, and are not the same for every input."""
    read, varying = torch.zeros_like(alive), torch.zeros_like(alive)
    for axis in graph.readers():
        used = _used_columns(tensors[axis.name], axis, graph, alive)
        free = axis.units >= 0
        read[axis.units[free & used]] = True
        varying[axis.units[free & used & constants[axis.name].isnan()]] = True
    return read & varying


def _used_columns(weight: Tensor, axis: Axis, graph: UnitGraph, alive: Tensor) -> Tensor:
    """Return which slices of a weight hold a non-zero in the row of a living unit."""
    nonzero = weight != 0
    for other in graph.axes:
        if other.name == axis.name and other.dim != axis.dim:
            rows = _stays(other, alive)
            nonzero = nonzero & rows.view([-1 if d == other.dim else 1 for d in range(weight.ndim)])
    return nonzero.movedim(axis.dim, 0).flatten(1).any(1)


def _stays(axis: Axis, alive: Tensor) -> Tensor:
    return (axis.units < 0) | alive[axis.units.clamp_min(0)]


def _rounded(graph: UnitGraph, alive: Tensor, round_to: int) -> Tensor:
    """Let dead units live where a layer would have none, or a width that is no multiple of `round_to`."""
    alive = alive.clone()
    for axis in graph.makers():
        for index in range(len(axis.units)):
            width = int(_stays(axis, alive).sum())
            if width and width % round_to == 0:
                break
            unit = int(axis.units[index])
            if unit >= 0:
                alive[unit] = True
    return alive
