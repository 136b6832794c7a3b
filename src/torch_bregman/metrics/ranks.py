"""The numerical rank of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bregman.views import View, get_view


def rank(weight: Tensor, tol: float | None = None, *, view: str | View = "rows") -> int:
    """Return the number of singular values above a tolerance, of the weight seen as a matrix.

    The default tolerance is max(m, n)·eps·σ_1, what rounding leaves of a product of factors in the weight's own
    precision. Weights in half precision, for which that would exceed σ_1, are taken as rounded copies of longer
    numbers, which moves singular values by less than 4·eps·σ_1.

    Args:
        weight: floating point, any shape.
        tol: singular values up to this count as 0, default see above.
        view: how the weight becomes an m × n matrix, default "rows": out × rest.

    Raises:
        ValueError: for entries that are nan or inf, or a view that does not fit.

    Example:
        >>> import torch
        >>> rank(torch.ones(3, 2, 5, 5))
        1
    """
    matrix = get_view(view).matrix(weight.detach())
    if matrix.numel() == 0:
        return 0
    half = matrix.dtype in (torch.float16, torch.bfloat16)
    if not torch.isfinite(matrix).all():
        raise ValueError("rank needs finite weights, got nan or inf: training has diverged, lower lr")
    values = torch.linalg.svdvals(matrix.float() if half else matrix)
    if tol is None:
        tol = (4 if half else max(matrix.shape)) * torch.finfo(matrix.dtype).eps * float(values[0])
    return int((values > tol).sum())
