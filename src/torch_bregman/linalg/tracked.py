"""Singular value thresholding that follows a matrix which moves a little at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, at_least_float, not_finite, nothing_left
from torch_bregman.linalg.gram import GramEngine, gram_eigh

_DENSE = 0.35
"""Share of the shorter side up to which a subspace is cheaper to follow than the whole matrix to decompose."""
_STEP = 8
_PATIENCE = 20


@dataclass(frozen=True, eq=False)
class _Pass:
    """One two-sided pass over V, from an orthonormal Q (k × n, as rows): U the basis of V Qᵀ, rotated.

    Args:
        values: S, (…, k), float64, falling.
        left: orthonormal rows u_i, (…, k, m).
        right: rows σ_i v_i = u_iᵀ V, (…, k, n).
        coupling: u_iᵀ V Qᵀ, (…, k, k), float64.
    """

    values: Tensor
    left: Tensor
    right: Tensor
    coupling: Tensor

    def following(self) -> Tensor:
        """Return the v_i as rows: the next Q, but for the rows of vanishing σ_i."""
        return self.right / self.values.clamp_min(1e-300).to(self.right.dtype).unsqueeze(-1)

    def error(self, Q: Tensor, threshold: float, rank: int) -> float:
        """Estimate ‖W − SVT_t(V)‖_F from the residuals of the active triplets.

        With R_i = σ_i v_i − (u_iᵀ V Qᵀ) Q this is ‖(1 − t/σ_i) R_i min(1, σ_k/σ_i)‖_F.
        """
        active, r = self.values[..., :rank], slice(0, rank)
        residual = self.right[..., r, :] - self.coupling[..., r, :].to(Q.dtype) @ Q
        norms = torch.linalg.vector_norm(residual, dim=-1).double()
        weight = (1 - threshold / active).clamp_min(0) * (self.values[..., -1:].amax() / active).clamp_max(1)
        return float((norms * weight).norm())


class TrackedEngine(Engine):
    """Warm-started block iteration, adaptive in rank and audited: the engine for training.

    It keeps an orthonormal Q whose rows span the leading right singular vectors of the last matrix, and some more. One
    pass takes Y = QVᵀ, orthonormalises it by an equilibrated Cholesky factorisation, and solves the small problem for
    singular values and vectors. Passes are repeated until the estimated error is below `tolerance`; the block grows
    where fewer than two of its values lie below t, shrinks after twenty calls of slack. An audit proves from time to
    time, by a Cholesky factorisation of τ²I − Gram of what Q does not see, that nothing above t is missed; random
    probes look in between. Where any of this fails, the Gram engine gives the exact answer.

    Args:
        tolerance: of the error relative to ‖(S − t)₊‖, default 1e-3.
        passes: at most, before the exact engine takes over, default 4.
        audit_every: calls between two audits, default 200.
        probe_every: calls between two probes, default 10.
        seed: of the engine's own generator.

    References:
        Cai, Osher 2013 and Oh et al. 2015, for fast singular value thresholding; Halko, Martinsson, Tropp 2011.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> U = torch.linalg.qr(torch.randn(200, 4, generator=generator)).Q
        >>> engine = TrackedEngine()
        >>> for step in range(3):
        ...     result = engine(5 * U @ U.mT + 1e-3 * step * torch.eye(200), 1.0)
        >>> int(result.rank), result.reason.startswith("tracked")
        (4, True)
    """

    name: ClassVar[str] = "tracked"

    def __init__(
        self,
        tolerance: float = 1e-3,
        passes: int = 4,
        audit_every: int = 200,
        probe_every: int = 10,
        seed: int = 0,
    ) -> None:
        self.tolerance, self.passes = tolerance, passes
        self.audit_every, self.probe_every = audit_every, probe_every
        self._generator = torch.Generator().manual_seed(seed)
        self._Q: Tensor | None = None
        self._calls = 0  # since the last audit
        self._slack = 0
        self.counts = {"calls": 0, "passes": 0, "exact": 0, "audits": 0, "alarms": 0}

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix, to within the tolerance."""
        V = at_least_float(matrix)
        self.counts["calls"] += 1
        if V.numel() == 0:
            return nothing_left(V, threshold, "empty")
        Q = self._Q
        if Q is None or Q.shape[:-2] != V.shape[:-2] or Q.shape[-1] != V.shape[-1] or Q.shape[-2] > min(V.shape[-2:]):
            return self._exact(V, threshold, "no subspace to follow")
        return self._track(V, threshold, Q.to(V))

    def _track(self, V: Tensor, t: float, Q: Tensor) -> Thresholded:
        short, done, least = min(V.shape[-2:]), 0, 1
        while True:
            if Q.shape[-2] > _DENSE * short:
                return self._exact(V, t, f"a block of {Q.shape[-2]} for a shorter side of {short}")
            current = _sweep(V, Q)
            done += 1
            if current is None:
                return self._sees_nothing(V, t)
            values = current.values
            k, rank = values.shape[-1], int((values > t).sum(-1).max())
            Q_next = self._reseed(current, V)
            if k - rank < 2 and k < short:
                Q, least = self._grown(Q_next, _block(rank) if rank < k else 2 * k), done + 2
                continue
            error = current.error(Q, t, rank) if rank else 0.0
            allowed = self.tolerance * max(float((values - t).clamp_min(0).norm()), 0.02 * t)
            if done < least or error > allowed:
                if done >= least + self.passes:
                    return self._exact(V, t, f"no convergence in {done} passes")
                Q = Q_next
                continue
            if not self._audit(V, t, current):
                if done > least + self.passes:
                    return self._exact(V, t, "the audit failed twice")
                Q, least = self._grown(Q_next, k + _STEP), done + 3
                continue
            self.counts["passes"] += done
            self._keep(Q_next, rank)
            return _result(current, rank, t, error, done)

    def _exact(self, V: Tensor, t: float, why: str) -> Thresholded:
        """Threshold by Gram eigendecomposition, and start the subspace from it."""
        values, U = gram_eigh(V, torch.float64)  # raises before anything of the memory changes
        rank = int((values > t).sum(-1).max())
        k = min(_block(rank), min(V.shape[-2:]))
        basis = U[..., :k].mT.to(V.dtype)
        if V.shape[-2] <= V.shape[-1]:
            rows = basis @ V
            unit = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)
            self._Q = self._orthonormal(unit, values[..., :k])
        else:
            self._Q = basis.contiguous()
        self._calls = self._slack = 0
        self.counts["exact"] += 1
        result = GramEngine()(V, t)
        return Thresholded(result.left, result.right, result.values, t, 0.0, f"{result.reason}: {why}")

    def _orthonormal(self, rows: Tensor, values: Tensor) -> Tensor:
        # rows of tiny singular values are noise, and not orthogonal to the others
        return self._replace(rows, values <= 1e-5 * values[..., :1])

    def _reseed(self, current: _Pass, V: Tensor) -> Tensor:
        """Return the next Q, with fresh random rows where V is rank-deficient and σ_i vanishes."""
        return self._replace(current.following(), current.values <= 1e-5 * current.values[..., :1])

    def _replace(self, rows: Tensor, tiny: Tensor) -> Tensor:
        if not bool(tiny.any()):
            return rows
        kept = torch.where(tiny.unsqueeze(-1), torch.zeros((), dtype=rows.dtype, device=rows.device), rows)
        return torch.where(tiny.unsqueeze(-1), self._random(kept, rows.shape[-2]), kept)

    def _grown(self, Q: Tensor, k: int) -> Tensor:
        k = min(k, Q.shape[-1])
        return torch.cat([Q, self._random(Q, k - Q.shape[-2])], dim=-2) if k > Q.shape[-2] else Q

    def _random(self, Q: Tensor, count: int) -> Tensor:
        """Return random orthonormal rows, orthogonal to the rows of Q."""
        *batch, _, n = Q.shape
        rows = torch.randn(*batch, count, n, generator=self._generator).to(Q)
        for _ in range(2):  # once more, for what rounding left
            rows = rows - (rows @ Q.mT) @ Q
        return torch.linalg.qr(rows.mT).Q.mT

    def _sees_nothing(self, V: Tensor, t: float) -> Thresholded:
        if not bool(V.any()):
            return nothing_left(V, t, "tracked: V = 0")
        return self._exact(V, t, "the subspace is orthogonal to V")

    def _audit(self, V: Tensor, t: float, current: _Pass) -> bool:
        """Return whether nothing above t lies outside the subspace, as far as it is looked at now."""
        self._calls += 1
        if self._calls >= self.audit_every:
            self.counts["audits"] += 1
            passed = _nothing_above(V, current, 1.0005 * t)
            self._calls = 0 if passed else self.audit_every
        elif self._calls % self.probe_every == 0:
            passed = self._probe(V, current) <= t
            self._calls = self._calls if passed else self.audit_every - 1
        else:
            return True
        self.counts["alarms"] += not passed
        return passed

    def _probe(self, V: Tensor, current: _Pass) -> float:
        """Return a lower bound of ‖(I − UUᵀ)V‖₂ from a random vector and two power steps."""
        *batch, n = *V.shape[:-2], V.shape[-1]
        x = torch.randn(*batch, n, 1, generator=self._generator).to(V)
        stretch = 0.0
        for _ in range(3):
            y = V @ x
            y = y - current.left.mT @ (current.left @ y)
            stretch = float((torch.linalg.vector_norm(y, dim=-2) / torch.linalg.vector_norm(x, dim=-2)).amax())
            x = V.mT @ y
            if not stretch or not bool(x.any()):
                return stretch
            x = x / torch.linalg.vector_norm(x, dim=-2, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return stretch

    def _keep(self, Q: Tensor, rank: int) -> None:
        target = _block(rank)
        self._slack = self._slack + 1 if Q.shape[-2] >= target + _STEP else 0
        if self._slack > _PATIENCE:
            Q, self._slack = Q[..., :target, :].contiguous(), 0
        self._Q = Q

    def state(self) -> dict[str, Any]:
        """Return subspace, counters and the state of the generator."""
        memory = {} if self._Q is None else {"Q": self._Q}
        return {**memory, "generator": self._generator.get_state(), "calls": self._calls, "slack": self._slack}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        Q = state.get("Q")
        self._Q = None if Q is None else Q.clone()
        if "generator" in state:
            self._generator.set_state(state["generator"].cpu())
        self._calls, self._slack = int(state.get("calls", 0)), int(state.get("slack", 0))


def _block(rank: int) -> int:
    """Return the size of the block for a rank: some more rows, rounded up."""
    return -(-(rank + max(4, math.ceil(rank / 4))) // _STEP) * _STEP


def _sweep(V: Tensor, Q: Tensor) -> _Pass | None:
    """Take one pass; None where V Qᵀ = 0.

    Raises:
        ValueError: for entries that are not finite.
    """
    Y = Q @ V.mT
    gram = (Y @ Y.mT).double()
    squares = gram.diagonal(dim1=-2, dim2=-1)
    peak = float(squares.amax())
    if not math.isfinite(peak):
        raise not_finite()
    if peak == 0:
        return None
    scale = squares.clamp_min(peak * 1e-30).rsqrt()  # equilibrated, small σ keep their relative accuracy
    L, failed = torch.linalg.cholesky_ex(gram * scale.unsqueeze(-1) * scale.unsqueeze(-2))
    if bool(failed.any()) or float(L.diagonal(dim1=-2, dim2=-1).amin()) < 5e-3:
        return _careful_sweep(V, Y)
    Y = Y * scale.to(Y.dtype).unsqueeze(-1)
    Z = Y @ V
    H = torch.linalg.solve_triangular(L, (Z @ Z.mT).double(), upper=False)
    H = torch.linalg.solve_triangular(L, H.mT, upper=False)
    values, E = _falling(H)
    T = torch.linalg.solve_triangular(L.mT, E, upper=True).mT  # Eᵀ L⁻¹
    rotate = T.to(Y.dtype)
    return _Pass(values, rotate @ Y, rotate @ Z, T @ (gram * scale.unsqueeze(-1)))


def _careful_sweep(V: Tensor, Y: Tensor) -> _Pass:
    """The same where the rows of Y are nearly dependent: by Householder QR."""
    P = torch.linalg.qr(Y.mT).Q.mT.contiguous()
    Z = P @ V
    values, E = _falling((Z @ Z.mT).double())
    T = E.mT
    rotate = T.to(Y.dtype)
    return _Pass(values, rotate @ P, rotate @ Z, T @ (P @ Y.mT).double())


def _falling(H: Tensor) -> tuple[Tensor, Tensor]:
    squares, E = torch.linalg.eigh(H)
    return squares.clamp_min(0).sqrt().flip(-1), E.flip(-1)


def _nothing_above(V: Tensor, current: _Pass, tau: float) -> bool:
    """Prove ‖(I − UUᵀ)V‖₂ < τ: the Cholesky factorisation of τ²I − its Gram matrix exists."""
    m, n = V.shape[-2:]
    if m >= n:
        rest = current.right.mT @ current.right - V.mT @ V
    else:
        U = current.left
        gram = V @ V.mT
        side = (gram @ U.mT) @ U
        rest = side + side.mT - U.mT @ (U @ side) - gram
    rest.diagonal(dim1=-2, dim2=-1).add_(tau * tau)
    return not bool(torch.linalg.cholesky_ex(rest)[1].any())


def _result(current: _Pass, rank: int, t: float, error: float, passes: int) -> Thresholded:
    reason = f"tracked in {passes} pass{'es' if passes > 1 else ''} with a block of {current.values.shape[-1]}"
    if rank == 0:
        return Thresholded(current.left[..., :0, :], current.right[..., :0, :], current.values[..., :0], t, 0.0, reason)
    values = current.values[..., :rank]
    shrink = (1 - t / values).clamp_min(0).to(current.left.dtype).unsqueeze(-1)
    return Thresholded(current.left[..., :rank, :] * shrink, current.right[..., :rank, :], values, t, error, reason)
