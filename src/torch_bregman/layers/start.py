"""What a low-rank layer starts from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torch_bregman.layers.checks import check_rank

Decomposition = tuple[Tensor, Tensor, Tensor]
"""U, S and Vᵀ of a thin singular value decomposition, in float64."""


def random_start(m: int, n: int, rank: int, device: torch.device) -> Decomposition:
    """Return an m × n matrix Q·B of that rank, entries of mean 0 and variance 2/n.

    Q has orthonormal columns on the short side, B Gaussian entries, as in `low_rank_`; both are drawn from torch's
    global generator.
    """
    check_rank(rank, n, m)
    like: dict[str, Any] = {"dtype": torch.float64, "device": device}
    short, long = sorted((m, n))
    Q = torch.linalg.qr(torch.randn(short, rank, **like)).Q
    U, S, Vh = torch.linalg.svd(torch.randn(rank, long, **like), full_matrices=False)
    S = S * math.sqrt(2 / n * short / max(rank, 1))
    return (Q @ U, S, Vh) if m <= n else (Vh.mT, S, (Q @ U).mT)


def decompose(weight: Tensor, shape: torch.Size) -> Decomposition:
    """Return a weight of low rank decomposed."""
    if weight.shape != shape:
        raise ValueError(f"the weight of this layer must be {tuple(shape)}, got {tuple(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("a low-rank layer needs finite weights, got nan or inf: draw them anew by low_rank_")
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    # products of factors carry the rounding of their dtype as singular values of about eps·σ_1
    noise = 4 * max(shape) ** 0.5 * torch.finfo(weight.dtype).eps * S[0]
    rank = int((noise < S).sum())
    if rank == len(S):
        raise ValueError(
            f"the {shape[0]} × {shape[1]} weight has full rank, and its factors would cost more than it does: start "
            "from low_rank_(model, rank=8), or leave the layer dense"
        )
    return U[:, :rank], S[:rank], Vh[:rank]
