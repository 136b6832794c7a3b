"""Sparse evolutionary training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.experiments.baselines.random_masks import RandomMasks


class SparseEvolution(RandomMasks):
    """Keeps the number of weights of each layer; now and then drops the smallest and grows as many others, at random.

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
        super().__init__(model, optimizer, density, seed=seed)
        self.every, self.share, self.until = every, share, round(0.75 * steps)

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
        weight.masked_fill_((old & ~new).view(weight.shape), 0.0)
        new[asleep[torch.randperm(len(asleep), generator=generator)[:count].to(asleep.device)]] = True
        return new.view_as(mask)
