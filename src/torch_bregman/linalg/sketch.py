"""Singular value thresholding of a matrix that thin updates move, from thin products of it alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Thresholded

_PROBES = 8
_TRUST = 0.4
"""How much of the gap between t and the block's last singular value the drift may fill, by estimate."""
_GAP = 0.2
"""Gap, relative to t, below which a block is used up too soon to be worth following."""
_WEAKEST = 1e-2
"""Singular value, relative to t, below which the core of the approximation is too badly conditioned."""
_DEPENDENT = 5e-3
"""Pivot, relative to a row's length, below which float32 products no longer tell a row from the others."""


class Sketch:
    """Follows V ← V + α·AᵀB through Y = QVᵀ and Z = PV, and thresholds their generalised Nyström approximation.

    V ≈ Yᵀ (PVQᵀ)⁻¹ Z =: Ṽ agrees with V on the spaces of P and Q, wherever V moves; the rest E = V − Ṽ it cannot see.
    Random probes Ω, orthogonal to Q, estimate by how much E has changed, ‖(E − E₀)Ωᵀ‖_F²/probes. While that drift is
    below half of t − σ_k(V₀), nothing of E has come near t. Nothing here reads V after the start.

    Args:
        matrix: V₀, m × n, float32 or float64.
        Q: k × n, orthonormal rows that span the leading right singular vectors of V₀ and some more. P, k × m, is then
            an orthonormal basis of V₀Qᵀ, and both stay as they are.
        generator: the probes are drawn from, on the CPU.

    References:
        Nakatsukasa 2020, Fast and stable randomized low-rank matrix approximation (arXiv 2009.11392).

    Example:
        >>> import torch
        >>> V = torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.1, 0.0]))
        >>> sketch = Sketch(V, torch.eye(5)[:4], torch.Generator())
        >>> sketch.add(torch.eye(5)[:1], torch.eye(5)[:1], alpha=2.0)
        >>> sketch.threshold(1.0).matrix().diagonal()
        tensor([4., 1., 0., 0., 0.])
    """

    def __init__(self, matrix: Tensor, Q: Tensor, generator: torch.Generator) -> None:
        probes = torch.randn(_PROBES, Q.shape[-1], generator=generator).to(Q)
        Y = Q @ matrix.mT
        self.P = torch.linalg.qr(Y.mT).Q.mT.contiguous()
        self.Z = self.P @ matrix
        self._wide = torch.cat([Q, probes - (probes @ Q.mT) @ Q])
        self._tall = torch.cat([Y, Y.new_zeros(_PROBES, Y.shape[-1])])
        self._start = torch.zeros_like(self._tall[-_PROBES:])
        self._start = self._unseen(torch.linalg.pinv(self._core()))
        self.last = float(torch.linalg.eigvalsh(_gram(self.Z))[0].clamp_min(0).sqrt())

    @property
    def Y(self) -> Tensor:  # noqa: N802 - a matrix
        """QVᵀ, k × m."""
        return self._tall[:-_PROBES]

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
        self._tall.addmm_(self._wide @ B.mT, A, alpha=alpha)
        self.Z.addmm_(self.P @ A.mT, B, alpha=alpha)

    def threshold(self, threshold: float) -> Thresholded | None:
        """Return U max(S − t, 0) Vᵀ of the approximation; None where only V itself can answer.

        That is where V has drifted too far, where the core cannot be inverted, or where fewer than two singular values
        of the block lie below t.
        """
        left, right = _factor(self.Y), _factor(self.Z)
        if left is None or right is None:
            return None
        inverse, failed = torch.linalg.inv_ex(self._core())
        if bool(failed) or not self._drift(inverse) <= _TRUST * (threshold - self.last):
            return None
        U, S, Vh = torch.linalg.svd(left.mT @ inverse @ right)
        rank = int((threshold < S).sum())
        if len(S) - rank < 2 or not float(S[-1]) > _WEAKEST * threshold:
            return None
        A = _solve(left, U[:, :rank] * (S[:rank] - threshold)).to(self.P.dtype) @ self.Y
        B = _solve(right, Vh[:rank].mT).to(self.P.dtype) @ self.Z
        return Thresholded(A, B, S[:rank], threshold, 0.0, f"sketch with a block of {len(S)}")

    def _core(self) -> Tensor:
        return (self.P @ self.Y.mT).double()

    def _unseen(self, inverse: Tensor) -> Tensor:
        """Return (EΩᵀ − E₀Ωᵀ)ᵀ, from the inverse core."""
        probes = self._wide[-_PROBES:]
        return self._tall[-_PROBES:] - (probes @ self.Z.mT) @ inverse.mT.to(self.P.dtype) @ self.Y - self._start

    def _drift(self, inverse: Tensor) -> float:
        """Return an estimate of ‖E − E₀‖₂, from above in the mean: ‖(E − E₀)Ωᵀ‖₂/√probes."""
        return float(torch.linalg.eigvalsh(_gram(self._unseen(inverse)))[-1].clamp_min(0).sqrt()) / _PROBES**0.5

    def state(self) -> dict[str, Any]:
        """Return bases, products and probes, for a checkpoint."""
        return {
            "P": self.P,
            "Z": self.Z,
            "wide": self._wide,
            "tall": self._tall,
            "start": self._start,
            "last": self.last,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Sketch:
        """Return the sketch that `state` came from; tensors are copied."""
        sketch = cls.__new__(cls)
        sketch.P, sketch.Z = state["P"].clone(), state["Z"].clone()
        sketch._wide, sketch._tall, sketch._start = (state[name].clone() for name in ("wide", "tall", "start"))
        sketch.last = float(state["last"])
        return sketch


def _gram(rows: Tensor) -> Tensor:
    return (rows @ rows.mT).double()


def _factor(rows: Tensor) -> Tensor | None:
    """Return L with rows·rowsᵀ = L Lᵀ, in float64; None where the rows are dependent or not finite."""
    gram = _gram(rows)
    scale = gram.diagonal().sqrt()  # equilibrated, small rows keep their relative accuracy
    L, failed = torch.linalg.cholesky_ex(gram / torch.outer(scale, scale))
    if bool(failed) or not float(L.diagonal().amin()) > _DEPENDENT:
        return None
    return L * scale.unsqueeze(-1)


def _solve(L: Tensor, columns: Tensor) -> Tensor:
    """Return (L⁻ᵀ·columns)ᵀ."""
    return torch.linalg.solve_triangular(L.mT, columns, upper=True).mT
