"""How many coarse steps a cycle has, by calendar."""

from __future__ import annotations

from torch_bregman.optim import MultilevelLinBreg
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.calendars import Calendar


class CycleSchedule(Schedule):
    """Sets m = f(k), rounded, in `MultilevelLinBreg`: short cycles while the network looks for its support, then long.

    What sleeps is heard of in fine steps only. Early ones decide which weights wake, late ones change little: many at
    the start cost no more than a few everywhere, and come to a better support.

    Args:
        optimizer: in cycles.
        length: f, of the number of steps so far, ≥ 1; e.g. `linear(2, 25, 500)`.

    Raises:
        ValueError: for another optimizer, or a length below 1.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = tb.MultilevelLinBreg([weight], regularizer=tb.L1(0.4), m=25)
        >>> schedule = tb.schedulers.CycleSchedule(optimizer, tb.schedulers.linear(2, 25, 2))
        >>> lengths = [optimizer.m]
        >>> for _ in range(2):
        ...     schedule.step()
        ...     lengths.append(optimizer.m)
        >>> lengths
        [2, 14, 25]
    """

    def __init__(self, optimizer: MultilevelLinBreg, length: Calendar) -> None:
        super().__init__(optimizer)
        if not isinstance(optimizer, MultilevelLinBreg):
            raise ValueError(f"CycleSchedule needs MultilevelLinBreg, got {type(optimizer).__name__}, without cycles")
        self.cycles, self.length = optimizer, length
        self._act(None)

    def _act(self, metric: float | None) -> None:
        m = round(self.length(self.steps))
        if m < 1:
            raise ValueError(f"the length of a CycleSchedule must be at least 1 coarse step, got {m} at {self.steps}")
        self.cycles.set_m(m)
