"""Sparse evolutionary training."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.experiments.baselines.random_masks import ExchangedMasks


class SparseEvolution(ExchangedMasks):
    """Keeps the number of weights of each layer; now and then drops the smallest and grows as many others, at random.

    Args as for `ExchangedMasks`, exchanges every 300 steps.

    References:
        Mocanu et al., Nature Communications 9, 2018.
    """

    usual: ClassVar[int] = 300

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
