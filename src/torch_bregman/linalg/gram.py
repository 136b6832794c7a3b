"""Singular value thresholding by the eigendecomposition of the Gram matrix of the smaller side, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def svt_gram(matrix: Tensor, threshold: float) -> Tensor:
    """Soft-threshold the singular values of a matrix.

    For V = U S Wᵀ this is U max(S − t, 0) Wᵀ, the proximal map of t·‖·‖_* (Cai, Candès, Shen 2010). With m ≤ n and
    V Vᵀ = U S² Uᵀ it equals U diag(max(1 − t/S, 0)) Uᵀ V: no singular vectors of the long side are needed. Gram matrix
    and eigenvectors are float64, which for float32 input is exact to rounding; for float64 input the error is of the
    order of eps·σ₁²/t, σ₁ the largest singular value.

    Args:
        matrix: m × n, floating point.
        threshold: t ≥ 0.

    Returns:
        A tensor of the same shape and dtype.

    Raises:
        ValueError: for non-finite entries.

    Example:
        >>> import torch
        >>> svt_gram(torch.diag(torch.tensor([3.0, 1.0])), 2.0)
        tensor([[1., 0.],
                [0., 0.]])
    """
    if matrix.numel() == 0:
        return matrix.clone()
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    exact = wide.double()
    peak = exact.abs().amax()
    if not torch.isfinite(peak):
        raise ValueError("singular value thresholding needs finite entries, got nan or inf: lower lr or clip gradients")
    if peak == 0 or threshold == 0:
        return matrix.clone()
    exact = exact / peak  # squares of entries near the limits of float64 would leave its range
    squares, U = torch.linalg.eigh(exact @ exact.mT)
    values = squares.clamp_min(0).sqrt()
    kept = values * peak > threshold
    U, values = U[:, kept], values[kept]
    shrink = 1 - (threshold / peak) / values
    thresholded = ((U * shrink) @ (U.mT @ exact)).mul_(peak).to(matrix.dtype)
    return thresholded if wide is matrix else thresholded.mT
