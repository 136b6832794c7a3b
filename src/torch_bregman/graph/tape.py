"""Watching a model run: every call of torch, with the units and the constants that flow through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torch_bregman.graph.labels import FIXED, Labels
from torch_bregman.graph.units import Axis, Role, UnitGraph

NAN = float("nan")


class Value(NamedTuple):
    """What is known of a tensor: the unit of each entry, and its value where that is always the same, else nan."""

    labels: Tensor
    constant: Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function of torch."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    where: str
    """The module that made it, "name (type)"."""

    @property
    def name(self) -> str:
        """The function's name without underscores: in-place and operator forms are one with the plain one."""
        return getattr(self.function, "__name__", str(self.function)).strip("_")

    def bind(self, *names: str) -> list[Any]:
        """Return arguments by their names; None where they were not given."""
        return [self.args[i] if i < len(self.args) else self.kwargs.get(name) for i, name in enumerate(names)]

    def rerun(self, replace: Callable[[Tensor], Tensor]) -> Any:
        """Return what the function makes of other tensors in the place of its own."""
        args, kwargs = tree_map(lambda x: replace(x) if isinstance(x, Tensor) else x, (self.args, self.kwargs))
        return self.function(*args, **kwargs)

    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]


Rule = Callable[["Tape", Call], None]


class Tape(TorchFunctionMode):
    """Follows units and constants through everything that a model calls.

    Args:
        model: in evaluation mode.
        rules: what to do for each function, by name.
        trusting: whether sizes given to `view` and its like are taken to follow from the tensor's own shape.
        refuse: whether a function without a rule is an error; else what it reads is pinned.
    """

    def __init__(self, model: nn.Module, rules: dict[str, Rule], *, trusting: bool = True, refuse: bool = True) -> None:
        super().__init__()
        self.labels = Labels()
        self.trusting, self._refuse, self._rules = trusting, refuse, rules
        state = [*model.named_buffers(), *model.named_parameters()]
        self.names = {id(tensor): name for name, tensor in reversed(state)}
        self._axes: dict[tuple[str, int], Tensor] = {}
        self._roles: dict[tuple[str, int], list[Role]] = {}
        self._constants: dict[str, Tensor] = {}
        self._locked: dict[str, str] = {}
        self._values: dict[int, Value] = {}
        self._uses: Counter[int] = Counter()
        self._calls: Counter[str] = Counter()
        self._products: dict[int, str] = {}
        self._normalised: dict[str, tuple[str, int]] = {}
        self._kept: list[Tensor] = []  # an id stands for a tensor only while that lives
        self._modules = [f"the model ({type(model).__name__})"]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, then follow what went in to what came out."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        call = Call(func, args, kwargs, output, self._modules[-1])
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            self._follow(call)
        return output

    def _follow(self, call: Call) -> None:
        tensors = call.tensors()
        active = [tensor for tensor in tensors if id(tensor) in self._values]
        self._uses.update(id(tensor) for tensor in active)
        if active and call.name in self._rules:
            self._rules[call.name](self, call)
            return
        if active and self._refuse and any(bool(self.is_free(self.value(t).labels).any()) for t in active):
            raise ValueError(
                f"cannot follow units through module {call.where}: torch's {call.name!r} has no rule here; pass "
                "unsupported='leave' to keep all units that reach it"
            )
        self.stop(call, f"{call.name!r} in module {call.where} is not supported")

    def stop(self, call: Call, reason: str) -> None:
        """Pin all units that go in, and let nothing of them come out."""
        for tensor in call.tensors():
            self.value(tensor, reason)
            if id(tensor) in self._values:
                self.labels.pin(self._values[id(tensor)].labels, reason)
        for leaf in tree_leaves(call.output):
            if isinstance(leaf, Tensor) and id(leaf) not in self.names:
                self.put(leaf, fixed(leaf))

    def value(self, tensor: Tensor, reason: str | None = None) -> Value:
        """Return what is known of a tensor; a parameter that is met outside of a rule is locked."""
        if id(tensor) in self._values:
            found = self._values[id(tensor)]
            return Value(self.labels.find(found.labels), found.constant)
        if id(tensor) in self.names:
            name = self.names[id(tensor)]
            self._locked.setdefault(name, reason or f"{name!r} is used outside of its layer")
        return fixed(tensor)

    def put(self, tensor: Tensor, value: Value) -> None:
        """Say what is known of a tensor."""
        self._kept.append(tensor)
        self._values[id(tensor)] = value

    def is_active(self, tensor: object) -> bool:
        """Return whether a tensor depends on the input."""
        return id(tensor) in self._values

    def is_free(self, labels: Tensor) -> Tensor:
        """Return which entries belong to units that may be removed."""
        return self.labels.is_free(labels)

    def axis(self, tensor: Tensor | None, dim: int, role: Role, units: Tensor) -> None:
        """Say which units run along a dimension of a parameter or buffer."""
        if tensor is None:
            return
        key = (self.names[id(tensor)], dim)
        self._note_role(key, role)
        self.labels.merge(self._axes.setdefault(key, units), units)

    def made(self, weight: Tensor, dim: int) -> Tensor:
        """Return the units that a dimension of a weight makes, the same at every call."""
        key = (self.names[id(weight)], dim)
        self._note_role(key, "makes")
        if key not in self._axes:
            self._axes[key] = self.labels.new(weight.shape[dim])
        return self.labels.find(self._axes[key])

    def _note_role(self, key: tuple[str, int], role: Role) -> None:
        roles = self._roles.setdefault(key, [])
        if role not in roles:
            roles.append(role)

    def reads_constants(self, weight: Tensor, constants: Tensor) -> None:
        """Say which inputs of a weight are always the same; where calls differ, none is."""
        name = self.names[id(weight)]
        before = self._constants.get(name, constants)
        self._constants[name] = torch.where(before == constants, constants, NAN)

    def note_product(self, output: Tensor, weight: Tensor) -> None:
        """Say which weight an activation is a product with."""
        name = self.names[id(weight)]
        self._products[id(output)] = name
        self._calls[name] += 1

    def note_norm(self, x: Tensor, mean: Tensor) -> None:
        """Say that an activation goes into a batch normalisation with known statistics."""
        name = self.names[id(mean)]
        self._calls[name] += 1
        if id(x) in self._products:
            self._normalised[self._products[id(x)]] = (name, id(x))

    def _foldable(self) -> dict[str, str]:
        """Return which weights have nothing but a batch normalisation behind them, and its running mean."""
        return {
            weight: mean
            for weight, (mean, x) in self._normalised.items()
            if self._uses[x] == 1 and self._calls[weight] == 1 and self._calls[mean] == 1
        }

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Follow what happens within; know which module is at work."""
        handles = []
        for name, module in model.named_modules():
            if name:
                handles += self._hooks(f"{name!r} ({type(module).__name__})", module)
        try:
            with self, torch.no_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, label: str, module: nn.Module) -> list[Any]:
        enter = module.register_forward_pre_hook(lambda *_: self._modules.append(label))
        leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
        return [enter, leave]

    def _leave(self) -> None:
        self._modules.pop()

    def result(self, output: Any) -> UnitGraph:
        """Return the graph; what reaches the output of the model may not be removed."""
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and id(leaf) in self._values:
                self.labels.pin(self._values[id(leaf)].labels, "it reaches the output of the model")
        for (name, _), units in self._axes.items():
            if name in self._locked:
                self.labels.pin(units, self._locked[name])
        axes = [
            Axis(*key, role, self._removable(units)) for key, units in self._axes.items() for role in self._roles[key]
        ]
        return UnitGraph(tuple(axes), self._constants, self._why(), self._foldable())

    def _removable(self, units: Tensor) -> Tensor:
        return torch.where(self.is_free(units), self.labels.find(units), -1)

    def _why(self) -> dict[str, str]:
        reasons, found = self.labels.reasons(), {}
        for key, units in self._axes.items():
            pinned = [unit for unit in self.labels.find(units).unique().tolist() if unit in reasons]
            if "makes" in self._roles[key] and pinned:
                found[key[0]] = reasons[pinned[0]]
        return found


def fixed(tensor: Tensor) -> Value:
    """Return that nothing may be removed of a tensor, and nothing is known of its entries."""
    dtype = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
    return Value(torch.full(tensor.shape, FIXED), torch.full(tensor.shape, NAN, dtype=dtype))
