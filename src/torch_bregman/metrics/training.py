"""Floating-point operations of training, as the literature counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from torch_bregman.metrics.nonzeros import named_weights
from torch_bregman.metrics.uses import Example, trace_uses


@dataclass(frozen=True)
class TrainingFlops:
    """Counts what steps of training cost were zeros free, beside what a dense network costs.

    With f_D the operations of a forward pass through all weights and f_S through those that are awake (an addition or
    a multiplication is one), a dense step costs 3 f_D, a step that needs the gradient of all weights 2 f_S + f_D, and a
    coarse step 3 f_S. A cycle of m coarse steps thus costs [(2 f_S + f_D) + m·3 f_S] / [3 f_D (m + 1)] of dense
    training. These are no seconds: what zeros really save depends on form and machine.

    Args:
        times: for each weight, multiply-adds of each entry in a forward pass of one sample.
        entries: of each weight.

    References:
        Lunk, Scott, Bungert 2026 (arXiv 2602.03535).

    Example:
        >>> import torch
        >>> flops = training_flops(nn.Linear(4, 2), torch.zeros(1, 4))
        >>> flops.dense(1), [flops.step({"weight": 2}, fine=fine, samples=1) for fine in (True, False)]
        (48, [24, 12])
    """

    times: Mapping[str, int]
    entries: Mapping[str, int]

    def dense(self, samples: int) -> int:
        """Return what a dense step on so many samples costs."""
        return 3 * self.forward(self.entries) * samples

    def step(self, awake: Mapping[str, int], *, fine: bool, samples: int) -> int:
        """Return what a step costs.

        Args:
            awake: entries of each weight that take part, by name; all of them where a name is missing.
            fine: whether it needs the gradient of all weights.
            samples: in the batch.
        """
        active = self.forward(awake)
        return samples * (2 * active + self.forward(self.entries) if fine else 3 * active)

    def forward(self, awake: Mapping[str, int]) -> int:
        """Return what a forward pass of one sample costs, f_S or f_D."""
        return 2 * sum(times * awake.get(name, self.entries[name]) for name, times in self.times.items())


def training_flops(model: nn.Module, example: Example) -> TrainingFlops:
    """Return the counter for a model, from one forward pass in evaluation mode.

    Args:
        model: any module; layers that `trace_uses` has no rule for do not count.
        example: what it is called with, a batch of one.
    """
    names = {id(weight): name for name, weight in named_weights(model).items()}
    times: dict[str, int] = {}
    for use in trace_uses(model, example).weights:
        if use.weight is not None and id(use.weight) in names:
            name = names[id(use.weight)]
            times[name] = times.get(name, 0) + use.times
    entries = {name: weight.numel() for name, weight in named_weights(model).items()}
    return TrainingFlops(times, {name: entries[name] for name in times})
