"""ℓ1 on chains of linear layers: coarse steps on weights in compressed sparse rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.layers.support import SupportLinear, Workspace
from torch_bregman.multilevel.chain import Unsuited, columnwise, linear_chain
from torch_bregman.multilevel.form import CompactForm, group_index
from torch_bregman.multilevel.native.matrix import program, transposed
from torch_bregman.multilevel.sparse_weight import SparseWeight
from torch_bregman.optim import MultilevelLinBreg
from torch_bregman.regularizers import L1, NoRegularizer


@dataclass(eq=False)
class _Place:
    """A linear layer of the chain."""

    name: str
    linear: nn.Linear
    group: int
    relu: bool
    below: float
    room: Workspace
    compact: SparseWeight | None = None


class SparseForm(CompactForm):
    """Trains a chain of linear layers under ℓ1 on the support alone.

    Activations are features × batch throughout. A layer is compact while its density is at most its mark;
    else, and where its weight has no ℓ1 norm, it takes part with its dense weight, by masks. What a fine step adds to v
    is one product into v; no dense gradient exists.

    Args:
        model: a chain, see `linear_chain`.
        optimizer: `MultilevelLinBreg` with ℓ1 on some of its weights.
        below: the mark of each layer, by its name; one that is missing is never compact.
        compiled: take the products of float32 weights by a C program, in one thread; default False.

    Raises:
        Unsuited: for another model; for weights that are shared, not on a CPU, or not float32 or float64; where no
            weight has an ℓ1 norm.
        CompilerError: where `compiled` finds no C compiler, or it fails.
    """

    def __init__(
        self, model: nn.Module, optimizer: MultilevelLinBreg, below: Mapping[str, float], *, compiled: bool = False
    ) -> None:
        super().__init__(model, optimizer)
        chain = linear_chain(model)
        self._layers: list[_Place | nn.Module] = []
        for number, (name, module) in enumerate(chain):
            follows = chain[number + 1][1] if number + 1 < len(chain) else None
            if isinstance(module, nn.Linear):
                _check(name, module)
                index = group_index(optimizer, module.weight)
                relu = type(follows) is nn.ReLU
                room = Workspace((module.out_features, module.in_features), module.weight.dtype)
                self._layers.append(_Place(name, module, index, relu, 0.0, room))
            elif not (type(module) is nn.ReLU and isinstance(self._last, _Place)):
                self._layers.append(module)
        self.places = [layer for layer in self._layers if isinstance(layer, _Place)]
        if len({id(place.linear.weight) for place in self.places}) < len(self.places):
            raise Unsuited(f"{type(model).__name__} has linear layers that share a weight")
        sparse = [place for place in self.places if place.group >= 0 and self._has_l1(place)]
        if not sparse:
            raise Unsuited(f"{type(model).__name__} has no linear layer under l1")
        for place in sparse:
            place.below = below.get(place.name, 0.0)
        self._taken, self._compiled = False, compiled
        if compiled:
            program()
        self._anchor = torch.empty(0, requires_grad=True)

    @property
    def _last(self) -> Any:
        return self._layers[-1] if self._layers else None

    def _has_l1(self, place: _Place) -> bool:
        return type(self.optimizer.param_groups[place.group]["regularizer"]) is L1

    @torch.no_grad()
    def _take(self) -> None:
        if self._taken:
            return
        for place in self.places:
            self._take_one(place)
        self._taken = True

    def _take_one(self, place: _Place) -> None:
        mask = self._mask(place)
        if mask is not None and int(mask.sum()) <= place.below * mask.numel():
            frozen = self.masks.get(id(place.linear.weight))
            place.compact = SparseWeight(
                place.linear.weight, self.optimizer, place.group, frozen, compiled=self._compiled
            )

    def _mask(self, place: _Place) -> Tensor | None:
        """Return the support of a weight that could be compact."""
        weight, group = place.linear.weight, self.optimizer.param_groups[place.group]
        if not place.below:
            return None
        if self._has_l1(place) and group["m"]:
            return self.optimizer.support(weight, group)
        plain = type(group["regularizer"]) is NoRegularizer and group["delta"] == 1
        return self.masks.get(id(weight)) if plain else None

    def _forward(self, x: Tensor, fine: bool) -> Tensor:
        h = self._columns(x.flatten(1))
        for layer in self._layers:
            h = self._linear(layer, h, fine) if isinstance(layer, _Place) else columnwise(layer, h)
        return h.t()

    def _columns(self, x: Tensor) -> Tensor:
        """Return features × batch."""
        native = self._compiled and x.dtype is torch.float32 and x.is_contiguous() and not x.requires_grad
        return transposed(x) if native else x.t().contiguous()

    def _linear(self, place: _Place, h: Tensor, fine: bool) -> Tensor:
        weight, bias, compact = place.linear.weight, place.linear.bias, place.compact
        if compact is not None:
            if not torch.is_grad_enabled():
                h = compact.matrix.matmul(h)
                h = h if bias is None else h.add_(bias[:, None])
                return h.relu_() if place.relu else h
            options = place.relu, compact.see_all if fine else compact.see
            return SupportLinear.apply(h, bias, self._anchor, compact.matrix, place.room, options)
        h = weight @ h if bias is None else torch.addmm(bias[:, None], weight, h)
        return h.relu_() if place.relu else h

    @torch.no_grad()
    def _update(self, fine: bool) -> None:
        for place in self.places:
            if place.compact is not None:
                place.compact.step(fine)
        self.optimizer.step()
        if fine:
            self._reconsider()

    def _reconsider(self) -> None:
        """After a fine step, change the form of the layers whose density has passed the mark."""
        for place in self.places:
            if place.compact is None:
                self._take_one(place)
            elif place.compact.density > place.below:
                place.compact.write()
                place.compact = None

    def settle(self) -> None:
        """Bring the dual variables in the optimizer up to date."""
        for place in self.places:
            if place.compact is not None:
                place.compact.settle()

    def write(self) -> None:
        """Give weights and state back to model and optimizer."""
        for place in self.places:
            if place.compact is not None:
                place.compact.write()
                place.compact = None
        self._taken = False

    def state_dict(self) -> dict[str, Any]:
        """Return the marks of the layers."""
        return {"below": {place.name: place.below for place in self.places}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        for place in self.places:
            place.below = state_dict["below"][place.name]

    def awake(self) -> dict[str, int]:
        """Return how many entries of each weight take part in a coarse step, by its name."""
        return {f"{place.name}.weight": self._count(place) for place in self.places}

    def _count(self, place: _Place) -> int:
        if place.compact is not None:
            return place.compact.entries
        weight = place.linear.weight
        awake = self.optimizer.state.get(weight, {}).get("awake")
        return weight.numel() if awake is None else int(awake.sum())


def _check(name: str, linear: nn.Linear) -> None:
    weight = linear.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        raise Unsuited(f"module {name!r} (Linear) has {weight.dtype} weights on {weight.device}, not floats on a CPU")
    if not weight.requires_grad or weight._backward_hooks:
        raise Unsuited(f"module {name!r} (Linear) has a weight that is frozen, or has hooks on its gradient")
