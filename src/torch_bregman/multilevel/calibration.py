"""Which layers are faster in compact form, and up to which density: measured on this machine, in about a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_bregman.layers.support import SupportMatrix
from torch_bregman.metrics import text_table
from torch_bregman.multilevel.native.matrix import matrix_type

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2)
_ROUNDS, _SECONDS = 7, 0.1
_MARGIN = 0.8
"""Share of the dense time that a compact layer may take to be worth its trouble: fine steps, changes of form."""


@dataclass(frozen=True)
class LayerTimes:
    """What a coarse step of one layer takes.

    Args:
        name: of the layer.
        shape: out, in.
        dense: milliseconds of its three products and of its optimizer's step, dense.
        compact: milliseconds in compact form at each of `DENSITIES`.
        below: density up to which it is compact; 0 for never.
    """

    name: str
    shape: tuple[int, int]
    dense: float
    compact: tuple[float, ...]
    below: float


@dataclass(frozen=True)
class Calibration:
    """What was measured, layer by layer; `str()` makes a table of it."""

    batch: int
    layers: tuple[LayerTimes, ...]

    @property
    def below(self) -> dict[str, float]:
        """Density up to which each layer is compact."""
        return {layer.name: layer.below for layer in self.layers}

    def __str__(self) -> str:
        header = ["layer", "shape", "dense, ms", *(f"{density:.0%}, ms" for density in DENSITIES), "compact up to"]
        rows = [
            [
                layer.name,
                " × ".join(map(str, layer.shape)),
                f"{layer.dense:.2f}",
                *(f"{ms:.2f}" for ms in layer.compact),
                f"{layer.below:.0%}" if layer.below else "never",
            ]
            for layer in self.layers
        ]
        return "\n".join([*text_table(header, rows, "<<" + ">" * (len(DENSITIES) + 2)), f"batch {self.batch}"])


@torch.no_grad()
def calibrate(
    layers: Sequence[tuple[str, nn.Linear]], batch: int, first: str | None = None, *, compiled: bool = False
) -> Calibration:
    """Return for each layer up to which density it is faster on its support than dense.

    Measured are one forward product, the two of the backward pass, and SGD with momentum and soft threshold, dense
    and on random supports.

    Args:
        layers: with their names.
        batch: images a step.
        first: name of the layer that needs no gradient of its input.
        compiled: with the C program, see `SparseForm`.

    Example:
        >>> calibrate([("fc", nn.Linear(8, 4))], batch=16).layers[0].shape
        (4, 8)
    """
    known: dict[tuple[int, int, torch.dtype, bool], LayerTimes] = {}
    found = []
    for name, layer in layers:
        shape, inner = (layer.out_features, layer.in_features), name != first
        key = *shape, layer.weight.dtype, inner
        if key not in known:
            known[key] = _measure(name, shape, batch, layer.weight.dtype, inner, compiled)
        times = known[key]
        found.append(LayerTimes(name, shape, times.dense, times.compact, times.below))
    return Calibration(batch, tuple(found))


def _measure(
    name: str, shape: tuple[int, int], batch: int, dtype: torch.dtype, inner: bool, compiled: bool
) -> LayerTimes:
    rng = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(size, batch, generator=rng).to(dtype) for size in reversed(shape))
    dense = _milliseconds(_dense_step(torch.randn(shape, generator=rng).to(dtype), x, dy, inner))
    compact = []
    for density in DENSITIES:
        flat = (torch.rand(shape, generator=rng) < density).view(-1).nonzero().view(-1)
        matrix = matrix_type(dtype, compiled)(flat, torch.randn(len(flat), generator=rng).to(dtype), shape)
        compact.append(_milliseconds(_sparse_step(matrix, x, dy, inner)))
    return LayerTimes(name, shape, dense, tuple(compact), mark(dense, compact))


def mark(dense: float, compact: Sequence[float]) -> float:
    """Return the density at which the compact form takes its share of the dense time, between those measured.

    Example:
        >>> round(mark(10.0, [1.0, 2.0, 4.0, 12.0, 30.0]), 3)
        0.075
    """
    allowed, before, last = _MARGIN * dense, 0.0, 0.0
    for density, taken in zip(DENSITIES, compact, strict=True):
        if taken > allowed:
            return before + (density - before) * (allowed - last) / (taken - last) if before else 0.0
        before, last = density, taken
    return DENSITIES[-1]


def _dense_step(weight: Tensor, x: Tensor, dy: Tensor, inner: bool) -> Callable[[], object]:
    buffer, dual = torch.zeros_like(weight), weight.clone()

    def step() -> None:
        torch.matmul(weight, x)
        if inner:
            torch.matmul(weight.t(), dy)
        buffer.mul_(0.9).add_(dy @ x.t())
        dual.add_(buffer, alpha=-1e-3)
        nn.functional.softshrink(dual, 0.1, out=weight)  # pyright: ignore[reportCallIssue]

    return step


def _sparse_step(matrix: SupportMatrix, x: Tensor, dy: Tensor, inner: bool) -> Callable[[], object]:
    values = matrix.values
    buffer, dual = torch.zeros_like(values), values.clone()

    def step() -> None:
        matrix.matmul(x)
        if inner:
            matrix.transposed_matmul(dy)
        buffer.mul_(0.9).add_(matrix.gradient(dy, x))
        dual.add_(buffer, alpha=-1e-3)
        nn.functional.softshrink(dual, 0.1, out=values)  # pyright: ignore[reportCallIssue]

    return step


def _milliseconds(step: Callable[[], object]) -> float:
    """Return the shortest of a few runs: what else the machine does makes them longer only."""
    step()
    times, end = [], time.perf_counter() + _SECONDS
    while len(times) < 2 or (len(times) < _ROUNDS and time.perf_counter() < end):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
