"""Singular value thresholding of a matrix that thin updates move, from thin products of it alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.engine import Thresholded
from torch_bregman.linalg.sweep import tensor

_PROBES = 8
_TRUST = 0.4
"""How much of the gap between t and the block's last singular value the drift may fill, by estimate."""
_GAP = 0.1
"""Gap, relative to t, below which a block is used up too soon to be worth following."""
_WEAKEST = 1e-2
"""Singular value, relative to t, below which the core of the approximation is too badly conditioned."""
_TINY = 1e-300
_DEPENDENT = 5e-3
"""Pivot, relative to a row's length, below which float32 products no longer tell a row from the others."""


class Sketch:
    """Follows V ← V + α·AᵀB through Y = QVᵀ and Z = PV, and thresholds their generalised Nyström approximation.

    V ≈ Yᵀ (PVQᵀ)⁻¹ Z =: Ṽ agrees with V on the spaces of P and Q, wherever V moves; the rest E = V − Ṽ it cannot see.
    Random probes Ω, orthogonal to Q, estimate by how much E has changed: ‖(E − E₀)Ωᵀ‖₂/√probes, which is above
    ‖E − E₀‖₂ in the mean of squares. While it leaves a good part of t − σ_k(V₀) free, nothing of E has come near
    t. Nothing here reads V after the start.

    Args:
        matrix: V₀, m × n, float32 or float64.
        basis: orthonormal rows that span the leading singular vectors of V₀ and some more: the right ones, Q, k × n, or
            the left ones, P, k × m. The other is then an orthonormal basis of what V₀ takes it to. Both stay.
        images: what V₀ takes the basis to, QV₀ᵀ, k × m, or PV₀, k × n.
        left: whether the basis is P.
        generator: the probes are drawn from, on the CPU.

    References:
        Nakatsukasa 2020, Fast and stable randomized low-rank matrix approximation (arXiv 2009.11392).

    Example:
        >>> import torch
        >>> V = torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.1, 0.0]))
        >>> sketch = Sketch(V, torch.eye(5)[:4], V[:4], generator=torch.Generator())
        >>> sketch.add(torch.eye(5)[:1], torch.eye(5)[:1], alpha=2.0)
        >>> sketch.threshold(1.0).matrix().diagonal()
        tensor([4., 1., 0., 0., 0.])
    """

    def __init__(
        self, matrix: Tensor, basis: Tensor, images: Tensor, left: bool = False, *, generator: torch.Generator
    ) -> None:
        other = _orthonormal(images)
        if left:
            P, Z, Q, Y = basis, images, other, other @ matrix.mT
        else:
            Q, Y, P, Z = basis, images, other, other @ matrix
        probes = torch.randn(_PROBES, Q.shape[-1], generator=generator).to(Q)
        # each side in one piece, so that one product serves two: P, Y, what the probes see; Q, probes, Z
        self._tall = torch.cat([P, Y, Y.new_zeros(_PROBES, Y.shape[-1])])
        self._wide = torch.cat([Q, probes - (probes @ Q.mT) @ Q, Z])
        core, seen, _, gram = self._products()
        self._start = -tensor(seen @ _inverse(core).T, Y) @ Y
        self.last = math.sqrt(max(float(_eigh(gram)[0][0]), 0))

    def holds(self, threshold: float) -> bool:
        """Return whether the block reaches deep enough below t, but not into rounding, to be worth following."""
        return _WEAKEST * threshold < self.last < (1 - _GAP) * threshold

    def add(self, A: Tensor, B: Tensor, alpha: float) -> None:
        """Take part in V ← V + α·AᵀB.

        Args:
            A: b × m.
            B: b × n.
            alpha: α.
        """
        k = self._block
        P, Q_and_probes = self._tall[:k], self._wide[:-k]
        self._tall[k:].addmm_(Q_and_probes @ B.mT, A, alpha=alpha)
        self._wide[-k:].addmm_(P @ A.mT, B, alpha=alpha)

    def threshold(self, threshold: float) -> Thresholded | None:
        """Return U max(S − t, 0) Vᵀ of the approximation; None where only V itself can answer.

        That is where V has drifted too far, where the core cannot be inverted, or where fewer than two singular values
        of the block lie below t.
        """
        k = self._block
        Y, Z = self._tall[k:-_PROBES], self._wide[-k:]
        core, seen, left, right = self._products()
        L, inverse = _factor(right), _inverse(core)
        limit = _TRUST * (threshold - self.last)
        if L is None or not self._has_drifted_less(limit, tensor(seen @ inverse.T, Y) @ Y):
            return None
        X = inverse @ L  # Ṽ = Yᵀ X L⁻¹ Z with the rows of L⁻¹ Z orthonormal
        turned = left @ X
        squares, W = _eigh(X.T @ turned)
        values = np.sqrt(np.maximum(squares, 0))[::-1]
        rank = int((threshold < values).sum())
        if k - rank < 2 or not values[-1] > _WEAKEST * threshold:
            return None
        values, W = values[:rank], W[:, ::-1][:, :rank]
        u = tensor((X @ (W * (1 - threshold / values))).T, Y) @ Y  # Ṽv_i = Yᵀ X W_i = σ_i u_i
        v = tensor(((turned @ (W / np.square(values))).T @ inverse), Y) @ Z  # v_i = Ṽᵀ Yᵀ X W_i / σ_i²
        values = torch.from_numpy(values.copy()).to(Y.device)
        return Thresholded(u, v, values, threshold, 0.0, f"sketch with a block of {k}")

    @property
    def left(self) -> tuple[Tensor, Tensor]:
        """P and PV, k × m and k × n."""
        k = self._block
        return self._tall[:k], self._wide[-k:]

    @property
    def _block(self) -> int:
        return (len(self._tall) - _PROBES) // 2

    def _products(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return PYᵀ = PVQᵀ, ΩZᵀ, YYᵀ and ZZᵀ, in float64."""
        k = self._block
        tall = _array(self._tall[: 2 * k] @ self._tall[k : 2 * k].mT)
        wide = _array(self._wide[k:] @ self._wide[-k:].mT)
        return tall[:k], wide[:_PROBES], tall[k:], wide[_PROBES:]

    def _has_drifted_less(self, limit: float, explained: Tensor) -> bool:
        """Return whether the estimate of ‖E − E₀‖₂, given ΩṼᵀ, is finite and below a limit."""
        unseen = (self._tall[-_PROBES:] - self._start).sub_(explained)
        total = float(torch.linalg.vector_norm(unseen)) / math.sqrt(_PROBES)
        if total <= limit:  # which is above the spectral norm
            return True
        return total < math.inf and math.sqrt(max(_eigh(_array(unseen @ unseen.mT))[0][-1], 0) / _PROBES) <= limit

    def state(self) -> dict[str, Any]:
        """Return bases, products and probes, for a checkpoint."""
        return {"tall": self._tall, "wide": self._wide, "start": self._start, "last": self.last}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Sketch:
        """Return the sketch that `state` came from; tensors are copied."""
        sketch = cls.__new__(cls)
        sketch._tall, sketch._wide, sketch._start = (state[name].clone() for name in ("tall", "wide", "start"))
        sketch.last = float(state["last"])
        return sketch


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float64)


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    return values.numpy(), vectors.numpy()


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse; something not finite where there is none."""
    return torch.linalg.inv_ex(torch.from_numpy(matrix))[0].numpy()


def _factor(gram: np.ndarray) -> np.ndarray | None:
    """Return L with gram = L Lᵀ; None where the rows it is of are dependent or not finite."""
    scale = np.sqrt(np.maximum(gram.diagonal(), _TINY))[:, None]  # equilibrated, small rows keep their accuracy
    L, failed = torch.linalg.cholesky_ex(torch.from_numpy(gram / (scale * scale.T)))
    if bool(failed) or not float(L.diagonal().amin()) > _DEPENDENT:
        return None
    return L.numpy() * scale


def _orthonormal(rows: Tensor) -> Tensor:
    """Return orthonormal rows that span the same space."""
    L = _factor(_array(rows @ rows.mT))
    if L is None:
        return torch.linalg.qr(rows.mT).Q.mT.contiguous()
    return tensor(np.linalg.inv(L), rows) @ rows
