"""Nesterov's sequence of momenta, and when to start it again."""

from __future__ import annotations

import math


def next_momentum(t: float) -> tuple[float, float]:
    """Return t_{k+1} = (1 + √(1 + 4 t_k²)) / 2 and μ_k = (t_k − 1) / t_{k+1} (Nesterov 1983; Beck, Teboulle 2009).

    The sequence starts at t = 1, μ = 0, and μ tends to 1. To restart it is to go back to t = 1.

    Example:
        >>> t, mu = next_momentum(1.0)
        >>> round(t, 3), mu
        (1.618, 0.0)
    """
    following = (1 + math.sqrt(1 + 4 * t * t)) / 2
    return following, (t - 1) / following
