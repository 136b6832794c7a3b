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
    """What X looks like from an orthonormal Q (k × n, as rows): singular triplets of PPᵀX, P a basis of X Qᵀ.

    Args:
        S: singular values, (b, k), falling: on numbers this few NumPy is faster than torch, and a GPU is read once.
        left: orthonormal rows u_i, (…, k, m).
        right: rows σ_i v_i = u_iᵀ X, (…, k, n). With X for Xᵀ, the pass that starts from `left` has these for images.
        start: Q.
        energy: ‖Q Xᵀ‖_F² of the images, (b,).
        coupling: u_iᵀ X Qᵀ, (…, k, k).
    """

    S: np.ndarray
    left: Tensor
    right: Tensor
    start: Tensor
    energy: np.ndarray
    coupling: Tensor

    @property
    def values(self) -> Tensor:
        """S as a tensor, (…, k), float64."""
        return torch.from_numpy(self.S).reshape(self.right.shape[:-1]).to(self.right.device)

    def rank(self, threshold: float) -> int:
        """Return how many values lie above t, the most of a batch."""
        return int((threshold < self.S).sum(-1).max())

    def shrunk(self, threshold: float, rank: int) -> tuple[Tensor, Tensor]:
        """Return the rows (1 − t/σ_i)₊ u_i and σ_i v_i of the first `rank` triplets, which make up SVT_t(PPᵀX)."""
        S = self.S[:, :rank]
        shrink = tensor(np.maximum(S - threshold, 0) / S, self.right).reshape(*self.right.shape[:-2], rank, 1)
        return self.left[..., :rank, :] * shrink, self.right[..., :rank, :]

    def outside(self, energy: np.ndarray) -> np.ndarray:
        """Return the energy that lies outside, ρ² = ‖X‖_F² − Σ σ_i², (b,)."""
        return np.maximum(energy - np.square(self.S).sum(-1), 0)

    def is_of_the_images(self) -> bool:
        """Return whether the images were those of X, as far as lengths tell: P spans them, so ‖P X Qᵀ‖ = ‖Q Xᵀ‖."""
        found = np.square(_matrices(self.coupling)).sum((-2, -1))
        return bool((np.abs(found - self.energy) <= 1e-4 * self.energy).all())

    def error(self, t: float, outside: np.ndarray) -> float:
        """Estimate ‖W − SVT_t(X)‖_F from what Q missed, R_i = σ_i v_i − (u_iᵀ X Qᵀ) Q, less what the pass took away.

        With c an estimate of the largest singular value outside and ρ_i = ‖R_i‖ c/σ_i, an active triplet turns by some
        ρ_i/σ_i, which makes an error of (1 − t/σ_i) ρ_i; and the true singular value may be as large as that of
        [σ_i ρ_i; 0 c], which matters where that is above t. Where c is close to t the estimate came out up to 2.5
        times too small, so it is raised by 1 + 3(c/t)⁴.

        Args:
            t: the threshold, above 0.
            outside: energy outside, (b,).
        """
        missed = array(torch.linalg.vector_norm((self.coupling @ self.start).sub_(self.right), dim=-1))
        S = np.maximum(self.S, 1e-300)
        c = np.maximum(S[:, -1:], np.fmin(np.sqrt(outside), t)[:, None] / 3)
        rho = missed * np.minimum(c / S, 1)
        turned = np.maximum(1 - t / S, 0) * rho
        hidden = np.maximum(_largest(S, rho, c) - np.maximum(S, t), 0)
        return math.sqrt(((np.square(turned) + np.square(hidden)) * np.square(1 + 3 * np.power(c / t, 4))).sum())


def sweep(X: Tensor, Q: Tensor, images: Tensor | None = None) -> Sweep | None:
    """Take one pass; None where the images are zero or, for squares that leave the range even of float64, not finite.

    Args:
        X: (…, m, n).
        Q: orthonormal rows, (…, k, n).
        images: Q Xᵀ where that is known, (…, k, m): one product with X less. See `Sweep.is_of_the_images`.

    Raises:
        ValueError: for entries that are not finite.
    """
    images = Q @ X.mT if images is None else images
    gram = _gram(images)
    peak = float(_diagonal(gram).max())
    wide = not 1e-20 < peak < 1e30  # squares of float32 that overflow or vanish, or of what is not finite
    if wide:
        gram = _matrices(gram64(images))
        peak = float(_diagonal(gram).max())
    if not 0 < peak < math.inf:
        if not bool(torch.isfinite(X).all()):
            raise not_finite()
        return None
    basis = _orthonormal(images, gram, peak)
    rows = basis @ X
    squares, rotation = _eigh(_matrices(gram64(rows)) if wide else _gram(rows))
    rotation = tensor(rotation, rows).reshape(*rows.shape[:-1], -1)
    right = rotation @ rows
    return Sweep(np.sqrt(squares), rotation @ basis, right, Q, _diagonal(gram).sum(-1), right @ Q.mT)


def gram64(rows: Tensor) -> Tensor:
    """Return rows·rowsᵀ, summed in float64."""
    wide = rows.double()
    return wide @ wide.mT


def array(vectors: Tensor) -> np.ndarray:
    """Return (…, k) as an array (b, k) of float64."""
    return vectors.reshape(-1, vectors.shape[-1]).cpu().numpy().astype(np.float64)


def tensor(numbers: np.ndarray, like: Tensor) -> Tensor:
    """Return an array as a tensor of that dtype, on that device."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(like)


def _matrices(tensors: Tensor) -> np.ndarray:
    """Return (…, k, l) as an array (b, k, l) of float64."""
    return tensors.reshape(-1, *tensors.shape[-2:]).cpu().numpy().astype(np.float64)


def _gram(rows: Tensor) -> np.ndarray:
    return _matrices(rows @ rows.mT)


def _diagonal(gram: np.ndarray) -> np.ndarray:
    return gram.diagonal(axis1=-2, axis2=-1)


def _largest(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the largest singular value of [a b; 0 c]."""
    return (np.hypot(a + c, b) + np.hypot(a - c, b)) / 2


def _eigh(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues, falling and none below 0, and the eigenvectors as rows.

    Raises:
        ValueError: for entries that are not finite.
    """
    if not np.isfinite(gram).all():
        raise not_finite()
    squares, E = torch.linalg.eigh(torch.from_numpy(gram))
    return np.maximum(squares.numpy()[:, ::-1], 0), E.mT.numpy()[:, ::-1]


def _orthonormal(rows: Tensor, gram: np.ndarray, peak: float) -> Tensor:
    """Return an orthonormal basis of the rows: by Cholesky factorisation, by Householder QR where that is not safe."""
    # equilibrated, the rows of small singular values keep their relative accuracy
    scale = 1 / np.sqrt(np.maximum(_diagonal(gram), peak * 1e-30))
    L, failed = torch.linalg.cholesky_ex(torch.from_numpy(gram * scale[:, :, None] * scale[:, None, :]))
    if failed.numpy().any() or _diagonal(L.numpy()).min() < 5e-3:
        return torch.linalg.qr(rows.mT).Q.mT.contiguous()
    inverse = torch.linalg.solve_triangular(L, torch.eye(L.shape[-1], dtype=L.dtype), upper=False).numpy()
    return tensor(inverse * scale[:, None, :], rows).reshape(*rows.shape[:-1], -1) @ rows
