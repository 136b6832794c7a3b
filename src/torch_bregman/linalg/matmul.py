"""Singular value thresholding by matrix products alone, for GPUs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, at_least_float, not_finite, nothing_left

_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115952949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001644475248),
)
_POLISH = (1.875, -1.25, 0.375)
_SPARE = 16


class MatmulEngine(Engine):
    """Singular value thresholding without a decomposition of V.

    With P = (I + msign(VᵀV − t²I))/2, the projector on the right singular vectors above t, X = VP and O = msign(X),
    W = X − t·O·P. msign(A) = U Vᵀ is found by odd polynomials of degree five. On a CPU it costs more than a full
    decomposition; on a GPU matrix products are what is cheap. The error in float32 is about 1e-6·σ₁/t relative to W;
    singular values within about 0.1 % of t count as half above it, which changes W by less than that.

    Args:
        passes: polynomials applied, default 14.

    References:
        Amsel, Persson, Musco, Gower 2025, for the coefficients; Higham 2008, for the matrix sign.

    Example:
        >>> import torch
        >>> MatmulEngine()(torch.diag(torch.tensor([3.0, 1.0])), 2.0).matrix().round(decimals=3)
        tensor([[1., 0.],
                [0., 0.]])
    """

    name: ClassVar[str] = "matmul"

    def __init__(self, passes: int = 14) -> None:
        if passes < 1:
            raise ValueError(f"passes of the matmul engine must be at least 1, got {passes}")
        self.passes = passes

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix."""
        V = at_least_float(matrix)
        reason = f"matrix sign in {self.passes} products of degree five"
        if V.numel() == 0:
            return nothing_left(V, threshold, reason)
        if not torch.isfinite(V).all():
            raise not_finite()
        if V.shape[-2] < V.shape[-1]:
            flipped = self(V.mT, threshold)
            return Thresholded(flipped.right, flipped.left, flipped.values, threshold, flipped.error, reason)
        P = self._projector(V, threshold)
        X = V @ P
        W = X - threshold * self._sign(X) @ P
        rank = int(P.diagonal(dim1=-2, dim2=-1).sum(-1).round().amax())
        return _thin(W, rank, threshold, reason)

    def _projector(self, V: Tensor, t: float) -> Tensor:
        """Return (I + msign(VᵀV − t²I))/2."""
        shifted = V.mT @ V
        shifted.diagonal(dim1=-2, dim2=-1).sub_(t * t)
        half = self._sign(shifted) / 2
        half.diagonal(dim1=-2, dim2=-1).add_(0.5)
        return half

    def _sign(self, A: Tensor) -> Tensor:
        """Return U Vᵀ of A = U S Vᵀ, zero where S vanishes."""
        X = A / (1.01 * torch.linalg.matrix_norm(A, keepdim=True)).clamp_min(torch.finfo(A.dtype).tiny)
        for number in range(self.passes):
            a, b, c = _coefficients(number)
            gram = X.mT @ X
            X = a * X + X @ (b * gram + c * gram @ gram)
        return X


def _coefficients(number: int) -> tuple[float, float, float]:
    if number >= len(_POLAR_EXPRESS):
        return _POLISH
    a, b, c = _POLAR_EXPRESS[number]
    # a little less than optimal, so that rounding cannot push a singular value out of the interval of convergence
    return a / 1.01, b / 1.01**3, c / 1.01**5


def _thin(W: Tensor, rank: int, threshold: float, reason: str) -> Thresholded:
    """Write W, of about that rank, as a product of thin factors."""
    width = min(rank + _SPARE, *W.shape[-2:])
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(*W.shape[:-2], W.shape[-1], width, generator=generator).to(W)
    basis = torch.linalg.qr(W.mT @ (W @ probes)).Q
    left, kept, turn = torch.linalg.svd(W @ basis, full_matrices=False)
    # what lies near t is in W by halves, and rounding leaves about 1e-6 of the largest value everywhere
    dust = (1e-5 * kept[..., :1]).clamp_min(1e-3 * threshold)
    width = int((kept > dust).sum(-1).amax())
    rows = (left[..., :width] * kept[..., :width].unsqueeze(-2)).mT
    values = kept[..., :width].double() + threshold
    return Thresholded(rows, (turn @ basis.mT)[..., :width, :], values, threshold, float("nan"), reason)
