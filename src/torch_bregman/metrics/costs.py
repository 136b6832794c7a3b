"""What a model costs: multiply-adds on an example, stored parameters and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_bregman.metrics.ranks import rank
from torch_bregman.metrics.tables import text_table
from torch_bregman.metrics.uses import Example, Use, trace_uses


@dataclass(frozen=True)
class WeightCost:
    """Multiply-adds (MACs) that one weight takes part in; of a layer's product of activations where `shape` is ()."""

    name: str
    shape: tuple[int, ...]
    macs: int
    """As it is computed: all entries, zeros too."""
    nonzero_macs: int
    """Of the entries that are not zero."""
    unit_macs: int
    """Of the rows × columns that hold a non-zero: what is left when dead rows and columns are cut off."""
    rank_macs: int | None
    """Of two factors of the numerical rank where they need fewer than `macs`; None where it was not asked for."""


@dataclass(frozen=True)
class CostReport:
    """What a model costs on the example it was measured with; `str()` makes a table of it."""

    weights: tuple[WeightCost, ...]
    parameters: int
    """Entries of all parameters, tied ones once."""
    bytes: int
    """Of parameters and buffers, each piece of memory once."""
    uncounted: tuple[str, ...]
    """"name (type)" of modules whose multiply-adds are not counted: normalisation, activations, unknown layers."""

    @property
    def macs(self) -> int:
        """Multiply-adds as they are computed."""
        return sum(weight.macs for weight in self.weights)

    @property
    def nonzero_macs(self) -> int:
        """Multiply-adds by entries that are not zero."""
        return sum(weight.nonzero_macs for weight in self.weights)

    @property
    def unit_macs(self) -> int:
        """Multiply-adds without dead rows and columns of each weight."""
        return sum(weight.unit_macs for weight in self.weights)

    @property
    def rank_macs(self) -> int | None:
        """Multiply-adds where every weight that gains by it is in factors; None where ranks were not asked for."""
        known = [weight.rank_macs for weight in self.weights if weight.rank_macs is not None]
        return sum(known) if len(known) == len(self.weights) else None

    def __str__(self) -> str:
        header = ["weight", "shape", "MACs", "non-zero", "units", "ranks"]
        total = ["total", "", *_numbers(self.macs, self.nonzero_macs, self.unit_macs, self.rank_macs)]
        lines = text_table(header, [*map(_cells, self.weights), total], "<<>>>>")
        lines.append(f"{self.parameters} parameters, {self.bytes} bytes")
        return "\n".join(lines + ([f"not counted: {', '.join(self.uncounted)}"] if self.uncounted else []))


def cost_report(model: nn.Module, example: Example, *, ranks: bool = False) -> CostReport:
    """Return the multiply-adds of a model on an example, layer by layer, its parameters and bytes.

    A weight of n entries costs n times its positions: one a row of the input of a linear layer, one a pixel of the
    output of a convolution (of the input, for a transposed one). Give a batch of 1 for the cost of one sample.

    Args:
        model: any module; it is run once in evaluation mode.
        example: what it is called with, a tensor or a tuple of arguments.
        ranks: also the cost in factors, which takes a singular value decomposition a weight; default False.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> print(cost_report(layer, torch.zeros(1, 4), ranks=True))
        weight  shape  MACs  non-zero  units  ranks
        ------  -----  ----  --------  -----  -----
        weight  2 × 4     8         2      2      6
        total             8         2      2      6
        10 parameters, 40 bytes
    """
    uses = trace_uses(model, example)
    costs = tuple(_cost(use, ranks) for use in uses.weights)
    return CostReport(costs, sum(p.numel() for p in model.parameters()), stored_bytes(model), uses.uncounted)


def stored_bytes(model: nn.Module) -> int:
    """Return the bytes of parameters and buffers, each piece of memory once.

    Example:
        >>> stored_bytes(nn.Linear(4, 2))
        40
    """
    tensors = [*model.parameters(), *model.buffers()]
    parts = [part for tensor in tensors for part in _strided(tensor.detach())]
    return sum({part.data_ptr(): part.numel() * part.element_size() for part in parts if part.numel()}.values())


def _strided(tensor: Tensor) -> list[Tensor]:
    if tensor.layout is torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor]


def _cost(use: Use, ranks: bool) -> WeightCost:
    if use.weight is None:
        return WeightCost(use.name, (), use.times, use.times, use.times, use.times if ranks else None)
    weight = use.weight.detach()
    entries = [weight.numel(), int(torch.count_nonzero(weight)), _live_entries(weight, use.groups)]
    if use.factors is not None:
        entries = [min(count, sum(factor.numel() for factor in use.factors)) for count in entries]
    dense, nonzero, units = (count * use.times for count in entries)
    in_factors = _factor_entries(weight, use.groups, entries[0]) * use.times if ranks else None
    return WeightCost(use.name, tuple(weight.shape), dense, nonzero, units, in_factors)


def _live_entries(weight: Tensor, groups: int) -> int:
    """Return how many entries are left without dead rows and columns, in every group of a grouped convolution."""
    if not weight.numel():
        return 0
    live = (weight != 0).reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
    rows, columns = live.any(3).any(2).sum(1), live.any(3).any(1).sum(1)
    return int((rows * columns).sum()) * live.shape[3]


def _factor_entries(weight: Tensor, groups: int, dense: int) -> int:
    if groups > 1 or not weight.numel():
        return dense
    return min(dense, rank(weight) * (weight.shape[0] + weight.numel() // weight.shape[0]))


def _cells(weight: WeightCost) -> list[str]:
    counts = (weight.macs, weight.nonzero_macs, weight.unit_macs, weight.rank_macs)
    return [weight.name, " × ".join(map(str, weight.shape)), *_numbers(*counts)]


def _numbers(*counts: int | None) -> list[str]:
    return ["" if count is None else str(count) for count in counts]
