"""λ by calendar and on a plateau, without disturbing the weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.schedulers.base import Schedule, set_lam
from torch_bregman.schedulers.calendars import Calendar
from torch_bregman.schedulers.plateau import Plateau, need_metric


class LamSchedule(Schedule):
    """Sets λ_k = λ_0·f(k) in all groups with a regulariser.

    In Bregman optimizers the dual variables are rescaled, v ← θ/δ + (λ_new/λ_old)(v − θ/δ), so that no weight jumps and
    sleeping weights keep their memory.

    Args:
        optimizer: any optimizer of this library.
        factor: f, of the number of steps so far, ≥ 0; a function of yours, or `linear`, `cosine`, `listed`.

    Raises:
        ValueError: for an optimizer without λ, or a factor that is negative or not finite.

    Example:
        >>> import torch, torch_bregman as tb
        >>> optimizer = tb.LinBreg([torch.nn.Parameter(torch.zeros(2))], regularizer=tb.L1(0.4))
        >>> schedule = tb.schedulers.LamSchedule(optimizer, lambda k: 0.5**k)
        >>> schedule.step()
        >>> optimizer.param_groups[0]["lam"]
        0.2
    """

    saved: ClassVar[tuple[str, ...]] = ("steps", "base")

    def __init__(self, optimizer: RegularizedOptimizer, factor: Calendar) -> None:
        super().__init__(optimizer)
        self.factor = factor
        self.base = [float(group["lam"]) for group in optimizer.param_groups]

    def _act(self, metric: float | None) -> None:
        factor = float(self.factor(self.steps))
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(f"the factor of a LamSchedule must be a finite number >= 0, got {factor} at {self.steps}")
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            set_lam(self.optimizer, group, base * factor)


class LamOnPlateau(Schedule):
    """Takes λ ← max(factor·λ, least) whenever a metric has stopped getting better.

    With factor 0.5 this is the dissertation's rule for the free nuclear norm: as long as the network learns it stays
    small, and it may grow when it no longer does. Dual variables are rescaled as in `LamSchedule`.

    Args:
        optimizer: any optimizer of this library.
        factor: in (0, 1), default 0.5; above 1 to shrink networks instead.
        patience: steps without improvement that are borne, default 2.
        least: λ does not fall below it, default 0.
        mode: "min" for losses (default), "max" for accuracies.
        threshold: relative improvement that counts, default 1e-4.

    Raises:
        ValueError: for a number out of range, or a step without a metric.

    Example:
        >>> import torch, torch_bregman as tb
        >>> optimizer = tb.LinBreg([torch.nn.Parameter(torch.zeros(2))], regularizer=tb.L1(0.4))
        >>> schedule = tb.schedulers.LamOnPlateau(optimizer, patience=0)
        >>> for loss in (1.0, 1.0):
        ...     schedule.step(loss)
        >>> optimizer.param_groups[0]["lam"]
        0.2
    """

    def __init__(
        self,
        optimizer: RegularizedOptimizer,
        factor: float = 0.5,
        *,
        patience: int = 2,
        least: float = 0.0,
        mode: Literal["min", "max"] = "min",
        threshold: float = 1e-4,
    ) -> None:
        super().__init__(optimizer)
        if not (math.isfinite(factor) and factor > 0 and factor != 1):
            raise ValueError(f"factor must be a finite number > 0 other than 1, got {factor!r}: 0.5 halves λ")
        if not (math.isfinite(least) and least >= 0):
            raise ValueError(f"least must be a finite number >= 0, got {least!r}")
        self.factor, self.least = factor, least
        self._plateau = Plateau(patience, mode, threshold)

    def _act(self, metric: float | None) -> None:
        if self._plateau.reached(need_metric("LamOnPlateau", metric)):
            for group in self.optimizer.param_groups:
                lam = float(group["lam"])
                if lam > self.least:
                    set_lam(self.optimizer, group, max(self.factor * lam, self.least))

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**super().state_dict(), "plateau": self._plateau.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._plateau.load_state(state_dict["plateau"])
