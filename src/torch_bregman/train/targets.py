"""From the size that a configuration asks for to what steers λ, freezes the network and sets the learning rate."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

import torch_bregman.schedulers as schedulers
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.schedulers import Consolidation, Schedule, Size, SizeControl
from torch_bregman.train.conf import Conf
from torch_bregman.train.target_conf import ramp_start
from torch_bregman.train.target_recipe import LOW_RANK, OUTGOING

_KINDS = {
    "density": schedulers.Density,
    "units": schedulers.Units,
    "rank": schedulers.Rank,
    "params": schedulers.Parameters,
    "bytes": schedulers.Bytes,
}


def build_controls(conf: Conf, optimizer: Optimizer, model: nn.Module, image: Tensor, steps: int) -> list[Schedule]:
    """Return what is to be advanced after each step: the controller of λ, and the consolidation.

    Args:
        conf: the run.
        optimizer: of the run.
        model: of the run, to count multiply-adds.
        image: a batch of one.
        steps: batches an epoch.

    Raises:
        ValueError: for an optimizer without λ, or targets that cannot be met.
    """
    target = conf.target
    if not target.asked:
        return []
    if not isinstance(optimizer, RegularizedOptimizer):
        raise ValueError(f"target needs a Bregman or proximal optimizer, got {conf.optim.name}: use adabreg or linbreg")
    sizes = [_size(name, goal, conf, model, image) for name, goal in target.goals().items()]
    total = conf.epochs * steps
    scope = "group" if target.scope == "layer" else "global"
    found: list[Schedule] = []
    if target.controller != "none":
        found.append(_controller(conf, optimizer, sizes, total))
    if target.consolidate:
        at = max(1, frozen_from(conf, total))
        found.append(Consolidation(optimizer, *sizes, at=at, scope=scope))
    return found


def build_rates(conf: Conf, optimizer: Optimizer, steps: int) -> Any:
    """Return the learning rate of a run with a target: by cosine to a tenth, after the freeze by cosine to 0.

    It rises where moments start, for their first steps are as long as the rate in every entry: at the start, and again
    where the freeze starts those of factors anew.

    Args:
        conf: the run.
        optimizer: of the run.
        steps: batches an epoch.
    """
    total = conf.epochs * steps
    end = frozen_from(conf, total)
    lr = conf.optim.lr or 0.0
    after = 0.5 if conf.target.consolidate_lr is None else conf.target.consolidate_lr / lr if lr else 0.0
    warm = _warm_up(conf, total)
    again = warm if conf.optim.name == "adabreg" and conf.regularizer.name in LOW_RANK else 0.0

    def factor(step: int) -> float:
        if step >= end:
            return _rising(step - end, again) * after * _falling((step - end) / max(total - end, 1))
        return _rising(step, warm) * (0.1 + 0.9 * _falling(step / end))

    return lr_scheduler.LambdaLR(optimizer, factor)


def _warm_up(conf: Conf, total: int) -> float:
    """Return over how many steps the rate rises; in cycles, whose rate is larger, not over a few of a short run."""
    if conf.target.warm_up is not None:
        return conf.target.warm_up * total
    if conf.optim.name not in ("linbreg", "bregman"):
        return 0.0
    return max(0.03 * total, min(50.0, 0.1 * total) if conf.optim.multilevel.m else 0.0)


def frozen_from(conf: Conf, total: int) -> int:
    """Return the number of steps before the freeze."""
    return round(total * (1 - conf.target.share("consolidate")))


def _rising(step: int, warm: float) -> float:
    return min((step + 1) / warm, 1.0) if warm else 1.0


def _falling(share: float) -> float:
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _size(name: str, goal: float, conf: Conf, model: nn.Module, image: Tensor) -> Size:
    if name in _KINDS:
        return _KINDS[name](goal)
    if conf.regularizer.name == OUTGOING and all(rule.name == "none" for rule in conf.rules.values()):
        return schedulers.UnitMultiplyAdds.of(model, image, goal)
    return schedulers.MultiplyAdds(goal, schedulers.used(model, image))


def _controller(conf: Conf, optimizer: RegularizedOptimizer, sizes: list[Size], total: int) -> SizeControl:
    target = conf.target
    kind = {"quantile": schedulers.LamByQuantile, "feedback": schedulers.LamByFeedback}[target.controller]
    usual = 0.02 if target.controller == "feedback" else 0.2 if conf.optim.name == "linbreg" else 0.1
    control = kind(
        optimizer,
        *sizes,
        relaxation=usual if target.relaxation is None else target.relaxation,
        every=target.every,
        scope="group" if target.scope == "layer" else "global",
    )
    control.ramp = _ramp(conf, control, total)
    return control


def _ramp(conf: Conf, control: SizeControl, total: int) -> schedulers.Calendar | None:
    """Return what the goals are multiplied by: at first the share at which the ramp starts over the tightest goal."""
    target = conf.target
    if target.ramp == "none":
        return None
    watched = control.watched[0]
    goal = min(size.budget(whole) / whole for size, whole in zip(watched.sizes, watched.wholes, strict=True))
    first = (ramp_start(goal) if target.start is None else target.start) / goal
    steps = max(1, round(total * target.share("ramp_over")))
    kind = {"cubic": schedulers.cubic, "linear": schedulers.linear, "log": schedulers.geometric}[target.ramp]
    return kind(first, 1.0, steps)
