"""Loss and metric over a set, in evaluation mode and without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from torch_bregman.data import Batches
from torch_bregman.distributed.processes import rank, size, total
from torch_bregman.distributed.shares import shares
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
def judge(
    model: nn.Module, batches: Batches, task: Task, autocast: torch.dtype | None = None, *, shared: bool = False
) -> tuple[float, float]:
    """Return mean loss and metric; every module is afterwards in the mode it was in before.

    Args:
        model: maps images to what the task compares.
        batches: in order, without augmentation.
        task: what is asked of the model.
        autocast: type for autocast, or None.
        shared: whether all processes call this, and each takes its part of every batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        loss, metric = _totals(model, batches, task, autocast, shared=shared)
    finally:
        for module, training in modes:
            module.training = training
    return loss / len(batches.labels), metric / len(batches.labels)


def _totals(
    model: nn.Module, batches: Batches, task: Task, autocast: torch.dtype | None, *, shared: bool
) -> tuple[float, float]:
    loss, metric = 0.0, 0.0
    number, of = (rank(), size()) if shared else (0, 1)
    for x, y in batches.epoch():
        for part in shares(x, y, number, of):
            with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
                outputs = model(part.x)
            outputs = outputs.float() if autocast else outputs
            if part.own:
                loss += float(task.loss(outputs, part.y)) * part.own
                metric += float(task.judged(outputs, part.y))
    if of == 1:
        return loss, metric
    both = total(torch.tensor([loss, metric], dtype=torch.float64, device=batches.labels.device)).tolist()
    return both[0], both[1]
