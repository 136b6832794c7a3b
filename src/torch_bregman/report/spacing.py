"""Labels that cover no other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def apart(heights: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Return heights at least `gap` apart in the same order, moved as little as that takes, by least squares.

    Less i·gap for the i-th from below, that is an isotonic regression: neighbours too close are pooled at their mean.
    Between bounds it is the one without, clipped.

    Args:
        heights: of labels.
        gap: between neighbours.
        low: of the lowest; goes before `high` where both cannot be.
        high: of the highest.

    Example:
        >>> apart([1.0, 1.0, 5.0], 0.5)
        [0.75, 1.25, 5.0]
        >>> apart([1.0, 1.0, 5.0], 0.5, low=1.0, high=4.5)
        [1.0, 1.5, 4.5]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    pools: list[list[float]] = []
    for place, i in enumerate(order):
        pools.append([heights[i] - place * gap])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    highest = high - (len(heights) - 1) * gap
    level = [max(min(fmean(pool), highest), low) for pool in pools for _ in pool]
    moved = list(heights)
    for place, i in enumerate(order):
        moved[i] = level[place] + place * gap
    return moved


def upper_part(heights: Sequence[float]) -> float:
    """Return the lowest height of the upper five sixths: what is far below presses the others together.

    Example:
        >>> upper_part([98.0, 97.0, 70.0, 98.1, 97.5, 98.2])
        97.0
    """
    return sorted(heights)[len(heights) // 6]
