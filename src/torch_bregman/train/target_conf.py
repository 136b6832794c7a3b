"""The size that a run asks for, and how it gets there. Does not need torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch_bregman.train.checked import Checked, refuse_idle

GOALS = ("density", "units", "rank", "params", "macs", "bytes")
"""Fields of `TargetConf` that ask for a size."""
_USUAL: dict[Literal["ramp_over", "consolidate"], float] = {"ramp_over": 0.5, "consolidate": 0.3}


@dataclass
class TargetConf(Checked):
    """How large the network may be: λ is then found by a controller, and the last steps train what is left.

    A goal up to 1 is a share of the dense network's, above 1 a number. Of several the tightest decides.

    Args:
        density: of weights that are not zero, e.g. 0.02.
        units: of live groups: by default whole units, by what reads them; else the groups of the regulariser, or rows.
        rank: of all weights together; the regulariser is then nuclear.
        params: of numbers that store the weights, low ranks as two factors.
        macs: of multiply-adds an image.
        bytes: of memory for the weights, single ones with an index of 4 bytes.
        scope: global for one λ and the whole network; layer for a λ and the target in each weight, multiply-adds of
            whole units by the same share of units in each, params, macs and bytes of low rank by the same rank; by
            default layer for a share of units, and with convolutions for multiply-adds under outgoing and for low rank,
            where one layer may else lose all; global for all others.
        controller: quantile or feedback; none keeps λ, as proxsgd needs it.
        relaxation: how far λ goes at a time; by default 0.1, for linbreg 0.2, for feedback 0.02.
        every: steps between two looks.
        ramp: how the target gets from `start` to the goal: cubic, linear, log or none.
        start: share of the dense network at which the ramp starts, more or less than the goal; by default the larger of
            0.2 and twice the goal.
        ramp_over: share of all steps that the ramp takes; by default 0.5; 0.4 in cycles, by whole units from a dense
            start, and for adabreg in low rank with convolutions.
        consolidate: share of all steps, the last, for which the network is frozen and trained without regulariser; by
            default 0.3; 0.5 in cycles, by whole units from a dense start, and for adabreg in low rank with
            convolutions.
        consolidate_lr: learning rate they start with, falling to 0; by default half of optim.lr, in cycles all of it;
            with convolutions a tenth for linbreg, twice that for adabreg in low rank.
        warm_up: share of all steps over which the learning rate rises, for adabreg in low rank after the freeze, too;
            by default 0.03 for linbreg and bregman, in cycles at least 50 steps or a tenth, 0.05 for adabreg with
            convolutions, but for whole units; 0 else.
    """

    density: float | None = None
    units: float | None = None
    rank: float | None = None
    params: float | None = None
    macs: float | None = None
    bytes: float | None = None
    scope: Literal["global", "layer"] | None = None
    controller: Literal["quantile", "feedback", "none"] = "quantile"
    relaxation: float | None = None
    every: int = 10
    ramp: Literal["cubic", "linear", "log", "none"] = "cubic"
    start: float | None = None
    ramp_over: float | None = None
    consolidate: float | None = None
    consolidate_lr: float | None = None
    warm_up: float | None = None

    def check(self) -> None:
        """Check ranges, and that nothing is set without a goal."""
        for name, value in self.goals().items():
            if not value > 0:
                raise ValueError(f"target.{name} must be a number > 0, got {value!r}: 0.05 is 5 %, 5000 a number")
        if self.density is not None and self.density > 1 and self.density != int(self.density):
            raise ValueError(f"target.density must be a share up to 1 or a whole number, got {self.density!r}")
        if not self.asked:
            self.scope = None if self.scope == "global" else self.scope  # as configurations made before 0.1 have it
            usual = {name for name in _USUAL if self.share(name) == _USUAL[name]}
            refuse_idle("target", self, usual, f"no goal (one of {', '.join(GOALS)})")
            self.settle()
        self._check_shares()

    def settle(self) -> None:
        """Give what neither was set nor comes from the recipe its usual value."""
        for name in _USUAL:
            setattr(self, name, self.share(name))
        if self.asked:
            self.scope = self.scope or ("layer" if self.units is not None and self.units <= 1 else "global")

    def share(self, name: Literal["ramp_over", "consolidate"]) -> float:
        """Return a share of all steps, the usual one where it is left open."""
        value = getattr(self, name)
        return _USUAL[name] if value is None else value

    def _check_shares(self) -> None:
        for name in ("ramp_over", "consolidate", "warm_up"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"target.{name} must lie in [0, 1), got {value!r}: a share of all steps")
        if self.relaxation is not None and not 0 < self.relaxation <= 1:
            raise ValueError(f"target.relaxation must lie in (0, 1], got {self.relaxation!r}")
        if self.start is not None and not 0 < self.start <= 1:
            raise ValueError(f"target.start must lie in (0, 1], got {self.start!r}: a share of the dense network")
        if self.every < 1:
            raise ValueError(f"target.every must be a number >= 1, got {self.every!r}: steps between two looks")
        if self.consolidate_lr is not None and not 0 <= self.consolidate_lr < math.inf:
            raise ValueError(f"target.consolidate_lr must be a number >= 0, got {self.consolidate_lr!r}")
        ramp_over, consolidate = self.share("ramp_over"), self.share("consolidate")
        if ramp_over + consolidate > 1:
            raise ValueError(
                f"target.ramp_over {ramp_over:g} and target.consolidate {consolidate:g} are more than all steps: make "
                "one of them smaller"
            )

    def goals(self) -> dict[str, float]:
        """Return the sizes asked for, by name."""
        found = {name: getattr(self, name) for name in GOALS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def asked(self) -> bool:
        """Whether a size is asked for."""
        return bool(self.goals())


def ramp_start(goal: float) -> float:
    """Return the share of the dense network at which a ramp to a goal starts: max(0.2, 2·goal), at most 1.

    Example:
        >>> ramp_start(0.01), ramp_start(0.25), ramp_start(0.7)
        (0.2, 0.5, 1.0)
    """
    return min(max(0.2, 2 * goal), 1.0) if goal <= 1 else 0.2
