"""What low-rank layers refuse, in one line each."""

from __future__ import annotations

import math

import torch

_RANGES = {"lam": (0, True), "delta": (0, True), "lr": (0, False), "refresh": (1, False), "tolerance": (0, True)}
"""Least value, and whether it is excluded."""
_REMEDIES = {
    "lam": ": without it the rank is full, use nn.Linear (from_factored)",
    "refresh": " and whole: 1 reads the dual at every step, 10 at every tenth",
}


def check_numbers(**numbers: float) -> None:
    """Raise ValueError where a number of a low-rank layer is out of range."""
    for name, value in numbers.items():
        least, excluded = _RANGES[name]
        whole = name != "refresh" or (isinstance(value, int) and not isinstance(value, bool))
        number = float(value)
        if not math.isfinite(number) or number < least or (excluded and number == least) or not whole:
            sign = ">" if excluded else ">="
            raise ValueError(
                f"{name} of a low-rank layer must be finite, {sign} {least}{_REMEDIES.get(name, '')}; got {value!r}"
            )


def check_rank(rank: int, in_features: int, out_features: int) -> None:
    """Raise ValueError where a random start has no low rank."""
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < min(in_features, out_features):
        raise ValueError(
            f"rank of a {out_features} × {in_features} low-rank layer must be a whole number from 0 to "
            f"{min(in_features, out_features) - 1}, got {rank!r}: choose one, or use nn.Linear"
        )


def check_precision(dtype: torch.dtype) -> None:
    """Raise ValueError for anything but float32 and float64."""
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"a low-rank layer keeps its dual in float32 or float64, got {dtype}: leave its dtype and train under "
            "torch.autocast, or call from_factored once training is over"
        )
