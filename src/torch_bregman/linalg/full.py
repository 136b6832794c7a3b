"""The reference: a full singular value decomposition."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, not_finite, prepared
from torch_bregman.linalg.gram import GramEngine


class FullEngine(Engine):
    """Singular value thresholding by `torch.linalg.svd`.

    Where LAPACK does not converge, the Gram engine takes over, and a warning says so once.

    Example:
        >>> import torch
        >>> FullEngine()(torch.diag(torch.tensor([3.0, 1.0])), 2.0).matrix()
        tensor([[1., 0.],
                [0., 0.]])
    """

    name: ClassVar[str] = "full"

    def __init__(self) -> None:
        self._warned = False

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix, exact to rounding."""
        matrix = prepared(matrix, threshold)
        if not torch.isfinite(matrix).all():
            raise not_finite()
        try:
            U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            if not self._warned:
                warnings.warn(
                    "a singular value decomposition did not converge: the Gram engine took over", stacklevel=2
                )
                self._warned = True
            return GramEngine()(matrix, threshold)
        rank = int((threshold < S.double()).sum(-1).max()) if S.numel() else 0
        left = U[..., :rank].mT * (S[..., :rank] - threshold).clamp_min(0).unsqueeze(-1)
        return Thresholded(left, Vh[..., :rank, :], S[..., :rank].double(), threshold, 0.0, "full SVD")
