"""Loss and metric over a set, in evaluation mode and without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from torch_bregman.data import Batches
from torch_bregman.train.task import CLASSIFICATION, Task


@dataclass(frozen=True)
class Score:
    """How well a classifier does.

    Args:
        loss: mean cross-entropy in nats.
        accuracy: share of the images classified correctly, in [0, 1].
    """

    loss: float
    accuracy: float


def evaluate(model: nn.Module, batches: Batches, autocast: torch.dtype | None = None) -> Score:
    """Return mean loss and accuracy; every module is afterwards in the mode it was in before.

    Args:
        model: maps images to logits.
        batches: in order, without augmentation.
        autocast: type for autocast, or None.
    """
    return Score(*judge(model, batches, CLASSIFICATION, autocast))


@torch.no_grad()
def judge(model: nn.Module, batches: Batches, task: Task, autocast: torch.dtype | None = None) -> tuple[float, float]:
    """Return mean loss and metric; every module is afterwards in the mode it was in before.

    Args:
        model: maps images to what the task compares.
        batches: in order, without augmentation.
        task: what is asked of the model.
        autocast: type for autocast, or None.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        loss, metric = _totals(model, batches, task, autocast)
    finally:
        for module, training in modes:
            module.training = training
    return loss / len(batches.labels), metric / len(batches.labels)


def _totals(model: nn.Module, batches: Batches, task: Task, autocast: torch.dtype | None) -> tuple[float, float]:
    loss, metric = 0.0, 0.0
    for x, y in batches.epoch():
        with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(x)
        outputs = outputs.float() if autocast else outputs
        loss += float(task.loss(outputs, y)) * len(y)
        metric += float(task.judged(outputs, y))
    return loss, metric
