"""How long a forward pass takes, several models side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def side_by_side(calls: Sequence[Callable[[], Any]], seconds: float = 0.4, least: int = 5) -> list[float]:
    """Return the median milliseconds of each call; they take turns, so that what disturbs one disturbs all.

    In its turn each is called twice, and the second time counts: what came before it has taken the caches.

    Args:
        calls: what is timed.
        seconds: to spend in all, about.
        least: number of turns at least.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:  # whatever is made once, at the first call, is not timed
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < least or time.perf_counter() < end:
        for call, own in zip(calls, times, strict=True):
            call()
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [1000 * median(own) for own in times]


@torch.no_grad()
def measure_latency(models: Sequence[nn.Module], example: Any, batch: int, seconds: float = 0.4) -> list[float]:
    """Return the median milliseconds of a forward pass of each model in evaluation, on the threads torch has now.

    Args:
        models: any modules that take the example; their modes are left as they were.
        example: a tensor or a tuple of arguments, whose tensors have the batch first.
        batch: samples a pass, made of the first of the example.
        seconds: to spend in all, about.

    Example:
        >>> len(measure_latency([nn.Linear(8, 8), nn.Linear(8, 4)], torch.zeros(1, 8), batch=4, seconds=0.01))
        2
    """
    inputs = of_batch(example, batch)
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        return side_by_side([lambda model=model: model(*inputs) for model in models], seconds)
    finally:
        for module, training in modes:
            module.training = training


def of_batch(example: Any, batch: int) -> tuple[Any, ...]:
    """Return the arguments with the first sample that many times."""
    arguments = example if type(example) is tuple else (example,)
    return tree_map(
        lambda x: x[:1].expand(batch, *x.shape[1:]).contiguous() if isinstance(x, Tensor) and x.ndim else x, arguments
    )
