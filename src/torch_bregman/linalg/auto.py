"""The default engine: chooses by device, shape and rank, and says why."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded
from torch_bregman.linalg.gram import GramEngine
from torch_bregman.linalg.matmul import MatmulEngine
from torch_bregman.linalg.tracked import TrackedEngine

_SMALL = 128
_CROWDED = 0.35
_MILD = 100.0


class AutoEngine(Engine):
    """Takes the engine that was fastest where it was measured.

    - on a GPU: `matmul`;
    - shorter side up to 128, first calls, a new threshold of 0: `gram` in float64;
    - rank up to 0.35 of the shorter side: `tracked`;
    - above: `gram`, in float32 while σ₁/t < 100, else in float64.

    `result.reason` and `reason` tell which, and why.

    Args:
        tolerance: of the tracked engine, default 1e-3.
        seed: of the tracked engine.

    Example:
        >>> import torch
        >>> engine = AutoEngine()
        >>> _ = engine(torch.eye(4), 0.5)
        >>> engine.reason
        'auto: shorter side of 4 <= 128 -> Gram eigendecomposition in float64'
    """

    name: ClassVar[str] = "auto"

    def __init__(self, tolerance: float = 1e-3, seed: int = 0) -> None:
        self._tracked = TrackedEngine(tolerance=tolerance, seed=seed)
        self._ratio, self._rank = float("inf"), 0
        self.reason = "auto: not called yet"

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix."""
        engine, why = self._choose(matrix, threshold)
        result = engine(matrix, threshold)
        self.reason = f"auto: {why} -> {result.reason}"
        if result.values.numel():
            self._ratio = float(result.values.amax()) / threshold if threshold else float("inf")
        self._rank = result.values.shape[-1]
        return result

    def _choose(self, matrix: Tensor, threshold: float) -> tuple[Engine, str]:
        short = min(matrix.shape[-2:])
        if matrix.device.type != "cpu":
            return MatmulEngine(), f"on {matrix.device.type}"
        if short <= _SMALL or threshold == 0:
            return GramEngine(), f"shorter side of {short} <= {_SMALL}" if short <= _SMALL else "threshold of 0"
        if self._rank <= _CROWDED * short:
            return self._tracked, f"rank {self._rank} <= {_CROWDED} of the shorter side of {short}"
        exact = torch.float32 if self._ratio < _MILD else torch.float64
        return GramEngine(exact), f"rank {self._rank} > {_CROWDED} of the shorter side of {short}"

    def state(self) -> dict[str, Any]:
        """Return the state of the tracked engine, and what the choice depends on."""
        return {**self._tracked.state(), "ratio": self._ratio, "rank": self._rank}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._tracked.load_state(state)
        self._ratio, self._rank = float(state.get("ratio", "inf")), int(state.get("rank", 0))
