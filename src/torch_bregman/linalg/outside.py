"""What a subspace does not see of a matrix: the energy of the rest, its largest singular value, a proof of a bound."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torch_bregman.linalg.sweep import array, gram64

_EXHAUSTED = 1e-4


def energies(V: Tensor) -> np.ndarray:
    """Return ‖V‖_F² of each matrix, (b,), to about 1e-8 in float32; inf where the squares leave its range."""
    # the norm of lines that lie together in memory: fast, and no float32 sum gets long
    lines = torch.linalg.vector_norm(V, dim=-1 if V.stride(-1) == 1 else -2)
    return np.square(array(lines)).sum(-1)


def largest_outside(V: Tensor, U: Tensor, scale: float, start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a lower bound of ‖(I − UᵀU)V‖₂, (…), by Lanczos steps, and its Ritz vectors, (…, 1, m) and (…, 1, n).

    Args:
        V: (…, m, n).
        U: orthonormal rows, (…, r, m).
        scale: about ‖V‖₂: so scaled, float32 squares stay in range.
        start: (…, 1, n).
        steps: products with V; one less with Vᵀ.
    """
    basis, images = _normalised(start), []
    for step in range(steps):
        y = basis[..., -1:, :] @ V.mT
        images.append((y - (y @ U.mT) @ U) / scale)
        if step < steps - 1:
            x = (images[-1] @ V) / scale
            basis = torch.cat([basis, _next(x, basis)], dim=-2)
    seen = torch.cat(images, dim=-2)
    squares, E = torch.linalg.eigh(gram64(seen))
    weights = E[..., -1:].mT.to(V.dtype)
    return squares[..., -1].clamp_min(0).sqrt() * scale, _normalised(weights @ seen), weights @ basis


def _next(row: Tensor, basis: Tensor) -> Tensor:
    """Return the unit vector along what of a row is orthogonal to the basis; zero where that is hardly anything."""
    row = _normalised(row)
    row = row - (row @ basis.mT) @ basis
    row = row * (torch.linalg.vector_norm(row, dim=-1, keepdim=True) > _EXHAUSTED)
    return _normalised(row - (row @ basis.mT) @ basis)


def _normalised(row: Tensor) -> Tensor:
    return row / torch.linalg.vector_norm(row, dim=-1, keepdim=True).clamp_min(torch.finfo(row.dtype).tiny)


def nothing_above(V: Tensor, left: Tensor, right: Tensor, bound: float) -> bool:
    """Prove ‖V − leftᵀ·right‖₂ < bound: the Cholesky factorisation of bound²·I − its Gram matrix exists."""
    rest = (V - left.mT @ right) / bound
    gram = rest @ rest.mT if V.shape[-2] < V.shape[-1] else rest.mT @ rest
    gram.neg_().diagonal(dim1=-2, dim2=-1).add_(1)
    return not bool(torch.linalg.cholesky_ex(gram)[1].any())
