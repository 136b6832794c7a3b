"""Weights under masks that change now and then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.metrics import named_weights


class Masked(ABC):
    """Keeps the weights of a model, and the momentum of its optimizer, at zero off their masks; `step` after each step.

    Args:
        model: its parameters with 2 or more dimensions are masked.
        optimizer: what moves them.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.weights, self.optimizer, self.steps = list(named_weights(model).values()), optimizer, 0
        self.masks = [torch.ones_like(weight, dtype=torch.bool) for weight in self.weights]
        self._applied: list[tuple[Tensor, Tensor | None]] = []

    @torch.no_grad()
    def step(self) -> None:
        """Change the masks where that is due, and apply them."""
        self.steps += 1
        self._change()
        self._apply()

    @abstractmethod
    def _change(self) -> None:
        """Change the masks where that is due at `self.steps`."""

    def _apply(self) -> None:
        for weight, factor in zip(self.weights, self._factors(), strict=True):
            if factor is not None:
                for value in (weight, *self._moments(weight)):
                    value.mul_(factor)

    def _factors(self) -> list[Tensor | None]:
        """Return the masks as numbers, nine times as fast to multiply by; None where nothing is masked."""
        known = len(self._applied) == len(self.masks)
        if not known or any(a is not mask for (a, _), mask in zip(self._applied, self.masks, strict=True)):
            self._applied = [
                (mask, None if bool(mask.all()) else mask.to(weight.dtype))
                for weight, mask in zip(self.weights, self.masks, strict=True)
            ]
        return [factor for _, factor in self._applied]

    def _moments(self, weight: Tensor) -> Iterator[Tensor]:
        """Yield what the optimizer remembers of each entry."""
        for value in self.optimizer.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                yield value

    def state_dict(self) -> dict[str, Any]:
        """Return steps and masks."""
        return {"steps": self.steps, "masks": {str(i): mask for i, mask in enumerate(self.masks)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.steps = state_dict["steps"]
        for i, mask in enumerate(self.masks):
            mask.copy_(state_dict["masks"][str(i)])
        self._applied = []
