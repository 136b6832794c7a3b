"""Singular value thresholding that follows a matrix which moves a little at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, check_count, nothing_left, prepared
from torch_bregman.linalg.gram import gram_eigh, thresholded
from torch_bregman.linalg.lookout import Found, Lookout
from torch_bregman.linalg.outside import energies
from torch_bregman.linalg.sweep import Sweep, sweep

DENSE = 0.5
"""Share of the shorter side up to which a block is cheaper to follow than the whole matrix to decompose."""
_STEP = 8
_PATIENCE = 20
_ALARMS = 2


class TrackedEngine(Engine):
    """Warm-started block iteration, adaptive in rank and audited: the engine for training.

    It keeps an orthonormal Q whose rows span the leading right singular vectors of the last matrix, and some more. One
    pass takes Y = QVᵀ, orthonormalises it by an equilibrated Cholesky factorisation, and solves the small problem for
    singular values and vectors. Passes are repeated until the estimated error is below `tolerance`; the block grows
    where too few of its values lie below t (a quarter of the rank, two to eight), shrinks after twenty calls of slack.
    What Q does not see is watched by its energy, by Lanczos probes and by audits (`Lookout`). Where any of this fails,
    the Gram engine gives the exact answer.

    Args:
        tolerance: of the error relative to ‖(S − t)₊‖, or to 0.02·t where that is larger; default 1e-3.
        passes: at most, before the exact engine takes over, default 4.
        audit_every: calls without a proof that nothing is missed between two audits, default 200.
        probe_every: calls without such a proof between two probes, default 10.
        seed: of the engine's own generator.

    Raises:
        ValueError: for a tolerance that is not above 0, or numbers of passes or calls below 1.

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
        if not tolerance > 0:
            raise ValueError(f"tolerance of the tracked engine must be above 0, got {tolerance}: 1e-3 is the default")
        for what, number in (("passes", passes), ("audit_every", audit_every), ("probe_every", probe_every)):
            check_count(f"{what} of the tracked", number, 1)
        self.tolerance, self.passes = tolerance, passes
        self._generator = torch.Generator().manual_seed(seed)
        self._lookout = Lookout(audit_every, probe_every, self._generator)
        self._Q: Tensor | None = None
        self._slack = 0
        self.counts = self._lookout.counts
        self.counts.update(calls=0, passes=0, exact=0)

    def __str__(self) -> str:
        return f"tracked({self.tolerance:g})"

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix, to within the tolerance."""
        V = prepared(matrix, threshold)
        if V.numel() == 0:
            return nothing_left(V, threshold, "tracked: empty")
        flat = V.shape[-2] < V.shape[-1]  # Q lies on the shorter side: less to store, less to search
        result = self._threshold(V.mT if flat else V, threshold)
        self.counts["calls"] += 1
        return replace(result, left=result.right, right=result.left) if flat else result

    def _threshold(self, V: Tensor, t: float) -> Thresholded:
        why = self._lost(V, t)
        return self._exact(V, t, why) if why else self._track(V, t)

    def _lost(self, V: Tensor, t: float) -> str:
        """Return why there is nothing to follow, if so."""
        Q, short = self._Q, V.shape[-1]
        if t == 0:
            return "a threshold of 0"
        if Q is None:
            return "no subspace yet"
        if (*Q.shape[:-2], Q.shape[-1]) != (*V.shape[:-2], short):
            return "a matrix of another shape"
        return "" if Q.shape[-2] <= DENSE * short else f"a block of {Q.shape[-2]} for a shorter side of {short}"

    def _track(self, V: Tensor, t: float) -> Thresholded:
        assert self._Q is not None
        Q, energy, done, least, alarms = self._Q.to(V), energies(V), 0, 1, 0
        while Q.shape[-2] <= DENSE * V.shape[-1] and alarms <= _ALARMS:
            seen = sweep(V, Q)
            if seen is None:
                return self._sees_nothing(V, t)
            done += 1
            following = self._reseeded(seen)
            k, rank = Q.shape[-2], seen.rank(t)
            if _is_tight(k, rank, V.shape[-1]):
                Q, least = self._grown(following, _block(rank) if rank < k else 2 * k), done + 2
                continue
            error, allowed = seen.error(Q, t, seen.outside(energy)), self._allowed(seen, t)
            if done < least or error > allowed:
                if done >= least + self.passes - 1:
                    return self._exact(V, t, f"no convergence in {done} passes")
                Q = following
                continue
            rounding = 4 * torch.finfo(V.dtype).eps * float(seen.S.max())
            found = self._lookout.look(V, t, seen, energy, allowed / 4 + rounding)
            if found.alarm:
                Q, least, alarms = self._grown(_joined(following, found), k + _STEP), done + 2, alarms + 1
                continue
            self.counts["passes"] += done
            self._keep(_joined(following, found), rank)
            return _result(seen, t, rank, error, done)
        return self._exact(V, t, f"{alarms} alarms and a block of {Q.shape[-2]}")

    def _allowed(self, seen: Sweep, t: float) -> float:
        return self.tolerance * max(math.sqrt(np.square(np.maximum(seen.S - t, 0)).sum()), 0.02 * t)

    def _exact(self, V: Tensor, t: float, why: str) -> Thresholded:
        """Threshold by Gram eigendecomposition, and start the subspace from it."""
        values, U = gram_eigh(V, torch.float64)  # raises before anything of the memory changes
        result = thresholded(V, values, U, t, f"Gram eigendecomposition in float64: {why}")
        k = _block(result.values.shape[-1])
        self._Q = U[..., :k].mT.to(V.dtype).contiguous() if k <= DENSE * V.shape[-1] else None
        self._slack = 0
        self._lookout.forget()
        self.counts["exact"] += 1
        return result

    def _reseeded(self, seen: Sweep) -> Tensor:
        """Return the next Q, random where σ_i vanishes: a rank-deficient V gives noise there, no orthogonal rows."""
        rows, tiny = seen.following(), 1e-5 * seen.S[:, :1] >= seen.S
        count = int(tiny.sum(-1).max())
        if not count:
            return rows
        gone = torch.from_numpy(tiny).to(rows.device).reshape(rows.shape[:-1]).unsqueeze(-1)
        kept = rows.masked_fill(gone, 0.0)
        last = torch.where(gone[..., -count:, :], self._random(kept, count), kept[..., -count:, :])
        return torch.cat([kept[..., :-count, :], last], dim=-2)

    def _grown(self, Q: Tensor, k: int) -> Tensor:
        count = min(k, Q.shape[-1]) - Q.shape[-2]
        return torch.cat([Q, self._random(Q, count)], dim=-2) if count > 0 else Q

    def _random(self, Q: Tensor, count: int) -> Tensor:
        """Return random orthonormal rows, orthogonal to the rows of Q."""
        *batch, _, n = Q.shape
        return _orthogonal(torch.randn(*batch, count, n, generator=self._generator).to(Q), Q)

    def _sees_nothing(self, V: Tensor, t: float) -> Thresholded:
        if not bool(V.any()):
            return nothing_left(V, t, "tracked: V = 0")
        return self._exact(V, t, "the subspace is orthogonal to V")

    def _keep(self, Q: Tensor, rank: int) -> None:
        target = _block(rank)
        self._slack = self._slack + 1 if Q.shape[-2] >= target + _STEP else 0
        if self._slack > _PATIENCE:
            Q, self._slack = Q[..., :target, :].contiguous(), 0
        self._Q = Q

    def forget(self) -> None:
        """Let go of the subspace; the next answer is exact, and starts another."""
        self._Q = None

    def state(self) -> dict[str, Any]:
        """Return subspace, counters and the state of the generator."""
        memory = {} if self._Q is None else {"Q": self._Q}
        own = {**memory, "generator": self._generator.get_state(), "slack": self._slack}
        return {**own, **self._lookout.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._Q = state["Q"].clone() if "Q" in state else None
        if "generator" in state:
            self._generator.set_state(state["generator"].cpu())
        self._slack = int(state.get("slack", 0))
        self._lookout.load_state(state)


def _block(rank: int) -> int:
    """Return the size of the block for a rank: some more rows, rounded up."""
    return -(-(rank + max(4, math.ceil(rank / 3))) // _STEP) * _STEP


def _is_tight(k: int, rank: int, short: int) -> bool:
    """Return whether too few values of a block lie below t; with less room than here, one pass is seldom enough."""
    return k - rank < 2 or (k - rank < min(rank // 4, _STEP) and _block(rank) <= DENSE * short)


def _orthogonal(rows: Tensor, Q: Tensor) -> Tensor:
    """Return orthonormal rows, orthogonal to the rows of Q."""
    for _ in range(2):  # once more, for what rounding left
        rows = torch.linalg.qr((rows - (rows @ Q.mT) @ Q).mT).Q.mT
    return rows


def _joined(Q: Tensor, found: Found) -> Tensor:
    """Put what was found into Q: as one row more after an alarm, else in place of the last row."""
    if found.row is None:
        return Q
    if found.better is None:
        return torch.cat([Q, _orthogonal(found.row, Q)], dim=-2)
    rest = Q[..., :-1, :]
    last = torch.where(found.better, _orthogonal(found.row, rest), Q[..., -1:, :])
    return torch.cat([rest, last], dim=-2)


def _result(seen: Sweep, t: float, rank: int, error: float, passes: int) -> Thresholded:
    reason = f"tracked in {passes} pass{'es' if passes > 1 else ''} with a block of {seen.values.shape[-1]}"
    left, right = seen.shrunk(t, rank)
    return Thresholded(left, right, seen.values[..., :rank], t, error, reason)
