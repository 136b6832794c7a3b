"""Singular value thresholding by the eigendecomposition of the Gram matrix of the smaller side."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, not_finite, nothing_left, prepared


class GramEngine(Engine):
    """Exact and without memory: the first call, the fallback, and the best choice for small matrices.

    With m ≤ n and V Vᵀ = U S² Uᵀ, W = U diag(max(1 − t/S, 0)) Uᵀ V: no singular vectors of the long side are needed.
    In float64, the default, this is exact to rounding for float32 input, and for float64 input to about eps·σ₁²/t. In
    float32 the smallest kept triplet is lost where σ₁/t exceeds about 1000.

    Args:
        dtype: of the Gram matrix, default float64.

    Raises:
        ValueError: for another dtype.

    References:
        Cai, Candès, Shen 2010, for the proximal map.

    Example:
        >>> import torch
        >>> GramEngine()(torch.diag(torch.tensor([3.0, 1.0])), 2.0).matrix()
        tensor([[1., 0.],
                [0., 0.]])
    """

    name: ClassVar[str] = "gram"

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype of the gram engine must be torch.float32 or torch.float64, got {dtype}")
        self.dtype = dtype

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix."""
        matrix = prepared(matrix, threshold)
        reason = f"Gram eigendecomposition in {str(self.dtype).removeprefix('torch.')}"
        if matrix.numel() == 0:
            return nothing_left(matrix, threshold, reason)
        return thresholded(matrix, *gram_eigh(matrix, self.dtype), threshold, reason)


def thresholded(matrix: Tensor, values: Tensor, U: Tensor, threshold: float, reason: str) -> Thresholded:
    """Return W from all singular values and the singular vectors of the shorter side, as `gram_eigh` gives them."""
    rank = int((values > threshold).sum(-1).max())
    if rank == 0:
        return nothing_left(matrix, threshold, reason)
    values, U = values[..., :rank], U[..., :rank].mT
    short = (U * (1 - threshold / values).clamp_min(0).unsqueeze(-1)).to(matrix.dtype)  # rows (1 − t/σ)u
    wide = matrix.shape[-2] < matrix.shape[-1]
    long = (U @ (matrix if wide else matrix.mT).to(U.dtype)).to(matrix.dtype)  # rows σv
    left, right = (short, long) if wide else (long, short)
    return Thresholded(left, right, values.double(), threshold, 0.0, reason)


def gram_eigh(matrix: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the singular values, falling, and the vectors of the shorter side (right ones of a square) as columns.

    Raises:
        ValueError: for entries that are not finite.
    """
    peak = matrix.abs().amax(dim=(-2, -1), keepdim=True).to(dtype)
    if not torch.isfinite(peak).all():
        raise not_finite()
    # squares of entries near the limits of the dtype would leave its range
    unit = matrix.to(dtype) / peak.clamp_min(torch.finfo(dtype).tiny)
    gram = unit @ unit.mT if matrix.shape[-2] < matrix.shape[-1] else unit.mT @ unit
    squares, U = torch.linalg.eigh(gram)
    return squares.clamp_min(0).sqrt().flip(-1) * peak.squeeze(-1), U.flip(-1)


def svt_gram(matrix: Tensor, threshold: float) -> Tensor:
    """Return U max(S − t, 0) Vᵀ by `GramEngine`, in float64 throughout; the matrix itself for t = 0.

    Args:
        matrix: m × n, floating point.
        threshold: t ≥ 0.

    Raises:
        ValueError: for entries that are not finite.

    Example:
        >>> import torch
        >>> svt_gram(torch.diag(torch.tensor([3.0, 1.0])), 2.0)
        tensor([[1., 0.],
                [0., 0.]])
    """
    if threshold == 0 and torch.isfinite(matrix).all():
        return matrix.clone()
    return GramEngine()(matrix.double(), threshold).matrix().to(matrix.dtype)
