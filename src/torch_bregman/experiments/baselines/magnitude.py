"""Gradual magnitude pruning, and the cut that others share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.experiments.baselines.masked import Masked
from torch_bregman.schedulers import cubic


class GradualPruning(Masked):
    """Keeps the largest |θ| of all weights together, fewer and fewer: the density falls cubically from 1 to the goal.

    Args:
        model: dense at the start.
        optimizer: any.
        density: the goal, in (0, 1].
        steps: of the whole training.
        begin, end: shares of the steps between which the density falls, default 0.1 and 0.6.
        every: steps between two cuts, default 100.

    References:
        Zhu, Gupta 2018; over all layers together as in Gale, Elsen, Hooker 2019.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        steps: int,
        *,
        begin: float = 0.1,
        end: float = 0.6,
        every: int = 100,
    ) -> None:
        super().__init__(model, optimizer)
        self.density, self.every = density, every
        self.begin, self.end = round(begin * steps), round(end * steps)
        self._ramp = cubic(1.0, density, max(self.end - self.begin, 1))

    def _change(self) -> None:
        due = self.steps % self.every == 0 or self.steps == self.end
        if due and self.begin < self.steps <= self.end:
            self._cut(self._ramp(self.steps - self.begin))

    def _cut(self, density: float) -> None:
        self.masks = largest(self.weights, density)


def largest(weights: list[Tensor], density: float) -> list[Tensor]:
    """Return masks of the largest |θ| of all weights together, exactly as many as the density asks for.

    Example:
        >>> largest([torch.tensor([3.0, -1.0]), torch.tensor([0.0, -2.0])], 0.5)
        [tensor([ True, False]), tensor([False,  True])]
    """
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = torch.zeros_like(magnitudes, dtype=torch.bool)
    kept[magnitudes.topk(round(density * len(magnitudes))).indices] = True
    parts = kept.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
