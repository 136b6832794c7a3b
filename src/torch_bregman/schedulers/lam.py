"""λ by calendar, without disturbing the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch_bregman.optim import MirrorOptimizer, RegularizedOptimizer


class LamSchedule:
    """Sets λ_k = λ_0·f(k) after every call of `step`, in all groups with a regulariser.

    In Bregman optimizers the dual variables are rescaled, v ← θ/δ + (λ_new/λ_old)(v − θ/δ), so that no weight jumps and
    sleeping weights keep their memory.

    Args:
        optimizer: any optimizer of this library.
        factor: f, of the number of steps so far; f(k) ≥ 0.

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

    def __init__(self, optimizer: RegularizedOptimizer, factor: Callable[[int], float]) -> None:
        if not isinstance(optimizer, RegularizedOptimizer):
            raise ValueError(f"LamSchedule needs an optimizer of torch_bregman, got {type(optimizer).__name__}")
        self.optimizer, self.factor = optimizer, factor
        self.base = [float(group["lam"]) for group in optimizer.param_groups]
        self.steps = 0

    def step(self) -> None:
        """Advance by one and set λ."""
        factor = float(self.factor(self.steps + 1))
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(
                f"the factor of a LamSchedule must be a finite number >= 0, got {factor} at {self.steps + 1}"
            )
        self.steps += 1
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            if isinstance(self.optimizer, MirrorOptimizer):
                self.optimizer.set_lam(base * factor, group)
            else:
                group["lam"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the λ it started from; the factor is not saved."""
        return {"steps": self.steps, "base": list(self.base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; λ itself is in the optimizer's state."""
        self.steps, self.base = state_dict["steps"], list(state_dict["base"])
