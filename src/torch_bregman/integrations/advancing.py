"""What callbacks of other libraries share: schedules that are advanced, and what is said of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from torch_bregman.metrics import density, named_weights
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import Nuclear
from torch_bregman.schedulers import Schedule

Make = Callable[[RegularizedOptimizer], Sequence[Schedule]]
"""From the optimizer to schedules or controllers of it."""


class Advancing:
    """Schedules of an optimizer, made when it is there, advanced once a step or once an epoch.

    Args:
        every_step: makes what is advanced after every step of the optimizer, such as `LamByQuantile` and
            `Consolidation`.
        every_epoch: makes what is advanced after every epoch, such as `LamSchedule`.
    """

    def __init__(self, every_step: Make | None = None, every_epoch: Make | None = None) -> None:
        self._make = {"step": every_step, "epoch": every_epoch}
        self._made: dict[str, list[Schedule]] = {}
        self._waiting: dict[str, Any] | None = None

    def begin(self, optimizer: Any) -> None:
        """Make the schedules, once; take up a state that came before.

        Raises:
            ValueError: for schedules of an optimizer that is not of this library.
        """
        if self._made or not any(self._make.values()):
            return
        if not isinstance(optimizer, RegularizedOptimizer):
            raise ValueError(
                f"schedules need an optimizer of torch_bregman, got {type(optimizer).__name__}: leave them out"
            )
        self._made = {when: list(make(optimizer)) if make else [] for when, make in self._make.items()}
        if self._waiting is not None:
            self.load_state_dict(self._waiting)

    def advance(self, when: str, metric: float | None = None) -> None:
        """Advance what is due every step, or every epoch.

        Args:
            when: "step" or "epoch".
            metric: what a plateau is judged by.
        """
        for schedule in self._made.get(when, []):
            schedule.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all schedules as tensors and plain values."""
        return {
            when: {str(number): schedule.state_dict() for number, schedule in enumerate(made)}
            for when, made in self._made.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; before the optimizer is there, it is kept for then."""
        if not self._made:
            self._waiting = state_dict
            return
        for when, made in self._made.items():
            for number, schedule in enumerate(made):
                schedule.load_state_dict(state_dict[when][str(number)])


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside what a library has put around it."""
    while not isinstance(optimizer, RegularizedOptimizer) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def sizes(model: nn.Module, optimizer: Any) -> dict[str, float]:
    """Return density, the sum of the ranks under a nuclear norm, and λ of the first regularised group.

    Args:
        model: any module with weights.
        optimizer: of it; one of another library gives the density alone.

    Example:
        >>> import torch, torch_bregman as tb
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2))
        >>> sizes(model, tb.LinBreg(model.parameters(), regularizer=tb.L1(0.1)))
        {'density': 0.5, 'lam': 0.1}
    """
    found = {"density": density(model)}
    if not isinstance(optimizer, RegularizedOptimizer):
        return found
    groups = [group for group in optimizer.param_groups if group["regularizer"].name != "none"]
    low = {id(p) for group in groups if isinstance(group["regularizer"], Nuclear) for p in group["params"]}
    ranks = [len(optimizer.factors(p)[0]) for p in named_weights(model).values() if id(p) in low]
    return {
        **found,
        **({"rank": float(sum(ranks))} if ranks else {}),
        **({"lam": float(groups[0]["lam"])} if groups else {}),
    }
