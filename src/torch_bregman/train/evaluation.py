"""Loss and accuracy over a set, in evaluation mode and without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from torch_bregman.data import Batches


@dataclass(frozen=True)
class Score:
    """How well a classifier does.

    Args:
        loss: mean cross-entropy in nats.
        accuracy: share of the images classified correctly, in [0, 1].
    """

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, autocast: torch.dtype | None = None) -> Score:
    """Return mean loss and accuracy; every module is afterwards in the mode it was in before.

    Args:
        model: maps images to logits.
        batches: in order, without augmentation.
        autocast: type for autocast, or None.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        loss, correct = _totals(model, batches, autocast)
    finally:
        for module, training in modes:
            module.training = training
    return Score(loss / len(batches.labels), correct / len(batches.labels))


def _totals(model: nn.Module, batches: Batches, autocast: torch.dtype | None) -> tuple[float, int]:
    loss, correct = 0.0, 0
    for x, y in batches.epoch():
        with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
            logits = model(x)
        loss += float(cross_entropy(logits.float() if autocast else logits, y, reduction="sum"))
        correct += int((logits.argmax(1) == y).sum())
    return loss, correct
