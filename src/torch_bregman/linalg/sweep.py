"""One pass of block iteration over a matrix: from rows that nearly span its leading singular vectors to better ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.engine import not_finite


@dataclass(frozen=True, eq=False)
class Sweep:
    """What V looks like from an orthonormal Q (k × n, as rows): singular triplets of PPᵀV, P a basis of V Qᵀ.

    Args:
        values: S, (…, k), float64, falling.
        S: the same as an array, (b, k): on numbers this few NumPy is faster than torch, and a GPU is read once.
        right: rows σ_i v_i = u_iᵀ V, (…, k, n).
        basis: orthonormal rows P, (…, k, m).
        rotation: from P to the u_i, (…, k, k).
        images: V Qᵀ as rows, (…, k, m).
    """

    values: Tensor
    S: np.ndarray
    right: Tensor
    basis: Tensor
    rotation: Tensor
    images: Tensor

    def rank(self, threshold: float) -> int:
        """Return how many values lie above t, the most of a batch."""
        return int((threshold < self.S).sum(-1).max())

    def left(self, count: int | None = None) -> Tensor:
        """Return the first u_i as orthonormal rows, all by default."""
        return self.rotation[..., :count, :] @ self.basis

    def shrunk(self, threshold: float, rank: int) -> tuple[Tensor, Tensor]:
        """Return the rows (1 − t/σ_i)₊ u_i and σ_i v_i of the first `rank` triplets, which make up SVT_t(PPᵀV)."""
        values = self.values[..., :rank]
        shrink = ((values - threshold).clamp_min(0) / values).to(self.right.dtype).unsqueeze(-1)
        return (self.rotation[..., :rank, :] * shrink) @ self.basis, self.right[..., :rank, :]

    def following(self) -> Tensor:
        """Return the v_i as rows: the next Q, but for the rows of vanishing σ_i."""
        return self.right / self.values.clamp_min(1e-300).to(self.right.dtype).unsqueeze(-1)

    def outside(self, energy: np.ndarray) -> np.ndarray:
        """Return the energy that lies outside, ρ² = ‖V‖_F² − Σ σ_i², (b,)."""
        return np.maximum(energy - np.square(self.S).sum(-1), 0)

    def error(self, Q: Tensor, t: float, outside: np.ndarray) -> float:
        """Estimate ‖W − SVT_t(V)‖_F from what Q missed, R_i = σ_i v_i − (u_iᵀ V Qᵀ) Q, less what the pass took away.

        With c an estimate of the largest singular value outside and ρ_i = ‖R_i‖ c/σ_i, an active triplet turns by some
        ρ_i/σ_i, which makes an error of (1 − t/σ_i) ρ_i; and the true singular value may be as large as that of
        [σ_i ρ_i; 0 c], which matters where that is above t. Where c is close to t the estimate came out up to 2.5
        times too small, so it is raised by 1 + 3(c/t)⁴.

        Args:
            Q: the subspace the pass started from.
            t: the threshold, above 0.
            outside: energy outside, (b,).
        """
        coupling = self.rotation @ (self.basis @ self.images.mT)
        missed = array(torch.linalg.vector_norm(self.right - coupling @ Q, dim=-1).double())
        S = np.maximum(self.S, 1e-300)
        c = np.maximum(S[:, -1:], np.fmin(np.sqrt(outside), t)[:, None] / 3)
        rho = missed * np.minimum(c / S, 1)
        turned = np.maximum(1 - t / S, 0) * rho
        hidden = np.maximum(_largest(S, rho, c) - np.maximum(S, t), 0)
        return math.sqrt(((np.square(turned) + np.square(hidden)) * np.square(1 + 3 * np.power(c / t, 4))).sum())


def sweep(V: Tensor, Q: Tensor) -> Sweep | None:
    """Take one pass; None where V Qᵀ is zero or, for squares that leave the range even of float64, not finite.

    Raises:
        ValueError: for entries that are not finite.
    """
    images = Q @ V.mT
    gram = (images @ images.mT).double()
    peak = float(gram.diagonal(dim1=-2, dim2=-1).amax())
    wide = not 1e-20 < peak < 1e30  # squares of float32 that overflow or vanish, or of what is not finite
    if wide:
        gram = gram64(images)
        peak = float(gram.diagonal(dim1=-2, dim2=-1).amax())
    if not 0 < peak < math.inf:
        if not bool(torch.isfinite(V).all()):
            raise not_finite()
        return None
    basis = _orthonormal(images, gram, peak)
    rows = basis @ V
    squares, E = torch.linalg.eigh(gram64(rows) if wide else (rows @ rows.mT).double())
    rotation = E.mT.flip(-2).to(rows.dtype)
    values = squares.flip(-1).clamp_min(0).sqrt()
    return Sweep(values, array(values), rotation @ rows, basis, rotation, images)


def gram64(rows: Tensor) -> Tensor:
    """Return rows·rowsᵀ, summed in float64."""
    wide = rows.double()
    return wide @ wide.mT


def array(vectors: Tensor) -> np.ndarray:
    """Return (…, k) as an array (b, k)."""
    return vectors.reshape(-1, vectors.shape[-1]).cpu().numpy()


def _largest(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the largest singular value of [a b; 0 c]."""
    return (np.hypot(a + c, b) + np.hypot(a - c, b)) / 2


def _orthonormal(rows: Tensor, gram: Tensor, peak: float) -> Tensor:
    """Return an orthonormal basis of the rows: by Cholesky factorisation, by Householder QR where that is not safe."""
    # equilibrated, the rows of small singular values keep their relative accuracy
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(peak * 1e-30).rsqrt()
    L, failed = torch.linalg.cholesky_ex(gram * scale.unsqueeze(-1) * scale.unsqueeze(-2))
    if bool(failed.any()) or float(L.diagonal(dim1=-2, dim2=-1).amin()) < 5e-3:
        return torch.linalg.qr(rows.mT).Q.mT.contiguous()
    whiten = torch.linalg.solve_triangular(L, torch.diag_embed(scale), upper=False)
    return whiten.to(rows.dtype) @ rows
