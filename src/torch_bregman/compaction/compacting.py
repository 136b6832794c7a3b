"""From zeros to a smaller model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from torch_bregman.compaction.checking import first_difference, largest_difference
from torch_bregman.compaction.latency import measure_latency
from torch_bregman.compaction.living import Living, find_living
from torch_bregman.compaction.recipe import Step, apply_step, read_indices, slice_step
from torch_bregman.compaction.reports import CompactReport, Latency, layer_changes
from torch_bregman.compaction.sparse import sparsify_layers
from torch_bregman.compaction.thinning import Factors, thin_out
from torch_bregman.graph import UnitGraph, Unsupported, trace_units
from torch_bregman.layers import LowRankLinear, from_factored
from torch_bregman.metrics import cost_report
from torch_bregman.regularizers import Nuclear

if TYPE_CHECKING:
    from torch_bregman.optim import RegularizedOptimizer

FORMAT = 1
_TOLERANCE = 1e-5


@torch.no_grad()
def compact(
    model: nn.Module,
    example: Any,
    *,
    optimizer: RegularizedOptimizer | None = None,
    low_rank: bool = True,
    sparse: Literal["measured", "always", "never"] = "measured",
    fold_norms: bool = False,
    round_to: int = 1,
    batch_sizes: Sequence[int] = (1, 128),
    unsupported: Unsupported = "refuse",
    tolerance: float = _TOLERANCE,
) -> tuple[nn.Module, CompactReport]:
    """Return a smaller model that says the same in evaluation mode, and a report of what was done.

    - Units are removed that nothing reads, or that are the same for every input: what they add goes into the next bias.
    - Layers of low rank become two thin ones where that saves a fifth of the multiply-adds: linear ones, and
      convolutions as k × k and 1 × 1 or as 1 × k and k × 1. `LowRankLinear` becomes plain.
    - Linear layers with few non-zeros become `CSRLinear` where a short measurement here says that this is faster.

    The model is left as it is. Tied weights and shared modules stay so; what is frozen stays frozen. Batch
    normalisation in training would see other statistics where constants were folded.

    Args:
        model: any module that `graph.trace_units` can follow.
        example: what it is called with, a tensor or a tuple of arguments, the batch first.
        optimizer: whose factors of low-rank weights are used, so that none has to be decomposed.
        low_rank: whether to factorise, default True.
        sparse: "measured" (default), "always" where there are few non-zeros, or "never" CSR layers.
        fold_norms: multiply batch normalisation into the layer before it, default False: training cannot go on then.
        round_to: widths are multiples of this as far as there are units, default 1.
        batch_sizes: at which latency is measured, default 1 and 128; none for no measurement.
        unsupported: "refuse" (default) a function that units flow into and that cannot be followed, or "leave" them.
        tolerance: largest difference of outputs allowed, relative to the largest output, default 1e-5.

    Returns:
        The compact model, in the mode of the original, and the report.

    Raises:
        ValueError: for what cannot be followed; where outputs differ by more, naming the layer.

    Example:
        >>> import torch_bregman as tb
        >>> model = tb.models.mlp([6, 50, 3])
        >>> _ = model.fc2.weight.data[:, 4:].zero_()
        >>> small, report = compact(model, torch.randn(2, 6), batch_sizes=())
        >>> print(small.fc1, report.parameters)
        Linear(in_features=6, out_features=4, bias=True) (503, 43)
    """
    _check(round_to, batch_sizes, sparse, tolerance)
    dense = _dense(model)
    small, steps, graph = _cut(dense, example, round_to, unsupported, tolerance, fold_norms)
    if low_rank:
        steps += thin_out(small, _known_factors(model, optimizer, steps))
    if sparse != "never":
        steps += sparsify_layers(small, batch_sizes or (1,), measured=sparse == "measured")
    error = largest_difference(model, small, example)
    if not error <= tolerance:
        raise ValueError(
            f"the compact model differs from the original by {error:.1e} (relative), more than {tolerance:.1e}, from "
            f"layer {first_difference(dense, small, example, tolerance)} on: compact a float64 copy, or raise tolerance"
        )
    costs = (cost_report(model, example), cost_report(small, example))
    latencies = [Latency(n, *measure_latency([model, small], example, n)) for n in batch_sizes]
    report = CompactReport(
        layer_changes(dense, small, costs),
        (costs[0].parameters, costs[1].parameters),
        (costs[0].bytes, costs[1].bytes),
        (costs[0].macs, costs[1].macs),
        tuple(latencies),
        error,
        graph.pinned,
        {
            "format": FORMAT,
            "model": type(model).__name__,
            "state": signature(dense),
            "steps": steps,
            "compact": signature(small),
        },
    )
    return small, report


def signature(model: nn.Module) -> dict[str, list[int]]:
    """Return the shape of every tensor in the state of a model, tied ones once."""
    seen: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            seen.setdefault(id(tensor), name)
    state = model.state_dict(keep_vars=True)
    return {name: list(state[name].shape) for name in seen.values()}


def _check(round_to: int, batch_sizes: Sequence[int], sparse: str, tolerance: float) -> None:
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to must be a whole number >= 1, got {round_to!r}: 8 suits vector units")
    if any(not isinstance(n, int) or n < 1 for n in batch_sizes):
        raise ValueError(f"batch_sizes must be whole numbers >= 1, got {batch_sizes!r}: () measures nothing")
    if sparse not in ("measured", "always", "never"):
        raise ValueError(f"sparse must be 'measured', 'always' or 'never', got {sparse!r}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, got {tolerance!r}: 1e-5 suits float32")


def _dense(model: nn.Module) -> nn.Module:
    """Return a copy in plain layers."""
    dense = copy.deepcopy(model)
    if any(isinstance(module, LowRankLinear) for module in dense.modules()):
        dense = from_factored(dense)
    return dense


def _cut(
    dense: nn.Module, example: Any, round_to: int, unsupported: Unsupported, tolerance: float, fold_norms: bool
) -> tuple[nn.Module, list[Step], UnitGraph]:
    """Return a copy without dead units, trusting that lengths in the code follow from shapes, else without."""
    for trusting in (True, False):
        graph = trace_units(dense, example, unsupported=unsupported, trusting=trusting)
        small = copy.deepcopy(dense)
        steps = remove_units(small, graph, find_living(dense, graph, round_to))
        if fold_norms:
            steps += _fold_norms(small, graph)
        try:
            if largest_difference(dense, small, example) <= tolerance:
                break
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError):
            if not trusting:
                raise ValueError(
                    f"{type(dense).__name__} does not run without its dead units, from layer "
                    f"{first_difference(dense, small, example, tolerance)} on: its code counts on their number"
                ) from None
    return small, steps, graph


def remove_units(model: nn.Module, graph: UnitGraph, living: Living) -> list[Step]:
    """Remove dead units in place; return the steps that did it."""
    biases = {name: _offset(model, name, constants, living, graph) for name, constants in living.folded.items()}
    steps: list[Step] = []
    for name in biases:
        module = name.rpartition(".")[0]
        if model.get_submodule(module).bias is None:
            steps.append({"do": "bias", "module": module})
            apply_step(model, steps[-1])
    for name, offset in biases.items():
        bias: Any = model.get_submodule(name.rpartition(".")[0]).bias
        bias += offset
    added = {(f"{step['module']}.bias".lstrip("."), 0): f"{step['module']}.weight".lstrip(".") for step in steps}
    cuts = {key: living.kept[weight, 0] for key, weight in added.items() if (weight, 0) in living.kept}
    for (name, dim), mask in {**living.kept, **cuts}.items():
        steps.append(slice_step(name, dim, mask))
        apply_step(model, steps[-1])
    for name, module in dict(model.named_modules()).items():
        if _lost_heads(module):
            steps.append({"do": "heads", "module": name})
            apply_step(model, steps[-1])
    return steps


def _lost_heads(module: nn.Module) -> bool:
    weight = module.in_proj_weight if isinstance(module, nn.MultiheadAttention) else None
    return weight is not None and len(weight) < 3 * weight.shape[1]


def _offset(model: nn.Module, name: str, constants: Tensor, living: Living, graph: UnitGraph) -> Tensor:
    """Return what the units that go add to the outputs of a weight."""
    weight = model.get_parameter(name).detach()
    dim = next(axis.dim for axis in graph.readers() if axis.name == name)
    gone = ~living.kept[name, dim]
    columns = weight.movedim(dim, 0)[gone].double()
    values = constants[gone].nan_to_num(0.0).double()
    total = torch.tensordot(values, columns, dims=1)
    return total.flatten(1).sum(1).to(weight.dtype) if total.ndim > 1 else total.to(weight.dtype)


def _fold_norms(model: nn.Module, graph: UnitGraph) -> list[Step]:
    steps = []
    for weight, mean in graph.normalised.items():
        layer, norm = weight.rpartition(".")[0], mean.rpartition(".")[0]
        single = sum(p is model.get_parameter(weight) for m in set(model.modules()) for p in m._parameters.values())
        if single == 1 and isinstance(model.get_submodule(layer), (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            steps.append({"do": "fold", "module": layer, "norm": norm})
            apply_step(model, steps[-1])
    return steps


def _known_factors(
    model: nn.Module, optimizer: RegularizedOptimizer | None, steps: Sequence[Step]
) -> Mapping[str, Factors]:
    """Return the factors at hand, without the entries that were removed, by the name of their module."""
    names = {id(param): name for name, param in model.named_parameters()}
    found: dict[str, Factors] = {
        name: (module.left, module.right) for name, module in model.named_modules() if isinstance(module, LowRankLinear)
    }
    for group in optimizer.param_groups if optimizer is not None else []:
        regularizer = group["regularizer"]
        if isinstance(regularizer, Nuclear) and str(regularizer.view) == "rows":
            for param in group["params"]:
                name = names.get(id(param), "")
                if name.endswith("weight") and optimizer is not None:
                    found[name.rpartition(".")[0]] = optimizer.factors(param)
    return {name: _sliced(model, name, factors, steps) for name, factors in found.items()}


def _sliced(model: nn.Module, module: str, factors: Factors, steps: Sequence[Step]) -> Factors:
    left, right = factors
    for step in steps:
        if step["do"] == "fold" and step["module"] == module:
            return factors
        if step["do"] == "slice" and step["tensor"] == f"{module}.weight".lstrip("."):
            index = torch.tensor(read_indices(step["keep"]), dtype=torch.long)
            if step["dim"] == 0:
                left = left[:, index]
            else:
                shape = model.get_parameter(step["tensor"]).shape
                right = right.view(len(right), *shape[1:])[:, index].flatten(1)
    return left.contiguous(), right.contiguous()
