"""The rank cap of `DynamicRankNuclear`: by calendar, on a plateau, by energy."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import DynamicRankNuclear
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.calendars import Calendar
from torch_bregman.schedulers.plateau import Plateau, need_metric


class RankSchedule(Schedule):
    """Sets the cap of every group to round(calendar(k)).

    Args:
        optimizer: with at least one group under `DynamicRankNuclear`.
        calendar: of the number of steps so far: a function of yours, or `linear`, `cosine`, `listed`.

    Raises:
        ValueError: for an optimizer without such a group, or a rank out of range.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(8, 8))
        >>> optimizer = tb.LinBreg([weight], regularizer=tb.DynamicRankNuclear(0.1, rank=2))
        >>> schedule = tb.schedulers.RankSchedule(optimizer, tb.schedulers.linear(2, 6, steps=4))
        >>> schedule.step()
        >>> optimizer.param_groups[0]["regularizer"].get_rank()
        3
    """

    def __init__(self, optimizer: RegularizedOptimizer, calendar: Calendar) -> None:
        super().__init__(optimizer)
        self.capped = capped(optimizer)
        self.calendar = calendar

    def _act(self, metric: float | None) -> None:
        for regularizer in self.capped:
            regularizer.set_rank(_clip(regularizer, round(self.calendar(self.steps))))


class RankOnPlateau(Schedule):
    """Raises every cap by `increase` whenever a metric has stopped getting better, at most `times`.

    The dissertation's rule: rank 16, +16 after 2 stagnant epochs, at most 5 times.

    Args:
        optimizer: with at least one group under `DynamicRankNuclear`.
        increase: added to the cap, at least 1, default 16.
        patience: steps without improvement that are borne, default 1: two stagnant steps raise the cap.
        times: at most so often, default 5.
        mode: "min" for losses (default), "max" for accuracies.
        threshold: relative improvement that counts, default 1e-4.

    Raises:
        ValueError: for a number out of range, an optimizer without a cap, or a step without a metric.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(64, 64))
        >>> optimizer = tb.LinBreg([weight], regularizer=tb.DynamicRankNuclear(0.1, rank=16))
        >>> schedule = tb.schedulers.RankOnPlateau(optimizer)
        >>> for loss in (1.0, 1.0, 1.0):
        ...     schedule.step(loss)
        >>> optimizer.param_groups[0]["regularizer"].get_rank()
        32
    """

    saved = ("steps", "raised")

    def __init__(
        self,
        optimizer: RegularizedOptimizer,
        increase: int = 16,
        *,
        patience: int = 1,
        times: int = 5,
        mode: Literal["min", "max"] = "min",
        threshold: float = 1e-4,
    ) -> None:
        super().__init__(optimizer)
        self.capped = capped(optimizer)
        if increase < 1 or times < 1:
            raise ValueError(f"increase and times must be at least 1, got {increase} and {times}")
        self.increase, self.times, self.raised = increase, times, 0
        self._plateau = Plateau(patience, mode, threshold)

    def _act(self, metric: float | None) -> None:
        stagnant = self._plateau.reached(need_metric("RankOnPlateau", metric))
        if stagnant and self.raised < self.times:
            self.raised += 1
            for regularizer in self.capped:
                regularizer.set_rank(_clip(regularizer, regularizer.get_rank() + self.increase))

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**super().state_dict(), "plateau": self._plateau.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._plateau.load_state(state_dict["plateau"])


class RankByEnergy(Schedule):
    """Caps the rank where the rest carries too little energy, and raises the cap while the last value kept stands out.

    With σ_i the singular values of θ and E_k = Σ_{i>k} σ_i² / Σ σ_i²: the cap becomes the largest k over the group's
    weights with E_k ≤ tolerance; where a weight fills the cap and its last σ_k² / Σ σ_i² still exceeds the tolerance,
    the cap rises by `increase`.

    Args:
        optimizer: with at least one group under `DynamicRankNuclear`.
        tolerance: share of the energy, in (0, 1), default 1e-3.
        increase: added to the cap, at least 1, default 4.

    Raises:
        ValueError: for a number out of range, or an optimizer without a cap.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.diag(torch.tensor([9.0, 8.0, 0.01, 0.0])))
        >>> optimizer = tb.LinBreg([weight], regularizer=tb.DynamicRankNuclear(0.1, rank=3))
        >>> tb.schedulers.RankByEnergy(optimizer).step()
        >>> optimizer.param_groups[0]["regularizer"].get_rank()
        2
    """

    def __init__(self, optimizer: RegularizedOptimizer, tolerance: float = 1e-3, *, increase: int = 4) -> None:
        super().__init__(optimizer)
        self.capped = capped(optimizer)
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie in (0, 1), got {tolerance!r}")
        if increase < 1:
            raise ValueError(f"increase must be at least 1, got {increase}")
        self.tolerance, self.increase = tolerance, increase

    def _act(self, metric: float | None) -> None:
        for regularizer in self.capped:
            groups = [g for g in self.optimizer.param_groups if g["regularizer"] is regularizer]
            wanted = [self._wanted(regularizer, param) for group in groups for param in group["params"]]
            regularizer.set_rank(_clip(regularizer, max(wanted, default=regularizer.get_rank())))

    def _wanted(self, regularizer: DynamicRankNuclear, param: Tensor) -> int:
        """Return the cap that this weight asks for."""
        cap = regularizer.get_rank()
        energy = self.optimizer.spectrum(param).square()
        total = float(energy.sum())
        if total == 0:
            return 1
        if len(energy) >= cap and float(energy[cap - 1]) > self.tolerance * total:
            return cap + self.increase
        rest = total - torch.cumsum(energy, 0)
        return 1 + int((rest > self.tolerance * total).sum())


def capped(optimizer: RegularizedOptimizer) -> list[DynamicRankNuclear]:
    """Return the regularisers with a rank cap, each once.

    Raises:
        ValueError: where there are none.
    """
    found: list[DynamicRankNuclear] = []
    for group in optimizer.param_groups:
        regularizer = group["regularizer"]
        if isinstance(regularizer, DynamicRankNuclear) and not any(regularizer is other for other in found):
            found.append(regularizer)
    if not found:
        raise ValueError("no group has a rank cap: give one of them DynamicRankNuclear(lam, rank=…)")
    return found


def _clip(regularizer: DynamicRankNuclear, rank: int) -> int:
    return rank if regularizer.max_rank is None else min(rank, regularizer.max_rank)
