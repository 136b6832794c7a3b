"""The gradient of weights on units that sleep, without a backward pass through the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torch_bregman.compaction.recipe import owners
from torch_bregman.multilevel.part import Part

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SleepingGradient:
    """∂L/∂W = Σ ∂y xᵀ of layers that read units, with x from the whole model and ∂y from the small one.

    What reads a sleeping unit is zero, so that outputs, and ∂y of active units, are those of the small model, and ∂y of
    sleeping ones is 0. A forward pass of the whole model gives x of all units; its backward pass is not needed.

    Args:
        model: the whole model.
        small: its copy without sleeping units.
        names: of the weights that read units.
    """

    def __init__(self, model: nn.Module, small: nn.Module, names: Sequence[str]) -> None:
        self._whole = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
        self._small = {name: small.get_submodule(name.rpartition(".")[0]) for name in names}
        self._small_model = small
        self._seen: dict[str, list[Tensor]] = {}
        self._felt: dict[str, dict[int, Tensor]] = {}

    def knows(self, example: Tensor) -> bool:
        """Run the small model; return whether each weight is used by a linear layer or a convolution alone.

        Args:
            example: a batch of inputs.
        """
        weights = {id(self._small_model.get_parameter(name)): name for name in self._small}
        calls, uses = dict.fromkeys(self._small, 0), _Uses(weights)

        def count(name: str) -> None:
            calls[name] += 1

        with uses, _hooked(self._small, lambda name, *_: count(name)):
            self._small_model(example)
        return calls == uses.counts and all(map(self._is_plain, self._small))

    def _is_plain(self, name: str) -> bool:
        module: Any = self._small[name]
        alone = name.endswith("weight") and len(owners(self._small_model, name)) == 1
        padded = getattr(module, "padding_mode", "zeros") != "zeros" or isinstance(getattr(module, "padding", 0), str)
        return type(module) in _LAYERS and alone and not padded

    @contextmanager
    def inputs(self) -> Iterator[None]:
        """Remember what the layers of the whole model are called with."""
        self._seen = {name: [] for name in self._whole}
        with _hooked(self._whole, lambda name, x, _: self._seen[name].append(x.detach())):
            yield

    @contextmanager
    def outputs(self) -> Iterator[None]:
        """Let the backward pass of the small model remember the gradients of its layers' outputs."""
        self._felt = {name: {} for name in self._small}
        counts = dict.fromkeys(self._small, 0)

        def watch(name: str, _: Tensor, y: Tensor) -> None:
            call, felt = counts[name], self._felt[name]
            counts[name] += 1
            if y.requires_grad:
                y.register_hook(lambda grad: felt.__setitem__(call, grad))

        with _hooked(self._small, watch):
            yield

    def of(self, name: str) -> Tensor:
        """Return the gradient of a weight in the rows of active units, over all units that it reads.

        Args:
            name: of the weight.
        """
        module = self._whole[name]
        found = [self._product(module, self._seen[name][call], dy) for call, dy in self._felt[name].items()]
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)

    def reads(self, name: str, part: Part) -> bool:
        """Return whether a weight reads units that are not in its part."""
        return name in self._whole and any(dim == 1 for dim, _ in part.cuts)

    def forget(self) -> None:
        """Let go of activations."""
        self._seen, self._felt = {}, {}

    @staticmethod
    def _product(module: Any, x: Tensor, dy: Tensor) -> Tensor:
        if isinstance(module, nn.Linear):
            return dy.flatten(0, -2).t() @ x.flatten(0, -2)
        rows = module.weight.detach()[: dy.shape[1 if x.dim() == module.weight.dim() else 0]]
        if x.dim() < module.weight.dim():
            x, dy = x[None], dy[None]
        options = module.stride, module.padding, module.dilation, False, [0] * len(module.stride), module.groups
        return torch.ops.aten.convolution_backward(dy, x, rows, None, *options, (False, True, False))[1]


class _Uses(TorchFunctionMode):
    """Counts the functions that are called with one of some weights."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self._names, self.counts = names, dict.fromkeys(names.values(), 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            for each in (*args, *(kwargs or {}).values()):
                if id(each) in self._names:
                    self.counts[self._names[id(each)]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _hooked(modules: dict[str, nn.Module], told: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Tell of name, input and output of every call of some modules."""

    def tell(name: str, args: Any, y: Any) -> None:
        if args:  # else the input has a name, and `knows` will miss a call
            told(name, args[0], y)

    handles = [
        module.register_forward_hook(lambda _, args, y, name=name: tell(name, args, y))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
