"""What every engine for singular value thresholding is: (V, t) -> the thresholded matrix in factors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Thresholded:
    """W = U max(S − t, 0) Vᵀ as two thin factors.

    Args:
        left: (…, r, m), rows a_i·u_i.
        right: (…, r, n), rows b_i·v_i with a_i·b_i = max(σ_i − t, 0).
        values: (…, r), the singular values σ_i kept, float64, falling; below t where another matrix of the batch keeps
            more.
        threshold: t.
        error: estimate of the error of W in the Frobenius norm; 0 for exact engines.
        reason: which way the engine took, and why.
    """

    left: Tensor
    right: Tensor
    values: Tensor
    threshold: float
    error: float
    reason: str

    @property
    def rank(self) -> Tensor:
        """Number of singular values above t, one for each matrix."""
        return (self.values > self.threshold).sum(-1)

    def matrix(self) -> Tensor:
        """Return W, (…, m, n)."""
        return self.left.mT @ self.right


class Engine(ABC):
    """Thresholds singular values; may keep what it learnt from one call for the next.

    Input is a matrix or a batch of matrices (…, m, n), floating point; batches have one t. A lost or foreign memory
    costs time, never accuracy.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix.

        Args:
            matrix: (m, n) or (b, m, n).
            threshold: t ≥ 0.

        Raises:
            ValueError: for entries that are not finite; the memory is then as it was.
        """

    def state(self) -> dict[str, Any]:
        """Return the memory as tensors and numbers, for a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a memory; one that does not fit is forgotten at the next call."""

    def __str__(self) -> str:
        return self.name


def check_count(what: str, number: int, least: int) -> None:
    """Raise ValueError for what is no integer of at least `least`."""
    if not isinstance(number, Integral) or number < least:
        raise ValueError(f"{what} engine must be an integer of at least {least}, got {number!r}")


def not_finite() -> ValueError:
    """Return the error for entries that are nan or inf."""
    return ValueError("singular value thresholding needs finite entries, got nan or inf: lower lr or clip gradients")


def nothing_left(matrix: Tensor, threshold: float, reason: str) -> Thresholded:
    """Return W = 0."""
    *batch, m, n = matrix.shape
    left, right = matrix.new_zeros(*batch, 0, m), matrix.new_zeros(*batch, 0, n)
    return Thresholded(left, right, torch.zeros(*batch, 0, dtype=torch.float64), threshold, 0.0, reason)


def prepared(matrix: Tensor, threshold: float) -> Tensor:
    """Return the matrix, halves as float32, which decompositions need.

    Raises:
        ValueError: for what is no matrix of floating point numbers, or a threshold outside [0, ∞).
    """
    if matrix.ndim < 2 or not matrix.is_floating_point():
        raise ValueError(
            f"singular value thresholding needs floating point (…, m, n), got {matrix.dtype} {tuple(matrix.shape)}"
        )
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must lie in [0, inf), got {threshold}")
    return matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
