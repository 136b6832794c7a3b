"""When a metric has stopped getting better."""

from __future__ import annotations

import math
from typing import Literal


class Plateau:
    """Counts steps without improvement.

    A metric m is better than the best so far when it lies below it by more than the share `threshold`
    (mode "min"), or above it (mode "max").

    Args:
        patience: steps without improvement that are borne, at least 0.
        mode: "min" for losses (default), "max" for accuracies.
        threshold: relative, ≥ 0, default 1e-4.

    Example:
        >>> plateau = Plateau(patience=1)
        >>> [plateau.reached(loss) for loss in (1.0, 0.9, 0.9, 0.9, 0.9)]
        [False, False, False, True, False]
    """

    def __init__(self, patience: int, mode: Literal["min", "max"] = "min", threshold: float = 1e-4) -> None:
        if patience < 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be min or max, got {mode!r}")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise ValueError(f"threshold must be a finite number >= 0, got {threshold!r}")
        self.patience, self.mode, self.threshold = patience, mode, threshold
        self.best, self.waited = math.inf, 0

    def reached(self, metric: float) -> bool:
        """Take in a metric; return whether patience is used up, and then start counting anew."""
        signed = float(metric) if self.mode == "min" else -float(metric)
        if math.isinf(self.best) or signed < self.best - self.threshold * abs(self.best):
            self.best, self.waited = signed, 0
            return False
        self.waited += 1
        if self.waited <= self.patience:
            return False
        self.waited = 0
        return True

    def state(self) -> dict[str, float]:
        """Return the best so far and how long ago it was."""
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, float]) -> None:
        """Take up what `state` returned."""
        self.best, self.waited = float(state["best"]), int(state["waited"])


def need_metric(schedule: str, metric: float | None) -> float:
    """Return the metric, or raise ValueError where it is missing."""
    if metric is None:
        raise ValueError(f"{schedule} needs a metric, e.g. step(validation_loss)")
    return float(metric)
