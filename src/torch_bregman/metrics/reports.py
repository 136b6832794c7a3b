"""What is left of each layer: weights, rows, columns, kernels, rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_bregman.metrics.nonzeros import named_weights
from torch_bregman.metrics.ranks import rank
from torch_bregman.metrics.tables import text_table
from torch_bregman.views import get_view


@dataclass(frozen=True)
class LayerDensity:
    """One weight in numbers; densities are fractions in [0, 1].

    A row is what belongs to the first dimension: an output unit of a linear layer, a filter of a convolution (an input
    channel of a transposed one).
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    row_density: float
    column_density: float
    kernel_density: float | None
    """Fraction of kernels with a non-zero entry; None for weights without spatial dimensions."""
    rank: int | None
    """Numerical rank as out × rest; None where it was not asked for."""

    @property
    def total(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()

    @property
    def density(self) -> float:
        """Fraction of non-zero entries."""
        return self.nonzeros / self.total

    @property
    def filter_density(self) -> float | None:
        """The row density of a convolution; None for weights without spatial dimensions."""
        return None if self.kernel_density is None else self.row_density


@dataclass(frozen=True)
class DensityReport:
    """All weights of a model in numbers; `str()` makes a table of it."""

    layers: tuple[LayerDensity, ...]

    @property
    def nonzeros(self) -> int:
        """Number of non-zero weights."""
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def total(self) -> int:
        """Number of weights."""
        return sum(layer.total for layer in self.layers)

    @property
    def density(self) -> float:
        """Fraction of non-zero weights."""
        return self.nonzeros / self.total

    def __str__(self) -> str:
        header = ["weight", "shape", "non-zeros", "total", "density", "rows", "columns", "kernels", "rank"]
        total = ["total", "", str(self.nonzeros), str(self.total), _percent(self.density), "", "", "", ""]
        return "\n".join(text_table(header, [*map(_cells, self.layers), total], "<<>>>>>>>"))


def density_report(model: nn.Module, *, ranks: bool = False) -> DensityReport:
    """Return for every weight its shape, non-zeros, density, and the densities of its rows, columns and kernels.

    Args:
        model: any module; tied weights count once, under their first name.
        ranks: also the numerical rank, which costs a singular value decomposition a weight; default False.

    Raises:
        ValueError: for a model without parameters of 2 or more dimensions.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> print(density_report(layer, ranks=True))
        weight  shape  non-zeros  total  density    rows  columns  kernels  rank
        ------  -----  ---------  -----  -------  ------  -------  -------  ----
        weight  2 × 4          2      8  25.00 %  50.0 %   50.0 %              1
        total                  2      8  25.00 %
    """
    return DensityReport(tuple(_measure(name, weight.detach(), ranks) for name, weight in named_weights(model).items()))


def _measure(name: str, weight: Tensor, ranks: bool) -> LayerDensity:
    return LayerDensity(
        name=name,
        shape=tuple(weight.shape),
        nonzeros=int(torch.count_nonzero(weight)),
        row_density=_live(weight, "rows"),
        column_density=_live(weight, "columns"),
        kernel_density=_live(weight, "kernels") if weight.ndim > 2 else None,
        rank=rank(weight) if ranks else None,
    )


def _live(weight: Tensor, view: str) -> float:
    live = get_view(view).live(weight)
    return int(torch.count_nonzero(live)) / live.numel()


def _cells(layer: LayerDensity) -> list[str]:
    parts = (layer.row_density, layer.column_density, layer.kernel_density)
    return [
        layer.name,
        " × ".join(map(str, layer.shape)),
        str(layer.nonzeros),
        str(layer.total),
        _percent(layer.density),
        *("" if part is None else f"{100 * part:.1f} %" for part in parts),
        "" if layer.rank is None else str(layer.rank),
    ]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
