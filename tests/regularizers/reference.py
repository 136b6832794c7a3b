"""The same mathematics a second time, in numpy and by other routes: dual balls instead of proximal maps, bisection
instead of closed forms."""

from __future__ import annotations

import math

import numpy as np


def bisect(falling, low, high):
    """Return the zero of a falling function on [low, high]."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def soft(a, threshold):
    return np.sign(a) * np.maximum(np.abs(a) - threshold, 0)


def _none(reg, x, strength, groups):
    return np.zeros_like(x)


def _l1(reg, x, strength, groups):
    return np.clip(x, -strength, strength)


def _nonnegative_l1(reg, x, strength, groups):
    return np.minimum(x, strength)


def _elastic_net(reg, x, strength, groups):
    # the proximal map of the conjugate J*(p) = Σ S(p, λρ)² / (2λ(1 − ρ)), which for ρ < 1 is smooth
    corner, curvature = strength * reg.l1_ratio, strength * (1 - reg.l1_ratio)
    beyond = (curvature * np.abs(x) + corner) / (curvature + 1)
    return np.where(np.abs(x) <= corner, x, np.sign(x) * beyond)


def _group_l2(reg, x, strength, groups):
    p = x.copy()
    for group in groups:
        radius = strength * (math.sqrt(len(group)) if reg.weighted else 1.0)
        p[group] *= min(1.0, radius / max(np.linalg.norm(x[group]), 1e-300))
    return p


def _sparse_group(reg, x, strength, groups):
    p = x.copy()
    for group in groups:
        corner, radius = strength * reg.l1_ratio, strength * (1 - reg.l1_ratio) * math.sqrt(len(group))
        p[group] = _onto_rounded_box(x[group], corner, radius)
    return p


def _onto_rounded_box(x, corner, radius):
    """Return the nearest point of the box of half-width `corner` plus the ball of `radius`.

    These are the p with ‖S(p, corner)‖ ≤ radius; with a multiplier μ for this constraint the nearest point moves the
    part of each entry that sticks out of the box to 1/(1 + μ) of it.
    """

    def point(shrink):
        return np.clip(x, -corner, corner) + shrink * soft(x, corner)

    if np.linalg.norm(soft(x, corner)) <= radius:
        return x
    return point(bisect(lambda shrink: radius - np.linalg.norm(soft(point(shrink), corner)), 0.0, 1.0))


def _nuclear(reg, x, strength, groups):
    p = x.copy()
    order = np.stack(groups)
    U, S, Vt = np.linalg.svd(x[order], full_matrices=False)
    radius = strength * (math.sqrt(x.size) if reg.weighted else 1.0)
    p[order] = (U * np.minimum(S, radius)) @ Vt
    return p


PROJECTIONS = {
    "none": _none,
    "l1": _l1,
    "nonnegative_l1": _nonnegative_l1,
    "elastic_net": _elastic_net,
    "group_l2": _group_l2,
    "sparse_group": _sparse_group,
    "nuclear": _nuclear,
}
"""From a name to the projection onto λ∂J₁(0), for the elastic net to the proximal map of the conjugate."""


def prox(reg, x, strength, groups):
    """Return x minus its projection onto the dual ball of radius `strength` (Moreau)."""
    flat = x.reshape(-1).astype(np.float64)
    return (flat - PROJECTIONS[reg.name](reg, flat, strength, groups)).reshape(x.shape)


def sparse_group_dual_norm(x, ratio, groups):
    """Return the smallest t for which every group of x/t lies in the rounded box, by bisection."""

    def excess(t, group):
        return np.linalg.norm(soft(x[group], ratio * t)) - (1 - ratio) * math.sqrt(len(group)) * t

    highest = np.abs(x).max(initial=0.0) * 2 + 1e-300
    return max(bisect(lambda t, group=group: excess(t, group), 0.0, highest) for group in groups)
