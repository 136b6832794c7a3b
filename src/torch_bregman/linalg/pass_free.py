"""Singular value thresholding that reads its matrix only now and then."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded
from torch_bregman.linalg.sketch import Sketch
from torch_bregman.linalg.tracked import TrackedEngine


class PassFreeEngine(Engine):
    """Reads V every `refresh` calls by the tracked engine, and follows a sketch of it in between.

    Every change of V must be told to `add`; after any other, `forget`. V is read at once where the sketch has no
    answer: its core cannot be inverted, or the rank comes within two of its block. Of a V whose rank does not fill the
    block (a low-rank start) there is no sketch, and each call reads it until there is. A reading starts from what the
    sketch knows, and the next sketch from what was read: that makes two products with V.

    Args:
        refresh: calls between two readings, ≥ 1; with 1 this is the tracked engine.
        tolerance: of the tracked engine, default 1e-3.

    Example:
        >>> import torch
        >>> V = torch.diag(10 * 0.8 ** torch.arange(100))
        >>> engine, A, B = PassFreeEngine(refresh=3), torch.ones(1, 100), torch.ones(1, 100)
        >>> for _ in range(3):
        ...     V = V.addmm_(A.mT, B, alpha=0.001)
        ...     engine.add(A, B, alpha=0.001)
        ...     print(engine(V, 5.0).reason)
        Gram eigendecomposition in float64: no subspace yet
        sketch with a block of 8
        sketch with a block of 8
    """

    name: ClassVar[str] = "pass_free"

    def __init__(self, refresh: int = 10, tolerance: float = 1e-3) -> None:
        self.refresh = refresh
        self._tracked = TrackedEngine(tolerance=tolerance, told=True)
        self._generator = torch.Generator().manual_seed(0)
        self.forget()

    def add(self, A: Tensor, B: Tensor, alpha: float) -> None:
        """Take note of V ← V + α·AᵀB, with A of b × m and B of b × n."""
        (self._tracked if self._sketch is None else self._sketch).add(A, B, alpha)

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix."""
        self._age += 1
        if self._sketch is not None:
            result = self._sketch.threshold(threshold) if self._age < self.refresh else None
            if result is not None:
                return result
            self._tracked.take_up(*self._sketch.left)
            self._sketch, self._age = None, self.refresh
        result = self._tracked(matrix, threshold)
        if 1 < self.refresh <= self._age:
            self._age, self._sketch = 0, self._new_sketch(matrix, threshold)
        return result

    def _new_sketch(self, matrix: Tensor, threshold: float) -> Sketch | None:
        known = self._tracked.followed()
        sketch = None if known is None else Sketch(matrix, *known, generator=self._generator)
        return sketch if sketch is not None and sketch.holds(threshold) else None

    def forget(self) -> None:
        """Drop the sketch: V has changed in a way that `add` was not told of."""
        self._sketch: Sketch | None = None
        self._age = self.refresh

    def state(self) -> dict[str, Any]:
        """Return the memory of the tracked engine, the sketch and its age."""
        sketch = None if self._sketch is None else self._sketch.state()
        generator = self._generator.get_state()
        return {"tracked": self._tracked.state(), "sketch": sketch, "age": self._age, "generator": generator}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._tracked.load_state(state["tracked"])
        self._sketch = None if state["sketch"] is None else Sketch.from_state(state["sketch"])
        self._age = int(state["age"])
        self._generator.set_state(state["generator"].cpu())
