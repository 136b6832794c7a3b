"""Train, cut once, train on: after plain training, under an ℓ1 penalty, or by proximal steps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import softshrink
from torch.optim import Optimizer

from torch_bregman.experiments.baselines.magnitude import largest
from torch_bregman.experiments.baselines.masked import Masked


class OneShotPruning(Masked):
    """Keeps the largest |θ| of all weights together at one step; what is left is fine-tuned.

    Args:
        model: dense at the start.
        optimizer: any.
        density: of what is kept, in (0, 1].
        steps: of the whole training.
        at: share of the steps after which it is cut, default 0.5.

    References:
        Han, Pool, Tran, Dally 2015; learning rates as in Renda, Frankle, Carbin 2020 by `two_phases`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, density: float, steps: int, *, at: float = 0.5) -> None:
        super().__init__(model, optimizer)
        self.density, self.at = density, max(1, round(at * steps))

    def _change(self) -> None:
        if self.steps == self.at:
            self.masks = largest(self.weights, self.density)


class ProximalPruning(OneShotPruning):
    """Soft thresholding by lr·λ after every step of any optimizer, then the cut; what is left trains without it.

    With SGD this is proximal SGD; with Adam, Adam with a proximal step that is not scaled as Adam scales gradients. The
    end, exactly so many weights without regulariser, is that of Bregman methods with a target.

    Args:
        model: dense at the start.
        optimizer: any.
        density: of what is kept, in (0, 1].
        steps: of the whole training.
        lam: λ ≥ 0.
        at: share of the steps after which it is cut, default 0.7.

    References:
        Rosasco, Villa, Vũ 2014 (proximal SGD); Melchior, Joseph, Moolekamp 2019 (proximal Adam).
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, density: float, steps: int, lam: float, *, at: float = 0.7
    ) -> None:
        super().__init__(model, optimizer, density, steps, at=at)
        self.lam = lam

    def _change(self) -> None:
        if self.steps <= self.at:
            rates = {
                id(param): float(group["lr"]) for group in self.optimizer.param_groups for param in group["params"]
            }
            for weight in self.weights:
                weight.copy_(softshrink(weight, rates[id(weight)] * self.lam))
        super()._change()


class LassoPruning(OneShotPruning):
    """An ℓ1 penalty λ·Σ|θ| in the loss up to the cut, by its subgradient λ·sign(θ); then without.

    Args:
        model: dense at the start.
        optimizer: any.
        density: of what is kept, in (0, 1].
        steps: of the whole training.
        lam: λ ≥ 0.
        at: share of the steps after which it is cut, default 0.7.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, density: float, steps: int, lam: float, *, at: float = 0.7
    ) -> None:
        super().__init__(model, optimizer, density, steps, at=at)
        self.lam = lam
        for weight in self.weights:
            weight.register_hook(lambda grad, weight=weight: self._penalised(grad, weight))

    def _penalised(self, grad: Tensor, weight: Tensor) -> Tensor:
        return grad + self.lam * weight.detach().sign() if self.steps < self.at else grad
