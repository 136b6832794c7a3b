"""λ steered so that a network has the size that was asked for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch_bregman.optim import MirrorOptimizer, MultilevelLinBreg, RegularizedOptimizer
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.calendars import Calendar
from torch_bregman.schedulers.size import Size
from torch_bregman.schedulers.watched import Watched, steered

Scope = Literal["global", "group"]


class SizeControl(Schedule):
    """Steers λ by what is awake, once every few steps of training; call `step` after each.

    λ is set without rescaling the duals, so that the weights answer: with the rescaling of `LamSchedule` they would
    not, and λ would run away.

    Args:
        optimizer: any Bregman optimizer.
        sizes: one target or several; the tightest decides.
        relaxation: how far λ goes at a time.
        every: training steps between two looks, default 10; in cycles of m + 1 steps (`MultilevelLinBreg`) they come
            after fine steps, and go as far at a time as all the looks that are left out.
        ramp: from the number of steps so far to what the goals are multiplied by, e.g. `cubic(10, 1, 6000)`: from ten
            times the goal down to it in 6000 steps. Default 1 throughout. The whole network is never exceeded.
        groups: indices of the groups to steer, default all with a regulariser; then all weights of the optimizer count.
        scope: "global" (default) meets the target over all groups together, with λ's in the proportion they start in;
            "group" meets it in each by itself, `UnitMultiplyAdds` by the same share of units in all, `Parameters`,
            `MultiplyAdds` and `Bytes` of low ranks by the same rank.
        least, most: λ is kept within these, default 0 and inf.

    Raises:
        ValueError: for a proximal optimizer, in which the density lags behind λ and a controller would empty layers; a
            target that the regularisers cannot meet; a number out of range.
    """

    saved: ClassVar[tuple[str, ...]] = ("steps", "turns", "looked")

    def __init__(
        self,
        optimizer: RegularizedOptimizer,
        *sizes: Size,
        relaxation: float,
        every: int = 10,
        ramp: Calendar | None = None,
        groups: Sequence[int] | None = None,
        scope: Scope = "global",
        least: float = 0.0,
        most: float = math.inf,
    ) -> None:
        super().__init__(optimizer)
        if not isinstance(optimizer, MirrorOptimizer):
            raise ValueError(
                f"{type(optimizer).__name__} keeps its λ fixed, for its density lags behind λ and a controller would "
                "empty layers: set lam by hand, or use LinBreg or AdaBreg"
            )
        if not sizes:
            raise ValueError("a controller needs a target, e.g. Density(0.05)")
        if not 0 < relaxation <= 1:
            raise ValueError(f"relaxation must lie in (0, 1], got {relaxation!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a whole number of steps >= 1, got {every!r}")
        if not 0 <= least <= most:
            raise ValueError(f"least and most must be numbers with 0 <= least <= most, got {least!r} and {most!r}")
        self.relaxation, self.every, self.ramp = relaxation, every, ramp
        self.least, self.most, self.turns = least, most, 0
        self.looked = 0  # number of steps at the last look
        self.watched = watched(optimizer, sizes, groups, scope)

    @property
    def due(self) -> bool:
        """Whether the next call of `step` looks at the duals."""
        return self._looks_at(self.steps + 1)

    def _looks_at(self, steps: int) -> bool:
        """Return whether it looks after so many steps; in cycles after fine ones, for coarse ones move few duals."""
        if not isinstance(self.optimizer, MultilevelLinBreg):
            return steps % self.every == 0
        return self.optimizer.phase == 0 and steps - self.looked >= self.every

    @property
    def pace(self) -> float:
        """The relaxation of one look: as far as looks every `every` steps would have come since the last one."""
        between = self.steps - self.looked
        if not isinstance(self.optimizer, MultilevelLinBreg) or between == self.every:
            return self.relaxation
        return 1 - (1 - self.relaxation) ** (between / self.every)

    def _act(self, metric: float | None) -> None:
        if not self._looks_at(self.steps):
            return
        factor = 1.0 if self.ramp is None else float(self.ramp(self.steps))
        for each in self.watched:
            if each.frozen:
                continue
            each.set_lam(min(max(self._next(each, factor), self.least), self.most))
        self.turns += 1
        self.looked = self.steps

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict({"looked": state_dict["steps"], **state_dict})  # saved by 0.1: not known

    @abstractmethod
    def _next(self, watched: Watched, factor: float) -> float:
        """Return the λ to go on with."""


class LamByQuantile(SizeControl):
    """λ ← λ + a·(q − λ), q the λ at which the network has just the size asked for, were the duals to stay.

    q lies in the middle between the K-th and the next largest level: |v| under ℓ1, ‖v_g‖/√n_g under the group norm, the
    singular values of v under the nuclear norm. Beyond half a million weights q is taken from some rows of each weight,
    other ones at each turn.

    Args:
        optimizer: any Bregman optimizer.
        sizes: one target or several; the tightest decides.
        relaxation: a in (0, 1], default 0.1.
        **options: as for `SizeControl`: every, ramp, groups, scope, least, most.

    Raises:
        ValueError: as `SizeControl`.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.L1(0.0))
        >>> control = tb.schedulers.LamByQuantile(optimizer, tb.schedulers.Density(0.5), relaxation=1.0, every=1)
        >>> for _ in range(2):
        ...     weight.grad = -torch.tensor([[4.0, 3.0], [2.0, 1.0]])
        ...     optimizer.step()
        ...     control.step()
        >>> weight.detach(), optimizer.param_groups[0]["lam"]
        (tensor([[5.5000, 3.5000],
                [1.5000, 0.0000]]), 5.0)
    """

    def __init__(self, optimizer: RegularizedOptimizer, *sizes: Size, relaxation: float = 0.1, **options: Any) -> None:
        super().__init__(optimizer, *sizes, relaxation=relaxation, **options)

    def _next(self, watched: Watched, factor: float) -> float:
        lam = watched.lam
        return lam + self.pace * (watched.lam_wanted(factor, self.turns) - lam)


class LamByFeedback(SizeControl):
    """λ ← λ·(1 + a·gap) where the network is too large, λ / (1 + a·|gap|) where it is too small.

    gap is size/target − 1, clipped to [−1, 1]. From λ = 0, which no factor leads away from, λ starts at the one that
    `LamByQuantile` aims at.

    Args:
        optimizer: any Bregman optimizer.
        sizes: one target or several; the tightest decides.
        relaxation: a in (0, 1], default 0.02.
        **options: as for `SizeControl`: every, ramp, groups, scope, least, most.

    Raises:
        ValueError: as `SizeControl`.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = tb.LinBreg([weight], lr=0.0, regularizer=tb.L1(1.0))
        >>> control = tb.schedulers.LamByFeedback(optimizer, tb.schedulers.Density(0.5), every=1)
        >>> control.step()
        >>> optimizer.param_groups[0]["lam"]
        1.02
    """

    def __init__(self, optimizer: RegularizedOptimizer, *sizes: Size, relaxation: float = 0.02, **options: Any) -> None:
        super().__init__(optimizer, *sizes, relaxation=relaxation, **options)

    def _next(self, watched: Watched, factor: float) -> float:
        lam = watched.lam
        if lam == 0:
            return watched.lam_wanted(factor, self.turns)
        gap = min(max(watched.gap(factor, self.turns), -1.0), 1.0)
        return lam * (1 + self.pace * gap) if gap > 0 else lam / (1 - self.pace * gap)


def watched(
    optimizer: RegularizedOptimizer, sizes: Sequence[Size], groups: Sequence[int] | None, scope: Scope
) -> list[Watched]:
    """Return all that is steered together, group by group where each meets the target by itself.

    Raises:
        ValueError: for an unknown scope, or what `Watched` refuses.
    """
    if unfit := [size for size in sizes if not isinstance(size, Size)]:
        raise ValueError(f"a target must be a size such as Density(0.05), got {unfit[0]!r}")
    if scope not in ("global", "group"):
        raise ValueError(f"scope must be global or group, got {scope!r}")
    found, beside = steered(optimizer, groups)
    if scope == "global":
        return [Watched(optimizer, found, sizes, beside)]
    all_groups = [optimizer.param_groups[index] for index in found]
    apart = [size.apart(all_groups, beside) for size in sizes]
    return [Watched(optimizer, [index], [each[number] for each in apart]) for number, index in enumerate(found)]
