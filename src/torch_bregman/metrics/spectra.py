"""What singular values say of a weight: effective rank, energy, and how much its factors would store."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one weight, judged.

    Args:
        rank: number of singular values given.
        effective_rank: exp of the entropy of σ_i / Σ σ_i (Roy, Vetterli 2007); 0 for a zero weight.
        factorised: entries of the two factors of that rank, rank·(m + n).
        dense: entries of the weight, m·n.
    """

    rank: int
    effective_rank: float
    factorised: int
    dense: int


def judge(values: Tensor, shape: tuple[int, int]) -> Spectrum:
    """Return what the non-zero singular values of an m × n matrix say.

    Args:
        values: the singular values that are not zero, in any order; e.g. `optimizer.spectrum(weight)`.
        shape: m and n.

    Example:
        >>> judge(torch.tensor([1.0, 1.0]), (10, 20))
        Spectrum(rank=2, effective_rank=2.0, factorised=60, dense=200)
    """
    m, n = shape
    rank = len(values)
    return Spectrum(rank, effective_rank(values), rank * (m + n), m * n)


def effective_rank(values: Tensor) -> float:
    """Return exp(−Σ p_i log p_i) with p_i = σ_i / Σ σ_i, between 1 and the rank; 0 where all are zero.

    Example:
        >>> round(effective_rank(torch.tensor([1.0, 1.0, 0.0])), 6)
        2.0
    """
    total = values.double().sum()
    if not float(total):
        return 0.0
    p = values.double() / total
    return float(torch.special.entr(p).sum().exp())


def kept_energy(values: Tensor, rank: int) -> float:
    """Return Σ_{i ≤ rank} σ_i² / Σ σ_i², the share of the energy that truncation keeps; 1 for a zero weight.

    Args:
        values: singular values in any order.
        rank: at least 0.

    Example:
        >>> kept_energy(torch.tensor([3.0, 4.0]), 1)
        0.64
    """
    if rank < 0:
        raise ValueError(f"rank must be at least 0, got {rank}")
    energy = values.double().square().sort(descending=True).values
    total = float(energy.sum())
    return round(float(energy[:rank].sum()) / total, 15) if total else 1.0
