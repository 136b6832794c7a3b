"""What a user should hear of while there is time to stop a run, such as that nothing wakes, or that a layer died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from torch_bregman.distributed.sharded import gathered
from torch_bregman.metrics import named_weights
from torch_bregman.optim import MirrorOptimizer
from torch_bregman.regularizers import NoRegularizer
from torch_bregman.schedulers import Consolidation, waking_scores
from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row
from torch_bregman.train.setup import Parts
from torch_bregman.train.target_recipe import LOW_RANK

_FULL = 0.9
"""Density from which on a regulariser holds hardly anything back."""
_MISSED = 0.98
"""Share of a target below which it counts as missed."""


def remarks(conf: Conf, parts: Parts, row: Row, earlier: Sequence[Row]) -> list[str]:
    """Return what has to be said of an epoch, each thing once a run.

    Args:
        conf: the run.
        parts: after the epoch.
        row: of the log, for the epoch.
        earlier: those before it.
    """
    said = "; ".join(each.get("remarks", "") for each in earlier)
    checks = (_died(row), _asleep(conf, parts, row), _classes(conf, parts, row), _all_awake(conf, row), _short(parts))
    found = [*parts.notes, *(remark for check in checks for remark in check)]
    return [remark for remark in found if remark.split(":")[0].split(",")[0] not in said]


def _died(row: Row) -> Iterator[str]:
    for name, density in row["layer_density"].items():
        if density == 0:
            yield f"{name} has no weight left, so the network computes a constant: lower λ or raise the target"


def _classes(conf: Conf, parts: Parts, row: Row) -> Iterator[str]:
    if parts.task.metric != "accuracy" or row["epoch"] < conf.epochs / 2:
        return  # a sparse start may well leave some out
    last = gathered(list(named_weights(parts.model).values())[-1].detach())
    if last.ndim == 2 and last.any():
        silent = (~last.any(1)).nonzero().flatten().tolist()
        if silent:
            yield f"classes without a live input {silent}: they are told by their bias alone, lower λ"


def _asleep(conf: Conf, parts: Parts, row: Row) -> Iterator[str]:
    """Say so where nothing has woken yet, and at this pace nothing will."""
    frozen = any(isinstance(control, Consolidation) and control.done for control in parts.controls)
    if frozen or not isinstance(parts.optimizer, MirrorOptimizer) or _woken(conf, parts, row):
        return
    score = max((s for s in map(float, _sleeping(parts.optimizer)) if s < 1), default=0.0)
    epoch = row["epoch"]
    if score * conf.epochs < epoch:
        least = conf.regularizer.lam * score * conf.epochs / epoch
        hint = f"lower regularizer.lam below {least:.2g}" if score else "no gradient reaches what sleeps"
        yield f"nothing has woken so far, and at this pace nothing will within {conf.epochs} epochs: {hint}"


def _woken(conf: Conf, parts: Parts, row: Row) -> bool:
    if conf.start.kind == "sparse" and conf.start.view == "elements":
        total = sum(weight.numel() for weight in named_weights(parts.model).values())
        return round(row["density"] * total) > round(conf.start.density * total)
    if conf.start.kind == "low_rank":
        return any(rank > conf.start.rank for rank in row.get("layer_rank", {"": conf.start.rank + 1}).values())
    return True


def _sleeping(optimizer: MirrorOptimizer) -> Iterator[torch.Tensor]:
    """Return the highest score of what sleeps, for each weight."""
    for group in optimizer.param_groups:
        regularizer = group["regularizer"]
        if isinstance(regularizer, NoRegularizer) or not regularizer.deterministic or not group["lam"]:
            continue
        for param in group["params"]:
            scores = gathered(waking_scores(optimizer, param))
            yield torch.where(scores < 1, scores, 0.0).max() if scores.numel() else torch.zeros(())


def _all_awake(conf: Conf, row: Row) -> Iterator[str]:
    held = conf.regularizer.name not in ("none", *LOW_RANK) and conf.regularizer.lam > 0
    grown = conf.start.kind == "sparse" and conf.start.density < _FULL / 2 and not conf.target.asked
    if held and grown and row["density"] > _FULL:
        yield f"hardly anything sleeps, the density is {row['density']:.0%}: raise regularizer.lam, or set a target"


def _short(parts: Parts) -> Iterator[str]:
    """Say so where a frozen network has fewer weights than were asked for."""
    for control in parts.controls:
        if isinstance(control, Consolidation) and control.done:
            asked, left = control.kept()
            if left < _MISSED * asked:
                yield f"the target was missed, {left} of {asked} weights could wake: start with more, or train longer"
