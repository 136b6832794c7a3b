"""RigL: the lottery is rigged by the gradient."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from torch_bregman.experiments.baselines.random_masks import ExchangedMasks


class RigL(ExchangedMasks):
    """Keeps the number of weights of each layer; drops the smallest, and grows as many where |gradient| is largest.

    At step k the share α/2·(1 + cos(πk/K)) of a layer's weights is exchanged, K the last step at which any are. What
    is grown starts at 0, without momentum, and may be what was just dropped. The gradient is that of the last batch,
    with respect to all weights of the layer.

    Args as for `ExchangedMasks`, exchanges every 100 steps; the gradients must still be there when `step` is called.

    References:
        Evci, Gale, Menick, Castro, Elsen, ICML 2020.
    """

    usual: ClassVar[int] = 100

    def _change(self) -> None:
        if self.steps % self.every == 0 and self.steps < self.until:
            share = self.share / 2 * (1 + math.cos(math.pi * self.steps / self.until))
            self.masks = [self._exchanged(w, m, share) for w, m in zip(self.weights, self.masks, strict=True)]

    def _exchanged(self, weight: Tensor, mask: Tensor, share: float) -> Tensor:
        old, grad = mask.flatten(), weight.grad
        assert grad is not None, "gradients must stay until the masks have changed"
        count = min(round(share * int(old.sum())), int((~old).sum()))
        kept = old.clone()
        kept[weight.detach().abs().flatten().masked_fill(~old, math.inf).topk(count, largest=False).indices] = False
        grown = grad.abs().flatten().masked_fill(kept, -1.0).topk(count).indices
        for value in (weight, *self._moments(weight)):
            value.masked_fill_(~kept.view(weight.shape), 0.0)
        kept[grown] = True
        return kept.view_as(mask)
