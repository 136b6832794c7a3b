"""What every schedule is: `step(metric)` and a state of plain values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch_bregman.optim import MirrorOptimizer, RegularizedOptimizer


class Schedule(ABC):
    """Changes λ or the rank cap of an optimizer, once a call of `step`; any number of schedules go together.

    Args:
        optimizer: any optimizer of this library.

    Raises:
        ValueError: for another optimizer.
    """

    saved: ClassVar[tuple[str, ...]] = ("steps",)
    """Attributes that `state_dict` holds."""

    def __init__(self, optimizer: RegularizedOptimizer) -> None:
        if not isinstance(optimizer, RegularizedOptimizer):
            raise ValueError(
                f"{type(self).__name__} needs an optimizer of torch_bregman, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.steps = 0

    def step(self, metric: float | None = None) -> None:
        """Advance by one.

        Args:
            metric: what a plateau is judged by, e.g. the validation loss; calendars do without.
        """
        self.steps += 1
        try:
            self._act(metric)
        except ValueError:
            self.steps -= 1  # a step that was refused is none
            raise

    @abstractmethod
    def _act(self, metric: float | None) -> None:
        """Do what is due at `self.steps`."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values; what is set in the optimizer travels in the optimizer's state."""
        return {key: getattr(self, key) for key in self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        for key in self.saved:
            setattr(self, key, state_dict[key])


def set_lam(optimizer: RegularizedOptimizer, group: dict[str, Any], lam: float) -> None:
    """Set λ of a group, in Bregman optimizers with the dual rescaled so that no weight moves."""
    if isinstance(optimizer, MirrorOptimizer):
        optimizer.set_lam(lam, group)
    else:
        group["lam"] = lam
