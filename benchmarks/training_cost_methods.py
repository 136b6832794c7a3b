"""The networks and methods of `training_cost.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch_bregman as tb
from torch_bregman.train.targets import frozen_from

BATCH, M = 128, 25
SETS = ("mnist", "fashion-mnist")
COSINE = {"name": "CosineAnnealingLR", "every": "step"}
FREE = {"name": "none", "lam": 0.0}
SPARSE = {"below": 0.12, "compiled": True}
DENSE: dict[str, Any] = {
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "regularizer": FREE,
    "start": {"kind": "dense"},
    "schedule": COSINE,
}


def weights(goal: float, cycles: bool) -> dict[str, Any]:
    """A share of the weights by the recipe in cycles; with the same settings without."""
    if cycles:
        return {"optim": {"name": "linbreg", "multilevel": {"m": M, **SPARSE}}, "target": {"density": goal}}
    early = {"ramp_over": 0.4, "consolidate": 0.5, "consolidate_lr": 0.2}
    target = {"density": goal, "start": 1.4 * goal, "ramp": "linear", **early}
    return {"optim": {"name": "linbreg", "lr": 0.2}, "regularizer": {"lam": 0.003}, "target": target}


def units(goal: float, cycles: bool, lr: float | None = None) -> dict[str, Any]:
    """A network held at a share of its units from the start, and frozen for the last 30 % of all steps."""
    optim = {"name": "linbreg", **({"multilevel": {"m": M}} if cycles else {})}
    target: dict[str, Any] = {"units": goal, "ramp": "none"}
    if lr is not None:
        optim, target = {**optim, "lr": lr}, {**target, "consolidate_lr": lr}
    return {"optim": optim, "target": target, "start": {"kind": "units", "density": goal}}


def first_filters(goal: float) -> dict[str, Any]:
    """A share of the first filters alone, which have the largest images; nothing is frozen at the end."""
    target = {"units": goal, "ramp": "none", "consolidate": 0.0}
    return {**units(goal, True, 0.05), "target": target, "rules": {"classifier": FREE}}


def grown(lam: float) -> dict[str, Any]:
    """A network that grows from 1 % under a fixed λ, its last layer dense."""
    return {
        "optim": {
            "name": "linbreg",
            "lr": 0.05,
            "momentum": 0.9,
            "multilevel": {"m": M, **SPARSE},
        },
        "regularizer": {"name": "l1", "lam": lam},
        "rules": {"fc3": FREE},
        "start": {"kind": "sparse", "density": 0.01},
        "schedule": COSINE,
    }


def mlp(*hidden: int) -> dict[str, Any]:
    return {"name": "mlp", "hidden": list(hidden)}


WEIGHTS: dict[str, dict[str, Any]] = {
    "dense SGD": DENSE,
    "LinBreg, 5 %": weights(0.05, False),
    "multilevel, 5 %": weights(0.05, True),
    "LinBreg, 1.5 %": weights(0.015, False),
    "multilevel, 1.5 %": weights(0.015, True),
    "multilevel, from 1 % up": grown(0.02),
}
UNITS: dict[str, dict[str, Any]] = {
    "LinBreg, 20 % of units": units(0.2, False),
    "multilevel, 20 % of units": units(0.2, True),
    "multilevel, 10 % of units": units(0.1, True),
}
NETS: dict[str, dict[str, Any]] = {
    "mlp-1024": {
        "model": mlp(1024, 1024),
        "epochs": 5,
        "methods": {**WEIGHTS, **UNITS, "small dense, 5 % of the weights": {**DENSE, "model": mlp(104, 104)}},
    },
    "mlp-4096": {
        "model": mlp(4096, 4096),
        "epochs": 1,
        "methods": {"dense SGD": DENSE, "multilevel, 1 %": weights(0.01, True)},
    },
    "mlp-200-80": {
        "model": mlp(200, 80),
        "epochs": 5,
        "methods": {name: WEIGHTS[name] for name in ("dense SGD", "LinBreg, 5 %", "multilevel, 5 %")},
    },
    "convnet": {
        "model": {"name": "convnet"},
        "channels_last": True,  # the faster order for all methods
        "epochs": 3,
        "methods": {
            "dense SGD": DENSE,
            "LinBreg, 50 % of units": units(0.5, False, 0.05),
            "multilevel, 50 % of units": units(0.5, True, 0.05),
            "multilevel, 25 % of the first filters": first_filters(0.25),
        },
    },
}


def still(run: tb.Conf) -> tb.Conf:
    """Return a run that stays, in cycles of m, at the mean size of one whose target falls over a part of it."""
    plain = run.to_dict()
    if run.target.ramp == "linear" and run.target.density:
        goal, over = run.target.density, run.target.share("ramp_over")
        mean = goal + over / 2 * ((run.target.start or goal) - goal)
        plain["target"].update(density=mean, ramp="none", start=None)
        plain["start"]["density"] = mean
    if run.optim.multilevel.m_start:
        plain["optim"]["multilevel"]["m_start"] = run.optim.multilevel.m
    return tb.Conf.from_dict(plain)


def fine_share(run: tb.Conf) -> float:
    """Return the share of fine steps in a run; there are none after the freeze."""
    cycles, total = run.optim.multilevel, run.epochs * -(-60000 // BATCH)
    if not cycles.m:
        return 0.0
    first = cycles.m if cycles.m_start is None else cycles.m_start
    length = tb.schedulers.linear(first, cycles.m, max(1, round(cycles.m_over * total)))
    until = total if not run.target.asked else frozen_from(run, total)
    phase = count = 0
    for step in range(until):
        fine = phase >= round(length(step))
        phase, count = (0, count + 1) if fine else (phase + 1, count)
    return count / total


def conf(net: str, method: str, name: str, data: Path, seed: int, out: str) -> tb.Conf:
    """Return the run of a row."""
    own = NETS[net]
    plain = {
        "name": "run",
        "seed": seed,
        "epochs": own["epochs"],
        "out": out,
        "threads": 1,
        "channels_last": own.get("channels_last", False),
        "model": own["model"],
        "data": {"name": name, "dir": str(data / name), "batch_size": BATCH, "validation": 0.0},
        **own["methods"][method],
    }
    return tb.Conf.from_dict(plain)
