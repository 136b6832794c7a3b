"""Whether two models say the same, and if not, which layer is the first to blame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from torch_bregman.metrics.uses import run_once


def largest_difference(before: nn.Module, after: nn.Module, example: Any) -> float:
    """Return max |y − y'| / max |y| over all outputs, on the example and on random inputs of its size; inf for nan.

    Both are run in evaluation mode.
    """
    worst = 0.0
    for inputs in _inputs(example):
        expected, found = tree_leaves(run_once(before, inputs)), tree_leaves(run_once(after, inputs))
        for a, b in zip(expected, found, strict=True):
            if isinstance(a, Tensor) and a.numel():
                worst = max(worst, _relative(a, b))
    return worst


def first_difference(before: nn.Module, after: nn.Module, example: Any, tolerance: float) -> str:
    """Return the name of the first module that fails or says something else, of those whose outputs are as wide."""
    expected, found = _outputs(before, example), _outputs(after, example)
    for name, output in expected.items():
        if name not in found:
            return repr(name)
        for a, b in zip(tree_leaves(output), tree_leaves(found[name]), strict=False):
            if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and _relative(a, b) > tolerance:
                return repr(name)
    return repr(type(before).__name__)


def _outputs(model: nn.Module, example: Any) -> dict[str, Any]:
    """Return what every module makes of the example, in the order in which they finish; those before a failure."""
    seen: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(partial(_remember, seen, name)) for name, module in model.named_modules() if name
    ]
    try:
        with suppress(RuntimeError, ValueError, TypeError, AssertionError, IndexError):
            run_once(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _remember(seen: dict[str, Any], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    seen.setdefault(name, output)  # and return nothing, which would replace the output


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    a, b = a.double(), b.double()
    difference = float((a - b).abs().amax())
    scale = float(a.abs().amax())
    return difference / scale if scale else difference


def _inputs(example: Any) -> Iterator[tuple[Any, ...]]:
    arguments = example if type(example) is tuple else (example,)
    yield arguments
    draw = torch.Generator().manual_seed(0)

    def random(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        spread = float(x.double().std(correction=0)) if x.numel() else 0.0
        noise = torch.randn(x.shape, generator=draw, dtype=torch.float64) * (spread or 1.0)
        return noise.add_(float(x.double().mean()) if x.numel() else 0.0).to(x)

    for _ in range(2):
        yield tree_map(random, arguments)
