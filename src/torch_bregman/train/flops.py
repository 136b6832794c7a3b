"""The running total of floating-point operations of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_bregman.metrics import count_nonzeros, named_weights
from torch_bregman.optim import MultilevelLinBreg, RegularizedOptimizer
from torch_bregman.schedulers import Consolidation
from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row
from torch_bregman.train.setup import Parts


class FlopCount:
    """Adds up what steps cost were zeros free, see `metrics.TrainingFlops`, beside a dense network.

    In cycles every step is counted by the support it had; other methods by the weights that are not zero, the mean of
    those before and after an epoch. Methods that evaluate the model more than once a step are not counted.

    Args:
        conf: the run.
        parts: of the run.
    """

    def __init__(self, conf: Conf, parts: Parts) -> None:
        self._parts, self._counted = parts, conf.optim.name != "pgd" and bool(parts.flops.times)
        self.total = self.dense = 0
        self._awake: dict[str, int] | None = None
        self._before: dict[str, int] = {}

    def count(self, samples: int) -> None:
        """Count the step just taken, in cycles."""
        optimizer = self._parts.optimizer
        if not self._counted or not isinstance(optimizer, MultilevelLinBreg):
            return
        frozen = any(isinstance(control, Consolidation) and control.done for control in self._parts.controls)
        fine = optimizer.phase == 0 and not frozen
        if self._awake is None:
            self._awake = self._supports(optimizer)
        self.total += self._parts.flops.step(self._awake, fine=fine, samples=samples)
        if fine:
            self._awake = self._supports(optimizer)

    def _supports(self, optimizer: MultilevelLinBreg) -> dict[str, int]:
        if self._parts.form is not None:
            return self._parts.form.awake()
        found = _nonzeros(self._parts)
        for name, weight in named_weights(self._parts.model).items():
            state = optimizer.state.get(weight, {})
            if "awake" in state:
                found[name] = int(state["awake"].sum())
        return found

    def row(self, samples: int) -> dict[str, Any]:
        """Return the totals after an epoch of so many samples, as columns of the log."""
        if not self._counted:
            return {}
        parts = self._parts
        self.dense += parts.flops.dense(samples)
        if isinstance(parts.optimizer, MultilevelLinBreg):
            self._awake = None
        elif isinstance(parts.optimizer, RegularizedOptimizer):
            after = _nonzeros(parts)
            mean = {name: (self._before.get(name, count) + count) // 2 for name, count in after.items()}
            self.total += parts.flops.step(mean, fine=True, samples=samples)
            self._before = after
        else:
            self.total += parts.flops.dense(samples)
        return {"flops": self.total, "flops_dense": self.dense}

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from the rows of a run; one begun before there was such a count goes on without."""
        if rows and "flops" not in rows[-1]:
            self._counted = False
        elif rows:
            self.total, self.dense = rows[-1]["flops"], rows[-1]["flops_dense"]
            self._before = _nonzeros(self._parts)


def _nonzeros(parts: Parts) -> dict[str, int]:
    weights = named_weights(parts.model)
    return dict(zip(weights, count_nonzeros(weights.values()), strict=True))
