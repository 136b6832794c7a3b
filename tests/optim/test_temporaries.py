"""An ℓ1 step, once the state is there, allocates no temporary as large as a parameter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import torch_bregman as tb

SHAPES = [(300, 400), (400,), (64, 32, 3, 3), (100, 300)]
LEAST = 4 * 400  # bytes of the smallest parameter


@dataclass(frozen=True)
class WastefulL1(tb.L1):
    """The ℓ1 norm with a proximal map written as one would on paper."""

    def mirror(self, v: Tensor, delta: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        theta = delta * v.sign() * (v.abs() - self.strength(lam)).clamp_min(0)
        return theta if out is None else out.copy_(theta)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        return self.mirror(x, lam=step * self.strength(lam), out=out)


def build(kind: str, regularizer: tb.Regularizer) -> torch.optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    return {
        "linbreg": lambda: tb.LinBreg(params, lr=0.1, regularizer=regularizer),
        "linbreg, delta": lambda: tb.LinBreg(params, lr=0.1, regularizer=regularizer, delta=2.0),
        "linbreg, momentum": lambda: tb.LinBreg(params, lr=0.1, momentum=0.9, dampening=0.9, regularizer=regularizer),
        "linbreg, nesterov": lambda: tb.LinBreg(params, lr=0.1, momentum=0.9, nesterov=True, regularizer=regularizer),
        "adabreg": lambda: tb.AdaBreg(params, lr=0.1, regularizer=regularizer),
        "adabreg, amsgrad": lambda: tb.AdaBreg(params, lr=0.1, amsgrad=True, regularizer=regularizer),
        "proxsgd": lambda: tb.ProxSGD(params, lr=0.1, regularizer=regularizer),
    }[kind]()


KINDS = [
    "linbreg",
    "linbreg, delta",
    "linbreg, momentum",
    "linbreg, nesterov",
    "adabreg",
    "adabreg, amsgrad",
    "proxsgd",
]


def largest_allocation(optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Return the bytes of the largest piece of memory that one step asks for."""
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        optimizer.step()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    return max((event["args"]["Bytes"] for event in events if event["name"] == "[memory]"), default=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_temporary_as_large_as_a_parameter(kind: str, tmp_path: Path) -> None:
    assert largest_allocation(build(kind, tb.L1(0.1)), tmp_path) < LEAST


@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_sees_a_proximal_map_that_makes_some(kind: str, tmp_path: Path) -> None:
    largest = max(4 * torch.Size(shape).numel() for shape in SHAPES)
    assert largest_allocation(build(kind, WastefulL1(0.1)), tmp_path) >= largest
