"""The ranks of a network's weights, from the factors its optimizer has anyway."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.metrics import named_weights
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import Nuclear
from torch_bregman.schedulers import Consolidation


def low_ranks(model: nn.Module, optimizer: Optimizer, controls: Sequence[object] = ()) -> dict[str, int]:
    """Return the ranks of the weights under a nuclear norm, or frozen at one, by name."""
    return {name: len(left) for name, (left, _) in _factors(model, optimizer, controls).items()}


def stored_numbers(model: nn.Module, optimizer: Optimizer, controls: Sequence[object] = ()) -> int | None:
    """Return how many numbers the weights take, those of low rank as two factors where that is less.

    None where no weight is under a nuclear norm, or frozen at a rank.
    """
    factors = _factors(model, optimizer, controls)
    if not factors:
        return None
    thin = {name: left.numel() + right.numel() for name, (left, right) in factors.items()}
    return sum(min(p.numel(), thin.get(name, p.numel())) for name, p in named_weights(model).items())


def _factors(model: nn.Module, optimizer: Optimizer, controls: Sequence[object]) -> dict[str, tuple[Tensor, Tensor]]:
    for control in controls:
        if isinstance(control, Consolidation) and control.done:
            frozen = control.factors()
            return {name: frozen[id(p)] for name, p in model.named_parameters() if id(p) in frozen}
    if not isinstance(optimizer, RegularizedOptimizer):
        return {}
    groups = [group for group in optimizer.param_groups if isinstance(group["regularizer"], Nuclear)]
    low = {id(param) for group in groups for param in group["params"]}
    return {name: optimizer.factors(p) for name, p in model.named_parameters() if id(p) in low}
