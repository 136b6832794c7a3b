"""The nuclear norm under a rank cap that a schedule moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg import Engine, Thresholded
from torch_bregman.regularizers.nuclear import Nuclear


@dataclass(frozen=True)
class DynamicRankNuclear(Nuclear):
    """J(x) = λ w Σ σ_i(X) for rank X ≤ k, infinite elsewhere; k is moved by `set_rank` or a schedule.

    The proximal map keeps the k largest of the thresholded singular values: the exact minimiser, though J is no longer
    convex for k below the full rank. In Bregman optimizers the dual variable remembers the directions beyond the cap,
    so that they wake at once when it rises. The cap is the one thing about a regulariser that may change; regularisers
    shared by groups share it, and it travels in checkpoints.

    Args:
        lam: λ ≥ 0, default 1.
        view: how a weight becomes a matrix, as for `Nuclear`.
        engine: of the thresholding, as for `Nuclear`.
        weighted: w, as for `Nuclear`; default False.
        rank: the cap to start with, at least 1, default 16.
        max_rank: the cap never rises above it; default no limit.

    Raises:
        ValueError: for a rank or maximal rank out of range; when used, for weights whose rank exceeds the cap.

    Example:
        >>> import torch
        >>> regularizer = DynamicRankNuclear(lam=1.0, rank=1)
        >>> regularizer.prox(torch.diag(torch.tensor([3.0, 2.0])))
        tensor([[2., 0.],
                [0., 0.]])
        >>> regularizer.set_rank(2)
        >>> regularizer.prox(torch.diag(torch.tensor([3.0, 2.0])))
        tensor([[2., 0.],
                [0., 1.]])
    """

    rank: int = 16
    max_rank: int | None = None
    name: ClassVar[str] = "dynamic_rank_nuclear"
    convex: ClassVar[bool] = False
    _cap: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_rank is not None and self.max_rank < 1:
            raise ValueError(f"max_rank must be at least 1, got {self.max_rank}: leave it out for no limit")
        object.__setattr__(self, "_cap", [0])
        self.set_rank(self.rank)

    def get_rank(self) -> int:
        """Return the cap in force."""
        return self._cap[0]

    def set_rank(self, rank: int) -> None:
        """Set the cap.

        Raises:
            ValueError: for a cap below 1 or above `max_rank`.
        """
        most = self.max_rank
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1 or (most is not None and rank > most):
            allowed = ">= 1" if most is None else f"from 1 to {most}, the max_rank"
            raise ValueError(f"rank must be a whole number {allowed}, got {rank!r}")
        self._cap[0] = rank

    def threshold(self, matrix: Tensor, threshold: float, engine: Engine) -> Thresholded:
        """Return the k leading factors of SVT_t."""
        full, k = super().threshold(matrix, threshold, engine), self.get_rank()
        if full.values.shape[-1] <= k:
            return full
        reason = f"{full.reason}, capped at rank {k}"
        left, right = full.left[..., :k, :], full.right[..., :k, :]
        return Thresholded(left, right, full.values[..., :k], full.threshold, full.error, reason)

    def admits_all(self, x: Tensor) -> bool:
        """Return whether the cap is no less than the full rank."""
        return self.get_rank() >= min(self.matrix(x).shape)

    def check_domain(self, x: Tensor) -> None:
        """Raise ValueError where the rank of x exceeds the cap."""
        matrix = self.matrix(x)
        found = int(torch.linalg.matrix_rank(matrix.detach().double(), rtol=1e-5)) if matrix.numel() else 0
        if found > self.get_rank():
            raise ValueError(
                f"DynamicRankNuclear capped at rank {self.get_rank()} cannot start at a weight of rank {found}: "
                "start with low_rank_(model, rank), or raise the cap"
            )

    def state(self) -> dict[str, Any]:
        """Return the cap in force."""
        return {"rank": self.get_rank()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Set the cap."""
        if "rank" in state:
            self.set_rank(int(state["rank"]))


DynamicRankNuclearRegularizer = DynamicRankNuclear
"""The name of the dissertation's code."""
