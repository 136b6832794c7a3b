"""Labels that cover no other."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return heights at least `gap` apart in the same order, moved as little as that takes, by least squares.

    Less i·gap for the i-th from below, that is an isotonic regression: neighbours too close are pooled at their mean.

    Example:
        >>> apart([1.0, 1.0, 5.0], 0.5)
        [0.75, 1.25, 5.0]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    pools: list[list[float]] = []
    for place, i in enumerate(order):
        pools.append([heights[i] - place * gap])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [fmean(pool) for pool in pools for _ in pool]
    moved = list(heights)
    for place, i in enumerate(order):
        moved[i] = level[place] + place * gap
    return moved


def clear(labels: Sequence[tuple[float, float, float]], height: float) -> list[float]:
    """Return at which height each label covers no other, those below keeping their place.

    Args:
        labels: left edge, height of the middle, and width of each.
        height: of all labels.

    Example:
        >>> clear([(0, 0, 50), (10, 2, 50), (100, 0, 50)], 10)
        [0, 10, 0]
    """
    placed: dict[int, float] = {}
    for i in sorted(range(len(labels)), key=lambda i: labels[i][1]):
        left, y, width = labels[i]
        for j, other in sorted(placed.items(), key=lambda item: item[1]):
            beside = left < labels[j][0] + labels[j][2] and labels[j][0] < left + width
            if beside and abs(y - other) < height:
                y = other + height
        placed[i] = y
    return [placed[i] for i in range(len(labels))]


def upper_part(heights: Sequence[float]) -> float:
    """Return the lowest height of the upper five sixths: what is far below presses the others together.

    Example:
        >>> upper_part([98.0, 97.0, 70.0, 98.1, 97.5, 98.2])
        97.0
    """
    return sorted(heights)[len(heights) // 6]
