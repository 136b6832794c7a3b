"""What the views mean, stated a second time: for every entry of a tensor, by its index, the group it belongs to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Index = tuple[int, ...]

GROUP_OF: dict[str, Callable[[Index, Index], object]] = {
    "elements": lambda i, shape: i,
    "rows": lambda i, shape: i[0],
    "columns": lambda i, shape: i[1],
    "filters": lambda i, shape: i[0],
    "kernels": lambda i, shape: i[:2],
    "spatial": lambda i, shape: (i[0], i[2]),
    "heads(2)": lambda i, shape: i[0] // (shape[0] // 2),
    "blocks(2, 3)": lambda i, shape: (i[0] // 2, i[1] // 3),
}
"""From a view, spelled as users spell it, to the name of the group of an index, given the shape."""

SHAPES: dict[str, list[Index]] = {
    "elements": [(), (3,), (2, 3), (2, 2, 3), (2, 3, 1, 2)],
    "rows": [(), (3,), (4, 3), (3, 2, 2), (2, 3, 1, 2), (2, 1, 2, 1, 2)],
    "columns": [(), (3,), (4, 3), (3, 2, 2), (2, 3, 1, 2), (2, 1, 2, 1, 2)],
    "filters": [(3, 2, 2), (2, 3, 2, 2), (2, 1, 2, 1, 2)],
    "kernels": [(3, 2, 2), (2, 3, 2, 2), (2, 1, 2, 1, 2)],
    "spatial": [(2, 3, 3, 2), (3, 1, 2, 2), (1, 2, 1, 3)],
    "heads(2)": [(4,), (4, 3), (2, 2, 2), (6, 1, 2, 1)],
    "blocks(2, 3)": [(2, 3), (4, 6), (2, 3, 2), (2, 6, 1, 2)],
}
"""Small shapes that have such groups: linear, convolutional, bias and scalar where the view allows them."""


def groups(view: str, shape: Index) -> list[np.ndarray]:
    """Return the flat indices of every group, groups and entries in their natural order."""
    padded = shape + (1,) * (2 - len(shape))
    members: dict[object, list[int]] = {}
    for flat, index in enumerate(np.ndindex(*padded)):
        members.setdefault(GROUP_OF[view](index, padded), []).append(flat)
    return [np.array(members[name]) for name in sorted(members)]  # type: ignore[type-var]
