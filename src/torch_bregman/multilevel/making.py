"""From a model and its optimizer to the compact form that suits them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from torch_bregman.multilevel.calibration import Calibration, calibrate
from torch_bregman.multilevel.chain import Unsuited, linear_chain
from torch_bregman.multilevel.form import CompactForm
from torch_bregman.multilevel.sparse_form import SparseForm
from torch_bregman.multilevel.unit_form import UnitForm
from torch_bregman.optim import MultilevelLinBreg
from torch_bregman.regularizers import L1, GroupL2, NoRegularizer, UnitL2


def compact_form(
    model: nn.Module,
    optimizer: MultilevelLinBreg,
    example: Tensor,
    *,
    batch: int = 128,
    below: float | Mapping[str, float] | None = None,
    compiled: bool = False,
) -> CompactForm:
    """Return what trains a model on its active part: sparse layers under ℓ1, fewer units under groups.

    Args:
        model: under ℓ1 a chain of linear layers, see `multilevel.linear_chain`; under groups any model that
            `graph.trace_units` follows.
        optimizer: of its parameters, with m > 0.
        example: a batch of inputs.
        batch: images a step, for the calibration.
        compiled: under ℓ1, take products by a C program, see `SparseForm`; default False.
        below: density up to which a layer is compact under ℓ1, for all layers or by name; default by `calibrate`.

    Raises:
        Unsuited: where the mask form must do, naming the module or regulariser that stopped it.
        ValueError: for another optimizer.

    Example:
        >>> import torch, torch_bregman as tb
        >>> model = tb.sparsify_(tb.models.mlp([784, 64, 64, 10]), density=0.05)
        >>> optimizer = tb.MultilevelLinBreg(tb.param_groups(model, {nn.Linear: tb.L1(0.1)}), lr=0.1, m=25)
        >>> form = compact_form(model, optimizer, torch.zeros(1, 784), below=0.1)
        >>> loss, outputs = form.step(torch.randn(8, 784), torch.arange(8), nn.functional.cross_entropy)
        >>> form.write()  # before anyone reads the model or the optimizer
        >>> form.awake()["fc2.weight"]
        205
    """
    if not isinstance(optimizer, MultilevelLinBreg):
        raise ValueError(
            f"compact training is for MultilevelLinBreg, got {type(optimizer).__name__}, which needs the full gradient "
            "at every step"
        )
    if not optimizer.m:
        raise Unsuited("m is 0, so every step needs the full gradient")
    kinds = {type(group["regularizer"]) for group in optimizer.param_groups} - {NoRegularizer}
    if kinds and kinds <= {GroupL2, UnitL2}:
        return UnitForm(model, optimizer, example)
    if kinds <= {L1}:
        return SparseForm(model, optimizer, _marks(model, batch, below, compiled), compiled=compiled)
    other = next((kind for kind in kinds if kind not in (GroupL2, UnitL2)), L1)
    raise Unsuited(f"the regularizer {other.name} has no compact form (l1, and groups of what reads a unit, have)")


def calibration_of(model: nn.Module, batch: int, *, compiled: bool = False) -> Calibration:
    """Return the calibration of the linear layers of a chain.

    Raises:
        Unsuited: for another model.
    """
    layers = [(name, module) for name, module in linear_chain(model) if isinstance(module, nn.Linear)]
    return calibrate(layers, batch, first=layers[0][0] if layers else None, compiled=compiled)


def _marks(
    model: nn.Module, batch: int, below: float | Mapping[str, float] | None, compiled: bool
) -> Mapping[str, float]:
    if isinstance(below, Mapping):
        return below
    if below is None:
        return calibration_of(model, batch, compiled=compiled).below
    return {name: float(below) for name, _ in linear_chain(model)}
