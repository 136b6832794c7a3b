"""Groups of what reads a unit: coarse steps on a network that has the active units only."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.compaction.recipe import owners
from torch_bregman.graph import Axis, trace_units
from torch_bregman.metrics import named_weights
from torch_bregman.multilevel.chain import Unsuited
from torch_bregman.multilevel.descent import Drift, descend
from torch_bregman.multilevel.form import CompactForm, group_index
from torch_bregman.multilevel.part import Cut, Part
from torch_bregman.multilevel.sleeping_gradient import SleepingGradient
from torch_bregman.multilevel.unit_norm import Member, UnitNorm, unit_norm
from torch_bregman.optim import MultilevelLinBreg
from torch_bregman.regularizers import GroupL2, NoRegularizer
from torch_bregman.unit_groups import outgoing_groups


class UnitForm(CompactForm):
    """Trains a model under norms on what reads a unit; between fine steps it is smaller by the units that sleep.

    The small model is a copy whose tensors are cut: any model that `graph.trace_units` follows will do, convolutions,
    pooling, normalisation, flattening and residual sums among them. Filters come in multiples of `round_to`, with
    sleeping ones among them, for convolutions cost in such steps. A fine step takes a forward pass of the whole model
    besides (`SleepingGradient`), and a step of the optimizer on all of it; where a weight is used in other ways than by
    a linear layer or a convolution, forward and backward passes are those of the whole model.

    What sleeping units have (incoming weights, momentum) goes on as it would by masks; only running statistics of
    normalisation stand still, which nothing sees.

    Args:
        model: with norms of `outgoing_groups`.
        optimizer: `MultilevelLinBreg` of its parameters.
        example: a batch of inputs.
        round_to: of the number of filters, default 16.

    Raises:
        Unsuited: for a model that cannot be followed, grouped convolutions, attention, other groups, δ ≠ 1 or weight
            decay under a norm.
    """

    def __init__(self, model: nn.Module, optimizer: MultilevelLinBreg, example: Tensor, round_to: int = 16) -> None:
        super().__init__(model, optimizer)
        _check_modules(model)
        try:
            self._graph = trace_units(model, example)
            rules = outgoing_groups(model, example)
        except ValueError as error:
            raise Unsuited(str(error)) from None
        self._round_to, self._units = round_to, max(self._graph.units()) + 1
        self._tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._group = {name: group_index(optimizer, p) for name, p in model.named_parameters()}
        self._small = copy.deepcopy(model)
        self._owners = {name: owners(self._small, name) for name in self._tensors}
        self._axes: dict[str, list[Axis]] = {}
        for axis in self._graph.axes:
            self._axes.setdefault(axis.name, []).append(axis)
        self._norms = {
            index: norms for index in range(len(optimizer.param_groups)) if (norms := self._of(index, rules))
        }
        self._parts: dict[str, Part] | None = None
        self._sleeping: SleepingGradient | None = None
        self._passing: dict[str, Part] = {}
        self._wide = False
        self._try(example)

    def _of(self, index: int, rules: dict[Any, Any]) -> list[UnitNorm]:
        """Return the norms of an optimizer's group, one for each weight, or one for all."""
        group = self.optimizer.param_groups[index]
        regularizer = group["regularizer"]
        if isinstance(regularizer, NoRegularizer):
            return []
        _check_group(group)
        own = {id(tensor): name for name, tensor in self._tensors.items()}
        names = [own.get(id(param), "?") for param in group["params"]]
        for key in [tuple(names)] if regularizer.joint else names:
            if key not in rules or _plain(rules[key].spec()) != _plain(regularizer.spec()):
                raise Unsuited(
                    f"the regularizer {regularizer.name} of {key} is no norm on what reads a unit (outgoing_groups "
                    "makes those)"
                )
        parts = [names] if regularizer.joint else [[name] for name in names]
        return [self._norm(regularizer, each) for each in parts]

    def _norm(self, regularizer: Any, names: list[str]) -> UnitNorm:
        params = [self._tensors[name] for name in names]
        if isinstance(regularizer, GroupL2):
            axis = self._reader(names[0])
            ids = axis.units.unique(return_inverse=True)[1]
            return unit_norm(regularizer, [Member(names[0], axis.dim, ids)], params)
        pairs = zip(names, regularizer.slices, params, strict=True)
        return unit_norm(regularizer, [Member(name, each.dim, each.index(p)) for name, each, p in pairs], params)

    def _reader(self, name: str) -> Axis:
        return next(axis for axis in self._axes[name] if axis.role == "reads")

    @torch.no_grad()
    def _try(self, example: Tensor) -> None:
        """See whether the code of the model runs with fewer units."""
        some = {axis.name for axis in self._graph.readers()}
        units = torch.tensor(self._graph.units())
        alive = torch.zeros(self._units, dtype=torch.bool)
        alive[units[::2]] = True
        try:
            for name, tensor in self._tensors.items():
                self._replace(name, Part(tensor, self._cuts(name, alive), None, None).values)
            self._small.eval()
            names = [member.name for norms in self._norms.values() for norm in norms for member in norm.members]
            sleeping = SleepingGradient(self.model, self._small, names)
            if sleeping.knows(example):
                self._sleeping = sleeping
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = " ".join(str(error).split())[:160]
            raise Unsuited(
                f"{type(self.model).__name__} does not run without half of the units that {sorted(some)[0]} and others "
                f"read ({reason})"
            ) from None

    def _cuts(self, name: str, alive: Tensor) -> list[Cut]:
        """Return the dimensions of a tensor that lose something, and what stays."""
        cuts = []
        for axis in {axis.dim: axis for axis in self._axes.get(name, [])}.values():
            stays = (axis.units < 0) | alive[axis.units.clamp_min(0)]
            if not bool(stays.all()):
                cuts.append((axis.dim, stays.nonzero().view(-1).to(self._tensors[name].device)))
        return cuts

    def _replace(self, name: str, values: Tensor) -> Tensor:
        full = self._tensors[name]
        made: Any = nn.Parameter(values, requires_grad=full.requires_grad) if isinstance(full, nn.Parameter) else values
        for module, key in self._owners[name]:
            held: Any = module._parameters if isinstance(full, nn.Parameter) else module._buffers
            held[key] = made
        return made

    @torch.no_grad()
    def _take(self) -> None:
        if self._parts is not None:
            return
        awake = self._awake_masks()
        self._parts = self._cut(self._rounded(self._alive(awake)))
        self._drifts = [Drift() for _ in self.optimizer.param_groups]
        self._lams: dict[int, float] = {}
        for index, norms in self._norms.items():
            for norm in norms:
                if not self._is_frozen(index):
                    norm.begin(self._parts, awake)
                    continue
                for name in (member.name for member in norm.members if member.name in awake):
                    self._parts[name].hold(awake[name])
        self._follow_modes()

    def _cut(self, alive: Tensor) -> dict[str, Part]:
        """Give the small model what is left of all tensors."""
        parts, self._leaves = {}, {}
        for name, full in self._tensors.items():
            state = self.optimizer.state.get(full, {})
            parts[name] = Part(full, self._cuts(name, alive), state.get("subgrad"), state.get("momentum_buffer"))
            self._leaves[name] = self._replace(name, parts[name].values)
        return parts

    def _awake_masks(self) -> dict[str, Tensor]:
        """Return the supports of the weights that have one."""
        found = {}
        for index, norms in self._norms.items():
            names = [member.name for norm in norms for member in norm.members]
            if self._is_frozen(index):
                masks = [self.masks.get(id(self._tensors[name])) for name in names]
            else:
                masks = self.optimizer.supports_of(self.optimizer.param_groups[index])
            found |= {name: mask for name, mask in zip(names, masks, strict=True) if mask is not None}
        return found

    def _is_frozen(self, index: int) -> bool:
        return isinstance(self.optimizer.param_groups[index]["regularizer"], NoRegularizer)

    def _alive(self, awake: dict[str, Tensor]) -> Tensor:
        """Return which units are read by something that is awake, or has no norm."""
        alive = torch.zeros(self._units, dtype=torch.bool)
        for axis in self._graph.readers():
            read = axis.units >= 0
            if axis.name in awake:
                read &= awake[axis.name].movedim(axis.dim, 0).flatten(1).any(1).cpu()
            alive[axis.units[read]] = True
        return alive

    def _rounded(self, alive: Tensor) -> Tensor:
        """Let sleeping filters take part up to the next multiple, and one unit where a layer would have none."""
        for axis in self._graph.makers():
            if axis.role != "makes":
                continue
            multiple = self._round_to if self._tensors[axis.name].ndim > 2 else 1
            units = axis.units
            width = int(((units < 0) | alive[units.clamp_min(0)]).sum())
            missing = -width % multiple if width else 1
            asleep = units[(units >= 0) & ~alive[units.clamp_min(0)]]
            alive[asleep[:missing]] = True
        return alive

    def _follow_modes(self) -> None:
        for own, copied in zip(self.model.modules(), self._small.modules(), strict=True):
            copied.training = own.training

    def _forward(self, x: Tensor, fine: bool) -> Tensor:
        self._wide = fine and not self.masks
        if self._wide:
            self.write()
            return self.model(x) if self._sleeping is None else self._forward_both(self._sleeping, x)
        if self._small.training != self.model.training:
            self._follow_modes()
        return self._small(x)

    def _forward_both(self, sleeping: SleepingGradient, x: Tensor) -> Tensor:
        """Return the outputs of the small model, so that with its backward pass all gradients can be had."""
        with torch.no_grad():
            self._passing = self._cut(self._rounded(self._alive(self._awake_masks())))
            with sleeping.inputs():
                self.model(x)
        self._follow_modes()
        with sleeping.outputs():
            return self._small(x)

    def _spread_gradients(self, sleeping: SleepingGradient) -> None:
        """Give the parameters of the whole model their gradients, and its buffers what those of the small one are."""
        for name, part in self._passing.items():
            leaf, full = self._leaves[name], self._tensors[name]
            if not isinstance(full, nn.Parameter):
                part.put_back()
            elif leaf.grad is not None:
                full.grad = part.spread(leaf.grad, sleeping.of(name) if sleeping.reads(name, part) else None)
        sleeping.forget()
        self._passing = {}

    @torch.no_grad()
    def _update(self, fine: bool) -> None:
        if self._wide:
            if self._sleeping is not None:
                self._spread_gradients(self._sleeping)
            self.optimizer.step()
            return
        assert self._parts is not None
        for index, group in enumerate(self.optimizer.param_groups):
            if not float(group["lr"]):
                continue
            for name, part in self._parts.items():
                if self._group.get(name) == index:
                    self._descend(part, self._leaves[name], group)
            self._drifts[index].step(group)
            if index in self._norms and not self._is_frozen(index):
                self._lams[index] = group["lam"]
                for norm in self._norms[index]:
                    norm.map(group["lam"], self._drifts[index])
        self.optimizer.step()  # nothing has a gradient there: it counts the step

    @staticmethod
    def _descend(part: Part, leaf: Tensor, group: dict[str, Any]) -> None:
        grad, leaf.grad = leaf.grad, None
        if grad is None:
            return
        if part.still is not None:
            grad = grad * part.still
        part.buffer = descend(part.dual, part.values, grad, part.buffer, group)

    def settle(self) -> None:
        """Bring the dual variables in the optimizer up to date."""
        self.write()

    @torch.no_grad()
    def write(self) -> None:
        """Give weights and state back to model and optimizer."""
        if self._parts is None:
            return
        for name, part in self._parts.items():
            index = self._group.get(name, -1)
            if index >= 0 and part.cuts:
                self._drifts[index].apply(part.full if part.full_dual is None else part.full_dual, part.full_buffer)
            part.put_back()
            if part.full_buffer is not None:
                self.optimizer.state[self._tensors[name]]["momentum_buffer"] = part.full_buffer
        for index, lam in self._lams.items():
            for norm in self._norms[index]:
                norm.spread(lam, self._drifts[index])
            group = {**self.optimizer.param_groups[index], "lam": lam}
            for param in group["params"]:
                self.optimizer.written(param, group)
        self._parts = None

    def awake(self) -> dict[str, int]:
        """Return how many entries of each weight take part in a coarse step, by its name."""
        self._take()
        assert self._parts is not None
        return {name: self._parts[name].values.numel() for name in named_weights(self.model)}


def _plain(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "weighted"}


def _check_group(group: dict[str, Any]) -> None:
    if group["delta"] != 1:
        raise Unsuited(f"delta is {group['delta']:g}, and units are compact for delta 1 only")
    if group["weight_decay"]:
        raise Unsuited(f"weight_decay is {group['weight_decay']:g}, and units under a norm are compact without")


def _check_modules(model: nn.Module) -> None:
    for name, module in model.named_modules():
        grouped = getattr(module, "groups", 1) != 1
        if grouped or isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
            what = "has groups of channels" if grouped else "is not cut while it trains"
            raise Unsuited(f"module {name!r} ({type(module).__name__}) {what}")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Unsuited(f"{type(model).__name__} has forward hooks, which would not be called")
