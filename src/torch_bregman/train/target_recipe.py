"""The recipe for a size that is asked for: what has proved itself, for what is left open. Does not need torch."""

from __future__ import annotations

from typing import Any

from torch_bregman.train.target_conf import GOALS, ramp_start

OUTGOING = "outgoing"
"""Name of the regulariser that is a group norm on all that reads a unit."""
_MANY = 0.05
"""Density from which on a network is so large that it fits its data too well."""
_DEAR = 0.03
"""Density from which on a coarse step costs as much as a fifth of what a fine one adds to it."""
LOW_RANK = ("nuclear", "dynamic_rank_nuclear")
_CONVOLUTIONAL = ("convnet", "lenet5_caffe", "resnet")
_RATES = {
    ("linbreg", "weights"): (0.1, 0.02),
    ("linbreg", "units"): (0.1, 0.02),
    ("linbreg", "low rank"): (0.05, 0.005),
    ("adabreg", "weights"): (0.01, 0.02),
    ("adabreg", "units"): (0.01, 0.005),
    ("adabreg", "low rank"): (0.003, 0.003),
}
"""By optimizer and what sleeps, without convolutions and with them.

A weight that is used at many positions has a larger gradient, so that LinBreg is slower there. AdaBreg, whose rate
rises, stands and wants a higher one; not by whole units, whose incoming weights are dense and free."""
EARLY = {"ramp_over": 0.4, "consolidate": 0.5}
"""A target that leaves half of the steps to what is frozen."""
_BY_LAYER = {"low rank": ("params", "macs", "bytes"), "units": ("macs",)}
"""Goals that all layers meet alike with convolutions, by what sleeps."""
_LIKE_WEIGHTS = 0.01
"""λ of a dense start by whole units, as large as its weights.

From one ten times as large, a move of λ by a tenth shortens weights as much as they are long.
"""
_GENTLY = 0.05
"""Warm-up of AdaBreg with convolutions: first steps are as long as the rate in every entry, and shut filters off."""
_WEIGHTED = 2e-4
"""λ at the start where it is multiplied by √(mn): what 0.1 is to a matrix of a quarter of a million entries."""


def with_recipe(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration that asks for a size, with what has proved itself where a field is missing.

    AdaBreg with learning rate 0.01 (with convolutions 0.02; for low rank 0.003), from a density of 5 % on with weight
    decay 0.1 and, without convolutions, 0.005; or, if it is asked for, LinBreg with 0.1 (0.05 for low rank; with
    convolutions 0.02 and 0.005, and a tenth of that after the freeze) and Nesterov momentum; a start at the density at
    which the ramp starts, at rank 4, or dense for whole units, whose incoming weights have no regulariser.

    By whole units AdaBreg has learning rate 0.005 with convolutions; from a dense start λ starts at 0.01 and the freeze
    comes after half of the steps. With convolutions multiply-adds are met by the same share of units in each layer: one
    λ for all would leave a convolution one filter beside hundreds of units.

    With convolutions AdaBreg's learning rate rises over the first 5 % of the steps, but for whole units. In low rank
    the nuclear norm is then weighted, for one λ for all directions would leave a small convolution none beside a large
    linear layer, and AdaBreg freezes after half of the steps, to train factors alone with twice the learning rate,
    which rises over 5 % of the steps after the freeze, too.

    In cycles under ℓ1 the learning rate is 0.2, λ starts at 0.003, for what sleeps moves once a cycle, cycles are short
    at first and grow until the freeze after half of the steps, to m, from a density of 3 % on to 0.7 of it; the same
    rate goes on then. The target falls linearly from 1.4 times the goal over 40 %: a large network at the start would
    cost what the cycles save.

    Example:
        >>> with_recipe({"target": {"density": 0.02}})["optim"]
        {'name': 'adabreg', 'lr': 0.01}
    """
    target = plain.get("target")
    if not isinstance(target, dict) or all(target.get(goal) is None for goal in GOALS):
        return plain
    parts = ("optim", "regularizer", "start")
    if not all(isinstance(plain.get(part, {}), dict) for part in parts):
        return plain  # built in code, or not a mapping, which is refused elsewhere
    optim, regularizer, start = ({**plain.get(part, {})} for part in parts)
    _name_norm(regularizer, target)
    sleeping = _what_sleeps(regularizer)
    model = plain.get("model", {})
    convolutional = isinstance(model, dict) and model.get("name") in _CONVOLUTIONAL
    cycles = regularizer.get("name", "l1") == "l1" and bool(_coarse_steps(optim))
    if cycles and optim.get("name", "linbreg") == "linbreg" and not convolutional:
        optim.setdefault("lr", 0.2)
    by_units = sleeping == "units" and start.setdefault("kind", "dense") == "dense"
    if by_units and not _coarse_steps(optim):
        regularizer.setdefault("lam", _LIKE_WEIGHTS)
        target = {**EARLY, **target}
    _move(optim, sleeping, convolutional, target.get("density"))
    if cycles:
        regularizer.setdefault("lam", 0.003)
        optim["multilevel"] = {"m_start": 1, "m_over": _growing(target.get("density")), **optim["multilevel"]}
        target = _early(target, None if convolutional else optim.get("lr"))
    if convolutional:
        if sleeping == "low rank":
            _weigh(regularizer)
        target = _in_all_layers(target, sleeping, plain.get("rules", {}))
        target = {**_for_convolutions(optim, sleeping), **target}
    _begin(start, target, sleeping)
    return {**plain, "optim": optim, "regularizer": regularizer, "start": start, "target": target}


def _name_norm(regularizer: dict[str, Any], target: dict[str, Any]) -> None:
    if target.get("rank") is not None:
        regularizer.setdefault("name", "nuclear")
    if target.get("units") is not None:
        regularizer.setdefault("name", OUTGOING)


def _what_sleeps(regularizer: dict[str, Any]) -> str:
    """Return what a norm makes sleep, as the tables of the recipe have it; weights also for groups of them."""
    name = regularizer.get("name")
    return "low rank" if name in LOW_RANK else "units" if name == OUTGOING else "weights"


def _in_all_layers(target: dict[str, Any], sleeping: str, rules: Any) -> dict[str, Any]:
    """Return a target of cost that all layers meet alike, where it is all that is asked, and no layer has another norm.

    Convolutions are used at many positions, their levels rise otherwise than those of linear layers.
    """
    goals = _BY_LAYER.get(sleeping, ())
    beside = rules.values() if isinstance(rules, dict) else [None]
    alike = all(isinstance(rule, dict) and rule.get("name") == "none" for rule in beside)
    asked = [goal for goal in GOALS if target.get(goal) is not None]
    return {"scope": "layer", **target} if alike and len(asked) == 1 and asked[0] in goals else target


def _move(optim: dict[str, Any], sleeping: str, convolutional: bool, density: Any) -> None:
    in_cycles = _coarse_steps(optim) is not None  # for plain dual steps only
    name = optim.setdefault("name", "linbreg" if in_cycles else "adabreg")
    if name == "adabreg" and isinstance(density, (int, float)) and _MANY <= density <= 1 and "lr" not in optim:
        rate = {} if convolutional else {"lr": 0.005}
        optim.update({**rate, "weight_decay": 0.1, **optim})
    if (name, sleeping) in _RATES:
        optim.setdefault("lr", _RATES[name, sleeping][convolutional])
    if name == "linbreg" and not {"momentum", "dampening", "nesterov", "accelerated"} & optim.keys():
        optim.update(momentum=0.9, nesterov=True)


def _for_convolutions(optim: dict[str, Any], sleeping: str) -> dict[str, float]:
    """Return fields of a target: how the rate begins, when the network is frozen, and the rate then."""
    if optim["name"] == "linbreg":
        return _after_freeze(0.1, optim)
    if optim["name"] != "adabreg" or sleeping == "units":
        return {}
    return {"warm_up": _GENTLY, **({**EARLY, **_after_freeze(2.0, optim)} if sleeping == "low rank" else {})}


def _after_freeze(times: float, optim: dict[str, Any]) -> dict[str, float]:
    """Return the learning rate after the freeze, so many times that before it."""
    return {"consolidate_lr": times * optim["lr"]} if isinstance(optim.get("lr"), (int, float)) else {}


def _weigh(regularizer: dict[str, Any]) -> None:
    """Let weights of different sizes share λ, unless that was decided, or λ is known."""
    options = regularizer.get("options", {})
    if "lam" not in regularizer and isinstance(options, dict) and "weighted" not in options:
        regularizer.update(lam=_WEIGHTED, options={**options, "weighted": True})


def _growing(density: Any) -> float:
    """Return over which share of the steps cycles grow: the dearer coarse steps are, the less more fine ones cost."""
    return 0.7 if isinstance(density, (int, float)) and _DEAR <= density <= 1 else 0.5


def _early(target: dict[str, Any], rate: Any) -> dict[str, Any]:
    """Return a target of density that is reached early: full gradients count while the support is looked for."""
    if not isinstance(goal := target.get("density"), (int, float)) or goal > 1:
        return target
    after = {"consolidate_lr": rate} if isinstance(rate, (int, float)) else {}
    early = {"ramp": "linear", "start": min(1.4 * goal, 1.0), **EARLY}
    return {**early, **after, **target}


def _coarse_steps(optim: dict[str, Any]) -> Any:
    """Return what was set for the coarse steps of a cycle, None where nothing was."""
    cycles = optim.get("multilevel")
    return cycles.get("m") if isinstance(cycles, dict) else None


def _begin(start: dict[str, Any], target: dict[str, Any], sleeping: str) -> None:
    kind = start.setdefault("kind", "low_rank" if sleeping == "low rank" else "sparse")
    if kind == "sparse" and "density" not in start:
        goal, share = target.get("density"), target.get("start")
        known = isinstance(share, (int, float)) and 0 < share <= 1
        start["density"] = share if known else ramp_start(goal if isinstance(goal, (int, float)) else 0.0)
