"""The default engine: chooses by device, shape and rank, and says why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, prepared
from torch_bregman.linalg.gram import GramEngine
from torch_bregman.linalg.matmul import MatmulEngine
from torch_bregman.linalg.tracked import TrackedEngine

_SMALL = 128
_CROWDED = 0.35
_MILD = 100.0


class AutoEngine(Engine):
    """Takes the engine that was fastest where it was measured.

    - on a GPU: `matmul`;
    - shorter side up to 128, a threshold of 0: `gram` in float64;
    - rank up to 0.35 of the shorter side: `tracked`, which starts by `gram` in float64;
    - above: `gram`, in float32 while σ₁/t < 100, else in float64.

    Rank and σ₁/t are those of the last call. The result's `reason`, and that of the engine, tell which, and why.

    Args:
        tolerance: of the tracked engine, default 1e-3.
        seed: of the tracked engine.

    Raises:
        ValueError: for a tolerance that is not above 0.

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
        self._ratio, self._rank = math.inf, 0
        self.reason = "auto: not called yet"

    def __str__(self) -> str:
        return f"auto({self._tracked.tolerance:g})"

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix."""
        engine, why = self._choose(prepared(matrix, threshold), threshold)
        result = engine(matrix, threshold)
        self.reason = f"auto: {why} -> {result.reason}"
        self._rank = result.values.shape[-1]
        if self._rank and threshold:
            self._ratio = float(result.values.max()) / threshold
        if engine is not self._tracked:
            self._tracked.forget()
        return replace(result, reason=self.reason)

    def _choose(self, V: Tensor, t: float) -> tuple[Engine, str]:
        short = min(V.shape[-2:])
        if V.device.type != "cpu":
            return MatmulEngine(), f"on {V.device.type}"
        if short <= _SMALL:
            return GramEngine(), f"shorter side of {short} <= {_SMALL}"
        if t == 0:
            return GramEngine(), "threshold of 0"
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
        self._ratio, self._rank = float(state.get("ratio", math.inf)), int(state.get("rank", 0))
