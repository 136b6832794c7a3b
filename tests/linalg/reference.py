"""What the engines are measured by: the full decomposition in float64, and matrices that are hard on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torch_bregman.linalg import Thresholded


def svt(V: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Return U max(S − t, 0) Wᵀ and S in float64."""
    U, S, Wt = torch.linalg.svd(V.double(), full_matrices=False)
    return (U * (S - t).clamp_min(0).unsqueeze(-2)) @ Wt, S


def error(result: Thresholded, V: Tensor, t: float) -> float:
    """Return ‖W − SVT_t(V)‖_F relative to ‖(S − t)₊‖, or to 0.02·t where that is larger."""
    exact, S = svt(V, t)
    scale = max(float(torch.linalg.vector_norm((S - t).clamp_min(0))), 0.02 * t)
    off = float(torch.linalg.vector_norm(result.matrix().double() - exact))
    return off / scale if scale else off


def orthonormal(m: int, k: int, generator: torch.Generator, batch: Sequence[int] = ()) -> Tensor:
    """Return (…, m, k) with orthonormal columns, float64."""
    return torch.linalg.qr(torch.randn(*batch, m, k, generator=generator, dtype=torch.float64)).Q


def with_values(values: Sequence[float] | Tensor, m: int, n: int, seed: int = 0) -> Tensor:
    """Return an m × n matrix with these singular values and random singular vectors, float64."""
    generator = torch.Generator().manual_seed(seed)
    S = torch.as_tensor(values, dtype=torch.float64)
    return (orthonormal(m, len(S), generator) * S) @ orthonormal(n, len(S), generator).mT


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Return a Gaussian matrix, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_hidden_direction(
    shape: tuple[int, int], noise: float, heights: Sequence[float], seed: int = 0, rank: int = 8
) -> Iterator[Tensor]:
    """Yield matrices with `rank` values above 1, noise of that spectral norm, and one more direction of these heights.

    That direction is orthogonal to all the rest, and the others only swing a little: nothing of what is tracked tells
    of it. float32.
    """
    m, n = shape
    generator = torch.Generator().manual_seed(seed)
    U, W = orthonormal(m, rank + 1, generator), orthonormal(n, rank + 1, generator)
    rest = torch.randn(m, n, generator=generator, dtype=torch.float64)
    rest = rest - U @ (U.mT @ rest)
    rest = rest - (rest @ W) @ W.mT
    rest *= noise / torch.linalg.matrix_norm(rest, 2)
    values = torch.linspace(5, 1.3, rank, dtype=torch.float64)
    for step, height in enumerate(heights):
        S = torch.cat([values * (1 + 0.02 * math.sin(step / 3)), torch.tensor([height], dtype=torch.float64)])
        yield ((U * S) @ W.mT + rest).float()


def walk(shape: tuple[int, ...], steps: int, *, rank: int = 8, stride: float = 0.05, seed: int = 0) -> Iterator[Tensor]:
    """Yield a matrix with a falling spectrum, `rank` values above 1, that takes steps of rank 8, as float32."""
    *batch, m, n = shape
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    S = ((torch.arange(k, dtype=torch.float64) + 1) / (rank + 0.5)) ** -0.8
    V = (orthonormal(m, k, generator, batch) * S) @ orthonormal(n, k, generator, batch).mT
    for _ in range(steps):
        yield V.float()
        left = torch.randn(*batch, m, 8, generator=generator, dtype=torch.float64) / m**0.5
        V = V + stride * left @ torch.randn(*batch, 8, n, generator=generator, dtype=torch.float64) / n**0.5
