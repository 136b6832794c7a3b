"""Sparse evolutionary training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.experiments.baselines.masked import Masked


class SparseEvolution(Masked):
    """Keeps the number of weights of each layer; now and then drops the smallest and grows as many others, at random.

    Layer l with n_out × n_in weights has density ε·(n_in + n_out)/(n_in·n_out), at most 1, with ε such that the whole
    has the density asked for (Erdős–Rényi). The start is drawn anew with variance 2/(density·n_in).

    Args:
        model: its weights are drawn anew on random masks.
        optimizer: any.
        density: of all weights together, in (0, 1].
        steps: of the whole training; over the last quarter the masks stay.
        every: steps between two exchanges, default 300.
        share: of a layer's weights that is exchanged, default 0.3.
        seed: of the masks and the start.

    References:
        Mocanu et al., Nature Communications 9, 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        steps: int,
        *,
        every: int = 300,
        share: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer)
        self.every, self.share, self.until = every, share, round(0.75 * steps)
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

    def _change(self) -> None:
        if self.steps % self.every == 0 and self.steps <= self.until:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.steps)
            self.masks = [self._exchanged(w, m, generator) for w, m in zip(self.weights, self.masks, strict=True)]

    def _exchanged(self, weight: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        flat, old = weight.detach().abs().flatten(), mask.flatten()
        asleep = (~old).nonzero().flatten()
        count = min(round(self.share * int(old.sum())), len(asleep))
        smallest = flat.masked_fill(~old, math.inf).topk(count, largest=False).indices
        new = old.clone()
        new[smallest] = False
        new[asleep[torch.randperm(len(asleep), generator=generator)[:count].to(asleep.device)]] = True
        weight.view(-1)[smallest] = 0.0
        return new.view_as(mask)


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
