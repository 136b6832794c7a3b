"""Linear layers with few non-zeros as compressed sparse rows, where a measurement says that this is faster."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

import torch
from torch import nn

from torch_bregman.compaction.latency import side_by_side
from torch_bregman.compaction.recipe import Step, apply_step
from torch_bregman.layers import CSRLinear

_DENSEST = 0.25
"""Above this density no sparse product was ever seen to win, and nothing is measured."""
_WORTH = 0.95
"""Share of the dense time that a sparse product may take."""


@torch.no_grad()
def sparsify_layers(model: nn.Module, batch_sizes: Sequence[int], *, measured: bool = True) -> list[Step]:
    """Replace linear layers by `CSRLinear` in place where that is faster; return the steps that did it.

    Args:
        model: already without its dead units.
        batch_sizes: at which both are timed; the geometric mean of the ratios decides.
        measured: else every layer with fewer bytes as CSR is replaced.
    """
    steps = []
    for name, module in dict(model.named_modules()).items():
        if type(module) is nn.Linear and _owns(model, module) and _is_sparse(module):
            if measured and _ratio(module, batch_sizes) > _WORTH:
                continue
            step = {"do": "csr", "module": name, "nonzeros": int(torch.count_nonzero(module.weight))}
            filled = CSRLinear.from_linear(module)
            apply_step(model, step)
            made: Any = model.get_submodule(name)
            made.load_state_dict(filled.state_dict())
            steps.append(step)
    return steps


def _owns(model: nn.Module, module: nn.Module) -> bool:
    holders = [m for m in set(model.modules()) if any(p is module.weight for p in m._parameters.values())]
    return len(holders) == 1


def _is_sparse(linear: nn.Linear) -> bool:
    on_cpu = linear.weight.is_cpu and linear.weight.dtype in (torch.float32, torch.float64)
    return on_cpu and 0 < int(torch.count_nonzero(linear.weight)) <= _DENSEST * linear.weight.numel()


def _ratio(linear: nn.Linear, batch_sizes: Sequence[int]) -> float:
    """Return the time of the sparse layer, that of the dense one being 1."""
    layer, ratios = CSRLinear.from_linear(linear), []
    for batch in batch_sizes:
        x = torch.randn(batch, linear.in_features, dtype=linear.weight.dtype)
        dense, sparse = side_by_side([lambda x=x: linear(x), lambda x=x: layer(x)], seconds=0.05, least=7)
        ratios.append(sparse / dense)
    return geometric_mean(ratios)
