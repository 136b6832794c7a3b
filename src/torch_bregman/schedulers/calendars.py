"""Calendars: what a value is after k steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Calendar = Callable[[int], float]
"""From the number of steps so far, k = 0, 1, 2, …, to a value."""


def linear(start: float, end: float, steps: int) -> Calendar:
    """Return k ↦ start + (end − start)·min(k/steps, 1).

    Example:
        >>> [linear(4, 16, 3)(k) for k in range(5)]
        [4.0, 8.0, 12.0, 16.0, 16.0]
    """
    _check_steps(steps)
    return lambda k: start + (end - start) * min(k / steps, 1.0)


def cosine(start: float, end: float, steps: int) -> Calendar:
    """Return k ↦ end + (start − end)·(1 + cos(π·min(k/steps, 1)))/2.

    Example:
        >>> [round(cosine(1, 0, 2)(k), 3) for k in range(4)]
        [1.0, 0.5, 0.0, 0.0]
    """
    _check_steps(steps)
    return lambda k: end + (start - end) * (1 + math.cos(math.pi * min(k / steps, 1.0))) / 2


def cubic(start: float, end: float, steps: int) -> Calendar:
    """Return k ↦ end + (start − end)·(1 − min(k/steps, 1))³: fast at first, slow where little is left.

    References:
        Zhu, Gupta 2018, for densities.

    Example:
        >>> [cubic(9, 1, 2)(k) for k in range(4)]
        [9.0, 2.0, 1.0, 1.0]
    """
    _check_steps(steps)
    return lambda k: end + (start - end) * (1 - min(k / steps, 1.0)) ** 3


def geometric(start: float, end: float, steps: int) -> Calendar:
    """Return k ↦ start·(end/start)^min(k/steps, 1): a straight line on a logarithmic axis.

    Example:
        >>> [geometric(16, 1, 2)(k) for k in range(4)]
        [16.0, 4.0, 1.0, 1.0]
    """
    _check_steps(steps)
    if not (start > 0 and end > 0):
        raise ValueError(f"a geometric calendar needs numbers > 0, got {start} and {end}: use linear or cubic")
    return lambda k: start * (end / start) ** min(k / steps, 1.0)


def listed(values: Mapping[int, float]) -> Calendar:
    """Return k ↦ the value of the latest step not after k.

    Args:
        values: by step; step 0 must be there.

    Example:
        >>> [listed({0: 8, 2: 16})(k) for k in range(4)]
        [8, 8, 16, 16]
    """
    if 0 not in values:
        raise ValueError(f"a list of values must say what holds at step 0, got steps {sorted(values)}")
    return lambda k: values[max(step for step in values if step <= k)]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a calendar needs at least 1 step, got {steps}")
