"""Masks drawn at random with Erdős–Rényi densities, as they are or as a start."""

from __future__ import annotations

import math
from abc import ABC
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.experiments.baselines.masked import Masked


class RandomMasks(Masked, ABC):
    """Starts from random masks and weights on them.

    Layer l with n_out × n_in weights has density ε·(n_in + n_out)/(n_in·n_out), at most 1, with ε such that the whole
    has the density asked for (Erdős–Rényi; for convolutions with the sides of the kernel in sum and product, the
    "kernel" variant of RigL). The start is drawn anew with variance 2/(density·n_in).

    Args:
        model: its weights are drawn anew on random masks.
        optimizer: any.
        density: of all weights together, in (0, 1].
        seed: of the masks and the start.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, density: float, *, seed: int = 0) -> None:
        super().__init__(model, optimizer)
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        for i, part in enumerate(erdos_renyi([tuple(weight.shape) for weight in self.weights], density)):
            self.masks[i] = self._drawn(self.weights[i], part, generator)
        with torch.no_grad():
            self._apply()

    @torch.no_grad()
    def _drawn(self, weight: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Draw mask and weights of a layer."""
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[torch.randperm(weight.numel(), generator=generator)[: round(density * weight.numel())]] = True
        fan_in = weight[0].numel()
        weight.copy_(torch.randn(weight.shape, generator=generator) * math.sqrt(2 / (density * fan_in)))
        return mask.view_as(weight).to(weight.device)


class ExchangedMasks(RandomMasks, ABC):
    """Random masks of which a share is exchanged now and then; over the last quarter of the steps they stay.

    Args:
        model: its weights are drawn anew on random masks.
        optimizer: any.
        density: of all weights together, in (0, 1].
        steps: of the whole training.
        every: steps between two exchanges, default that of the method.
        share: of a layer's weights that is exchanged, default 0.3.
        seed: of the masks and the start.
    """

    usual: ClassVar[int]
    """Steps between two exchanges where nothing is said."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        steps: int,
        *,
        every: int | None = None,
        share: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer, density, seed=seed)
        self.every, self.share, self.until = every or self.usual, share, round(0.75 * steps)


class StaticMasks(RandomMasks):
    """Random masks that stay as they are: what any method that moves its masks must be better than."""

    def _change(self) -> None:
        """Nothing is ever due."""


def erdos_renyi(shapes: list[tuple[int, ...]], density: float) -> list[float]:
    """Return densities of layers in proportion to (n_in + n_out)/(n_in·n_out), at most 1, with this density of all.

    Example:
        >>> [round(part, 4) for part in erdos_renyi([(300, 784), (100, 300), (10, 100)], 0.05)]
        [0.0385, 0.1113, 0.9185]
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
    full: set[int] = set()
    while True:
        rest = density * sum(sizes) - sum(sizes[i] for i in full)
        weight = sum(raw[i] * sizes[i] for i in range(len(sizes)) if i not in full)
        scale = rest / weight if weight else 0.0
        over = {i for i in range(len(sizes)) if i not in full and scale * raw[i] > 1}
        if not over:
            return [1.0 if i in full else scale * raw[i] for i in range(len(sizes))]
        full |= over
