"""Singular value thresholding that follows a matrix which moves a little at a time."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.engine import Engine, Thresholded, check_count, nothing_left, prepared
from torch_bregman.linalg.gram import gram_eigh, thresholded
from torch_bregman.linalg.lookout import NOTHING, Found, Lookout
from torch_bregman.linalg.outside import energies
from torch_bregman.linalg.sweep import Sweep, sweep

DENSE = 0.5
"""Share of the shorter side up to which a block is cheaper to follow than the whole matrix to decompose."""
_STEP = 8
_PATIENCE = 20
_ALARMS = 2
_WARY = 0.5
"""Share of the error allowed to a subspace that was too far off at first: its estimates can be 1.5 times too small."""
_THIN = 0.7
"""Share of the work of a product with V up to which the updates that save it are worth while."""


class TrackedEngine(Engine):
    """Warm-started block iteration, adaptive in rank and audited: the engine for training.

    It keeps an orthonormal Q whose rows span the leading singular vectors of one side of the last matrix, and some
    more. One pass takes Y = QVᵀ, orthonormalises it by an equilibrated Cholesky factorisation to P, and solves the
    small problem of PV for singular values and vectors; the next one starts from the left vectors, on the other side of
    V, so that its first product is there already. Passes are repeated until the estimated error is below `tolerance`;
    the block grows where too few of its values lie below t (a quarter of the rank, two to eight), shrinks after twenty
    calls of slack. What Q does not see is watched by its energy, by Lanczos probes and by audits (`Lookout`). Where any
    of this fails, the Gram engine gives the exact answer.

    Where every change of V is told to `add`, the first product of the next call is kept up to date by thin updates, and
    a call takes one product with V, not two. It is computed anew by V itself in each call, so that nothing adds up; if
    it turns out not to be that of V, it is dropped.

    Args:
        tolerance: of the error relative to ‖(S − t)₊‖, or to 0.02·t where that is larger; default 1e-3.
        passes: at most, before the exact engine takes over, default 7; a product with V each, the first may take two.
        audit_every: calls without a proof that nothing is missed between two audits, default 200.
        probe_every: calls without such a proof between two probes, default 10; up to four times as
            many when all is quiet.
        seed: of the engine's own generator.
        told: whether every change of V is told to `add`, default False.

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
        passes: int = 7,
        audit_every: int = 200,
        probe_every: int = 10,
        seed: int = 0,
        told: bool = False,
    ) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance of the tracked engine must be above 0, got {tolerance}: 1e-3 is the default")
        for what, number in (("passes", passes), ("audit_every", audit_every), ("probe_every", probe_every)):
            check_count(f"{what} of the tracked", number, 1)
        self.tolerance, self.passes, self.told = tolerance, passes, told
        self._generator = torch.Generator().manual_seed(seed)
        self._lookout = Lookout(audit_every, probe_every, self._generator)
        self._slack = 0
        self.forget()
        self.counts = self._lookout.counts
        self.counts.update(calls=0, passes=0, exact=0)

    def __str__(self) -> str:
        return f"tracked({self.tolerance:g})"

    def __call__(self, matrix: Tensor, threshold: float) -> Thresholded:
        """Return the thresholded matrix, to within the tolerance."""
        V = prepared(matrix, threshold)
        if V.numel() == 0:
            return nothing_left(V, threshold, "tracked: empty")
        result = self._threshold(V, threshold)
        self.counts["calls"] += 1
        return result

    def add(self, A: Tensor, B: Tensor, alpha: float) -> None:
        """Take note of V ← V + α·AᵀB, with A of b × m and B of b × n."""
        if self._Q is None or self._images is None:
            return
        near, far = (A, B) if self._turned else (B, A)
        if len(A) * (A.shape[-1] + B.shape[-1]) < _THIN * A.shape[-1] * B.shape[-1]:
            # not in place: what was returned last is a part of it
            self._images = torch.addmm(self._images, self._Q @ near.mT, far, alpha=alpha)
        else:
            self._images = None

    def _threshold(self, V: Tensor, t: float) -> Thresholded:
        why = self._lost(V, t)
        return self._exact(V, t, why) if why else self._track(V, t)

    def _lost(self, V: Tensor, t: float) -> str:
        """Return why there is nothing to follow, if so."""
        Q, short = self._Q, min(V.shape[-2:])
        if t == 0:
            return "a threshold of 0"
        if Q is None:
            return "no subspace yet"
        side, other = V.shape[-2:] if self._turned else V.shape[:-3:-1]
        if (*Q.shape[:-2], Q.shape[-1], self._other) != (*V.shape[:-2], side, other):
            return "a matrix of another shape"
        return "" if Q.shape[-2] <= DENSE * short else f"a block of {Q.shape[-2]} for a shorter side of {short}"

    def _track(self, V: Tensor, t: float) -> Thresholded:
        assert self._Q is not None
        turned, Q, images = self._turned, self._Q.to(V), self._images
        energy, done, least, alarms, largest = energies(V), 0, 1, 0, DENSE * min(V.shape[-2:])
        while Q.shape[-2] <= largest and alarms <= _ALARMS:
            X = V.mT if turned else V
            seen = sweep(X, Q, images)
            if images is not None and done == 0 and (seen is None or not seen.is_of_the_images()):
                images = None  # V has changed in a way that was not told
                continue
            if seen is None:
                return self._sees_nothing(V, t)
            done, turned = done + 1, not turned
            Q, images = seen.left, seen.right
            k, rank = Q.shape[-2], seen.rank(t)
            if _is_tight(k, rank, min(V.shape[-2:])):
                Q, images = self._grown(X, seen, _block(rank) if rank < k else 2 * k)
                least = done + 3
                continue
            rests, allowed = seen.outside(energy), self._allowed(seen, t)
            error = seen.error(t, rests)
            if done < least or error > (allowed if done == 1 else _WARY * allowed):
                if done >= least + self.passes - 1:
                    return self._exact(V, t, f"no convergence in {done} passes")
                continue
            rounding = 4 * torch.finfo(V.dtype).eps * float(seen.S.max())
            found = self._lookout.look(X, not turned, t, seen, (energy, rests), allowed / 4 + rounding)
            if found.alarm:
                Q, images = self._grown(X, seen, k + _STEP, found)
                least, alarms = done + 3, alarms + 1
                continue
            self.counts["passes"] += done
            self._keep(X, seen, found, turned, rank)
            return _result(seen, t, rank, error, done, turned)
        return self._exact(V, t, f"{alarms} alarms and a block of {Q.shape[-2]}")

    def _allowed(self, seen: Sweep, t: float) -> float:
        return self.tolerance * max(math.sqrt(np.square(np.maximum(seen.S - t, 0)).sum()), 0.02 * t)

    def _exact(self, V: Tensor, t: float, why: str) -> Thresholded:
        """Threshold by Gram eigendecomposition, and start the subspace from it."""
        values, U = gram_eigh(V, torch.float64)  # raises before anything of the memory changes
        result = thresholded(V, values, U, t, f"Gram eigendecomposition in float64: {why}")
        k = _block(result.values.shape[-1])
        self.forget()
        if k <= DENSE * min(V.shape[-2:]):
            self._Q, self._turned = U[..., :k].mT.to(V.dtype).contiguous(), V.shape[-2] < V.shape[-1]
            self._images = self._Q @ (V if self._turned else V.mT) if self.told else None
            self._other = max(V.shape[-2:])
        self._slack = 0
        self._lookout.forget()
        self.counts["exact"] += 1
        return result

    def _grown(self, X: Tensor, seen: Sweep, k: int, found: Found = NOTHING) -> tuple[Tensor, Tensor]:
        """Return Q and its images for the next pass, with what was found, and filled up by random rows to k."""
        Q, m = seen.left, seen.left.shape[-1]
        if found.row is not None:
            Q = torch.cat([Q, _orthogonal(found.row, Q)], dim=-2)
        if (count := min(k, m) - Q.shape[-2]) > 0:
            Q = torch.cat([Q, self._random(Q, count)], dim=-2)
        return Q, torch.cat([seen.right, Q[..., seen.left.shape[-2] :, :] @ X], dim=-2)

    def _random(self, Q: Tensor, count: int) -> Tensor:
        """Return random orthonormal rows, orthogonal to the rows of Q."""
        *batch, _, n = Q.shape
        return _orthogonal(torch.randn(*batch, count, n, generator=self._generator).to(Q), Q)

    def _sees_nothing(self, V: Tensor, t: float) -> Thresholded:
        if not bool(V.any()):
            return nothing_left(V, t, "tracked: V = 0")
        return self._exact(V, t, "the subspace is orthogonal to V")

    def _keep(self, X: Tensor, seen: Sweep, found: Found, turned: bool, rank: int) -> None:
        Q, images = seen.left, seen.right
        if found.row is not None and found.better is not None:  # in place of the last row
            rest = Q[..., :-1, :]
            row = torch.where(found.better, _orthogonal(found.row, rest), Q[..., -1:, :])
            Q, images = torch.cat([rest, row], dim=-2), torch.cat([images[..., :-1, :], row @ X], dim=-2)
        target = _block(rank)
        self._slack = self._slack + 1 if Q.shape[-2] >= target + _STEP else 0
        if self._slack > _PATIENCE:
            Q, images, self._slack = Q[..., :target, :].contiguous(), images[..., :target, :].contiguous(), 0
        self._Q, self._images, self._turned = Q, images if self.told else None, turned
        self._other = X.shape[-1]

    def followed(self) -> tuple[Tensor, Tensor, bool] | None:
        """Return Q, its images and whether Q lies on the left side of V; None where not all of that is known."""
        return None if self._Q is None or self._images is None else (self._Q, self._images, self._turned)

    def take_up(self, Q: Tensor, images: Tensor) -> None:
        """Go on from another Q, on the left side of V, and its images QV."""
        self._Q, self._images, self._turned, self._other = Q, images, True, images.shape[-1]

    def forget(self) -> None:
        """Let go of the subspace; the next answer is exact, and starts another."""
        self._Q: Tensor | None = None
        self._images: Tensor | None = None
        self._turned, self._other = False, 0  # whether Q lies on the left side of V; length of the other side

    def state(self) -> dict[str, Any]:
        """Return subspace, counters and the state of the generator."""
        tensors = {"Q": self._Q, "images": self._images, "generator": self._generator.get_state()}
        memory = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return {**memory, "turned": self._turned, "other": self._other, "slack": self._slack, **self._lookout.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._Q, self._images = (state[name].clone() if name in state else None for name in ("Q", "images"))
        self._turned, self._other = bool(state.get("turned", False)), int(state.get("other", 0))
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


def _result(seen: Sweep, t: float, rank: int, error: float, passes: int, turned: bool) -> Thresholded:
    reason = f"tracked in {passes} pass{'es' if passes > 1 else ''} with a block of {seen.S.shape[-1]}"
    left, right = seen.shrunk(t, rank)
    left, right = (left, right) if turned else (right, left)
    return Thresholded(left, right, seen.values[..., :rank], t, error, reason)
