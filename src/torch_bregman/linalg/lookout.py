"""Looks for singular values above the threshold that a tracked subspace misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.outside import largest_outside, nothing_above
from torch_bregman.linalg.sweep import Sweep

_STEPS = 6
_DEEP_STEPS = 20
"""Lanczos steps of a probe, and of one that knows there is something to find."""
_LONGEST = 4
Energies = tuple[np.ndarray, np.ndarray]
_RITZ = ("ritz_left", "ritz_right")


@dataclass(frozen=True, eq=False)
class Found:
    """What a look found outside the subspace.

    Args:
        alarm: whether something above t is missing.
        row: a unit vector that belongs into the subspace of the left side, (…, 1, m), or None.
        better: for which matrices of a batch it does, (…, 1, 1).
    """

    alarm: bool = False
    row: Tensor | None = None
    better: Tensor | None = None


NOTHING = Found()


class Lookout:
    """Decides at every call how closely to look for what a subspace misses, and looks.

    - The energy outside, ρ² = ‖V‖² − Σ σ_i², costs one reading of V, and where ρ ≤ t nothing can be missing.
    - Else a probe, some Lanczos steps from a random vector and the last probe's, looks every `probe_every` calls, half
      as often after each that found nothing new, down to a quarter, and as soon as ρ² has risen by half of what the
      smallest value tracked lacks to t, t² − σ_k².
    - An audit, a proof by Cholesky factorisation, comes every `audit_every` calls without another proof, after an
      alarm, and once after loading.

    Args:
        audit_every: calls without a proof between two audits.
        probe_every: calls without a proof between two probes.
        generator: source of the random vectors.
    """

    def __init__(self, audit_every: int, probe_every: int, generator: torch.Generator) -> None:
        self._audit_every, self._probe_every, self._generator = audit_every, probe_every, generator
        self.counts = {"probes": 0, "audits": 0, "alarms": 0}
        self.forget()

    def forget(self) -> None:
        """Start anew: after an exact answer there is nothing to remember."""
        self._unproved = self._unprobed = 0
        self._lowest: np.ndarray | None = None  # energies outside, the lowest since the last probe
        self._ritz: tuple[Tensor, Tensor] | None = None  # the last probe's vectors, on the left and right of V
        self._pause, self._loaded = 1, False

    def look(self, X: Tensor, turned: bool, t: float, seen: Sweep, energies: Energies, slack: float) -> Found:
        """Look for singular values above t + slack outside what was seen.

        Args:
            X: (…, m, n), V or its transpose.
            turned: whether X is the transpose.
            t: the threshold.
            seen: a pass over X.
            energies: ‖X‖_F² and ρ², (b,) each.
            slack: how far above t a value may stay unnoticed.
        """
        bound, (energy, rests) = t + slack, energies
        if self._loaded:  # all else stays as it was, so that training goes on bit by bit
            self._loaded = False
            if not _proved(X, t, seen, bound):
                return self._alarm(X, turned, seen)
        room = t * t - X.numel() * torch.finfo(X.dtype).tiny  # what squares too small for a float may hide
        if (rests + 1e-6 * energy <= room).all():
            return self._quiet(rests)
        self._unproved, self._unprobed = self._unproved + 1, self._unprobed + 1
        if self._unproved >= self._audit_every:
            self.counts["audits"] += 1
            return self._quiet(rests) if _proved(X, t, seen, bound) else self._alarm(X, turned, seen)
        due = self._unprobed >= self._probe_every * self._pause
        if due or self._risen(rests, t, seen):
            self._unprobed, self._lowest = 0, rests
            found = self._probe(X, turned, seen, bound)
            self._pause = min(2 * self._pause, _LONGEST) if due and found is NOTHING else 1
            return found
        return NOTHING

    def _quiet(self, rests: np.ndarray) -> Found:
        self._unproved, self._unprobed, self._lowest = 0, 0, rests
        return NOTHING

    def _risen(self, rests: np.ndarray, t: float, seen: Sweep) -> bool:
        """Return whether what is outside may have grown past t since the last probe."""
        if self._lowest is None or self._lowest.shape != rests.shape:
            return True
        self._lowest = np.minimum(self._lowest, rests)
        room = np.maximum(t * t - np.square(seen.S[:, -1]), 0)
        return bool((rests > self._lowest + room / 2).any())

    def _probe(self, X: Tensor, turned: bool, seen: Sweep, bound: float) -> Found:
        value, row = self._largest_outside(X, turned, seen, _STEPS)
        if bool((value > bound).any()):
            return self._raised(row)
        better = (value > seen.values[..., -1])[..., None, None]
        return Found(row=row, better=better) if bool(better.any()) else NOTHING

    def _alarm(self, X: Tensor, turned: bool, seen: Sweep) -> Found:
        return self._raised(self._largest_outside(X, turned, seen, _DEEP_STEPS)[1])

    def _raised(self, row: Tensor) -> Found:
        self.counts["alarms"] += 1
        self._unproved = self._audit_every  # the next look is an audit
        return Found(alarm=True, row=row)

    def _largest_outside(self, X: Tensor, turned: bool, seen: Sweep, steps: int) -> tuple[Tensor, Tensor]:
        self.counts["probes"] += 1
        value, left, right = largest_outside(X, seen.left, float(seen.S.max()), self._start(X, turned), steps)
        self._ritz = (right, left) if turned else (left, right)
        return value, left

    def _start(self, X: Tensor, turned: bool) -> Tensor:
        """Return the last probe's vector with as much of a random one."""
        *batch, _, n = X.shape
        random = torch.randn(*batch, 1, n, generator=self._generator).to(X) / n**0.5
        return random if self._ritz is None else self._ritz[not turned].to(X) + random

    def state(self) -> dict[str, Any]:
        """Return counters, energies and the last probe's vectors."""
        memory: dict[str, Any] = {"unproved": self._unproved, "unprobed": self._unprobed, "pause": self._pause}
        if self._lowest is not None:
            memory["lowest"] = torch.from_numpy(self._lowest)
        return memory if self._ritz is None else {**memory, **dict(zip(_RITZ, self._ritz, strict=True))}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned; the next look proves that the subspace is the right one."""
        self.forget()
        self._loaded = True
        self._unproved, self._unprobed = int(state.get("unproved", 0)), int(state.get("unprobed", 0))
        self._pause = int(state.get("pause", 1))
        self._lowest = state["lowest"].cpu().numpy().copy() if "lowest" in state else None
        known = all(name in state for name in _RITZ)
        self._ritz = (state[_RITZ[0]].clone(), state[_RITZ[1]].clone()) if known else None


def _proved(X: Tensor, t: float, seen: Sweep, bound: float) -> bool:
    """Return whether nothing but the active triplets reaches the bound."""
    rank = seen.rank(t)
    return nothing_above(X, seen.left[..., :rank, :], seen.right[..., :rank, :], bound)
