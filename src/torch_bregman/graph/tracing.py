"""From a model and an example to the graph of its units."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_bregman.graph.tape import Tape, fixed
from torch_bregman.graph.units import UnitGraph
from torch_bregman.graph.unweighted import UNWEIGHTED
from torch_bregman.graph.weighted import WEIGHTED

Unsupported: TypeAlias = Literal["refuse", "leave"]


def trace_units(
    model: nn.Module, example: Any, *, unsupported: Unsupported = "refuse", trusting: bool = True
) -> UnitGraph:
    """Return who makes, carries and reads each unit of a model, from one run in evaluation mode.

    Followed are linear layers, convolutions (transposed, depthwise and grouped ones too), embeddings, batch and
    instance normalisation, elementwise functions, dropout, pooling, flattening and other changes of shape,
    concatenation, sums and products of activations (whose units become one), the heads of `nn.MultiheadAttention` and
    the blocks between them. What layer or group normalisation mixes is left alone, and so is what is used in ways of
    its own (a weight that is computed, tied as a transpose, cut into pieces). Modules and weights that are shared are
    followed through every call. The model's Python code runs as it is: what it does for this example is what counts.

    Args:
        model: any module; its modes are left as they were.
        example: what it is called with, a tensor or a tuple of arguments.
        unsupported: "refuse" (default) a function without a rule that units flow into, or "leave" those units.
        trusting: whether lengths that `view` and its like are given may be taken to follow the tensor's own shape,
            default True.

    Raises:
        ValueError: for a function without a rule, naming the module that calls it.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> [(axis.name, axis.role, axis.units.tolist()) for axis in trace_units(model, torch.zeros(1, 3)).axes]
        [('0.weight', 'reads', [-1, -1, -1]), ('0.weight', 'makes', [1, 2]), ('0.bias', 'carries', [1, 2]), \
('2.weight', 'reads', [1, 2]), ('2.weight', 'makes', [-1]), ('2.bias', 'carries', [-1])]
    """
    if unsupported not in ("refuse", "leave"):
        raise ValueError(f"unsupported must be 'refuse' or 'leave', got {unsupported!r}")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    tape = Tape(model, {**UNWEIGHTED, **WEIGHTED}, trusting=trusting, refuse=unsupported == "refuse")
    arguments = example if type(example) is tuple else (example,)
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor):
            tape.put(leaf, fixed(leaf))
    try:
        with tape.watch(model):
            output = model(*arguments)
        return tape.result(output)
    finally:
        for module, training in modes:
            module.training = training
