"""From a configuration to what moves λ and the rank cap."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

import torch_bregman.schedulers as schedulers
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.schedulers import Schedule
from torch_bregman.train.conf import Conf
from torch_bregman.train.options import call


def build_schedules(conf: Conf, optimizer: Optimizer) -> list[Schedule]:
    """Return the schedules of λ and of the rank cap, to be advanced once an epoch.

    Raises:
        ValueError: for options that cannot be taken, or an optimizer without λ or without a cap.
    """
    kinds: dict[str, dict[str, Any]] = {
        "lam_schedule": {"plateau": schedulers.LamOnPlateau, "calendar": schedulers.LamSchedule},
        "rank_schedule": {
            "plateau": schedulers.RankOnPlateau,
            "energy": schedulers.RankByEnergy,
            "calendar": schedulers.RankSchedule,
        },
    }
    wanted = {"lam_schedule": conf.lam_schedule, "rank_schedule": conf.rank_schedule}
    return [
        _build(what, part.name, part.options, kinds[what], optimizer, conf.epochs)
        for what, part in wanted.items()
        if part.name is not None
    ]


def _build(
    what: str, name: str, options: dict[str, Any], kinds: dict[str, Any], optimizer: Optimizer, epochs: int
) -> Schedule:
    if not isinstance(optimizer, RegularizedOptimizer):
        raise ValueError(f"{what} needs a Bregman or proximal optimizer, got {type(optimizer).__name__}: leave it out")
    if name in kinds:
        return call(kinds[name], what, optimizer, **options)
    calendar = _calendar(what, name, options, epochs)
    _rehearse(what, calendar, options, epochs)
    return kinds["calendar"](optimizer, calendar)


def _calendar(what: str, name: str, options: dict[str, Any], epochs: int) -> schedulers.Calendar:
    if name != "listed":
        kind = {"linear": schedulers.linear, "cosine": schedulers.cosine}[name]
        return call(kind, what, **{"steps": epochs, **options})
    values = options.get("values")
    if set(options) != {"values"} or not isinstance(values, dict) or not all(isinstance(day, int) for day in values):
        raise ValueError(f"{what}.options of listed must be values by epoch, e.g. {{values: {{0: 8, 10: 16}}}}")
    return schedulers.listed(values)


def _rehearse(what: str, calendar: schedulers.Calendar, options: dict[str, Any], epochs: int) -> None:
    """Read a calendar to its end: what is wrong with options shows when a day is due, hours later maybe."""
    for epoch in range(epochs + 1):
        try:
            value = float(calendar(epoch))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what} cannot take the options {options}: {error}") from None
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{what}.options must give numbers >= 0, got {value} for epoch {epoch}")
