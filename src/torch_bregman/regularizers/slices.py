"""Which unit every slice of a tensor belongs to, for norms over units that several tensors share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

FREE = -1
"""In the place of a unit: the slice belongs to none and is not regularised."""


@dataclass(frozen=True)
class Slices:
    """The slices of a tensor along one dimension, each of which belongs to a unit.

    Args:
        dim: which dimension; a tensor without dimensions counts as a vector of one entry.
        units: the unit of each index, from 0 on, −1 for none; by default each index is a unit.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> print(Slices(1, (0, 0, 1, 1, 2, 2, -1)))
        1:0-2*2,.
        >>> get_slices("1:0-2*2,.").units
        (0, 0, 1, 1, 2, 2, -1)
    """

    dim: int = 0
    units: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.dim < 0 or (self.units is not None and any(unit < FREE for unit in self.units)):
            raise ValueError(f"a dimension must be >= 0 and units >= {FREE}, got {self.dim!r} and {self.units!r}")

    def index(self, x: Tensor) -> Tensor:
        """Return the unit of each slice of a tensor, on its device.

        Raises:
            ValueError: where the tensor has no such slices.
        """
        length = self.length(x)
        units = tuple(range(length)) if self.units is None else self.units
        if len(units) != length:
            raise ValueError(
                f"slices '{self}' are for {len(units)} entries along dimension {self.dim}, got shape {tuple(x.shape)}: "
                "take the groups from the model whose weights these are"
            )
        return _on_device(units, x.device)

    def length(self, x: Tensor) -> int:
        """Return the number of slices of a tensor."""
        if self.dim >= max(x.ndim, 1):
            raise ValueError(f"slices '{self}' need a tensor with dimension {self.dim}, got shape {tuple(x.shape)}")
        return x.shape[self.dim] if x.ndim else 1

    def inner(self, ndim: int) -> tuple[int, ...]:
        """Return the dimensions within a slice."""
        return tuple(d for d in range(max(ndim, 1)) if d != self.dim)

    def along(self, values: Tensor, x: Tensor) -> Tensor:
        """Return one value a slice, in a shape that broadcasts over the tensor."""
        if not x.ndim:
            return values.reshape(())
        return values.view([-1 if d == self.dim else 1 for d in range(x.ndim)])

    def __str__(self) -> str:
        return str(self.dim) if self.units is None else f"{self.dim}:{','.join(_runs(self.units))}"


def get_slices(text: str | Slices) -> Slices:
    """Return slices from their spelling: the dimension, and after a colon the units, `a-b` for a range, `*n` repeated.

    Raises:
        ValueError: for another spelling.
    """
    if isinstance(text, Slices):
        return text
    dim, _, runs = text.replace(" ", "").partition(":")
    parts = [_RUN.fullmatch(run) for run in runs.split(",")] if runs else []
    if not dim.isdigit() or None in parts:
        raise ValueError(f"slices {text!r} are unknown: use a dimension, and units such as '1:0-9*16' or '0:0,2,.'")
    if not runs:
        return Slices(int(dim))
    return Slices(int(dim), tuple(unit for part in parts if part is not None for unit in _expand(part)))


_RUN = re.compile(r"(?P<first>\d+|\.)(?:-(?P<last>\d+))?(?:\*(?P<times>\d+))?")


def _expand(run: Any) -> list[int]:
    first = FREE if run["first"] == "." else int(run["first"])
    last = first if run["last"] is None else int(run["last"])
    return [unit for unit in range(first, last + 1) for _ in range(int(run["times"] or 1))]


def _runs(units: tuple[int, ...]) -> list[str]:
    """Return the units as they are spelled, neighbours in one run where they are repeated alike."""
    found: list[list[int]] = []  # first, last, times
    for unit, members in groupby(units):
        times = len(list(members))
        if found and unit == found[-1][1] + 1 and times == found[-1][2] and found[-1][0] != FREE:
            found[-1][1] = unit
        else:
            found.append([unit, unit, times])
    return [
        ("." if first == FREE else str(first))
        + (f"-{last}" if last != first else "")
        + (f"*{times}" if times > 1 else "")
        for first, last, times in found
    ]


@lru_cache(maxsize=256)
def _on_device(units: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(units, dtype=torch.long, device=device)
