"""The size that a run asks for, and how it gets there. Does not need torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch_bregman.train.checked import Checked, refuse_idle

GOALS = ("density", "units", "rank", "params", "macs", "bytes")
"""Fields of `TargetConf` that ask for a size."""
_USUAL: dict[Literal["ramp_over", "consolidate"], float] = {"ramp_over": 0.5, "consolidate": 0.3}


@dataclass
class TargetConf(Checked):
    """How large the network may be: λ is then found by a controller, and the last steps train what is left.

    A goal up to 1 is a share of the dense network's, above 1 a number. Of several the tightest decides.

    Args:
        density: of weights that are not zero, e.g. 0.02.
        units: of live groups: by default whole units, by what reads them; else the groups of the regulariser, or rows.
        rank: of all weights together; the regulariser is then nuclear.
        params: of numbers that store the weights, low ranks as two factors.
        macs: of multiply-adds an image.
        bytes: of memory for the weights, single ones with an index of 4 bytes.
        scope: global for one λ and the whole network; layer for a λ and the target in each weight, multiply-adds of
            whole units by the same share of units in each, params, macs and bytes of low rank by the same rank; by
            default layer for a share of units, and with convolutions for multiply-adds under outgoing and for low rank,
            where one layer may else lose all; global for all others.
        controller: quantile or feedback; none keeps λ, as proxsgd needs it.
        relaxation: how far λ goes at a time; by default 0.1, for linbreg 0.2, for feedback 0.02.
        every: steps between two looks.
        ramp: how the target gets from `start` to the goal: cubic, linear, log or none.
        start: share of the dense network at which the ramp starts, more or less than the goal; by default the larger of
            0.2 and twice the goal.
        ramp_over: share of all steps that the ramp takes; by default 0.5; 0.4 in cycles, by whole units from a dense
            start, and for adabreg in low rank with convolutions.
        consolidate: share of all steps, the last, for which the network is frozen and trained without regulariser; by
            default 0.3; 0.5 in cycles, by whole units from a dense start, and for adabreg in low rank with
            convolutions.
        consolidate_lr: learning rate they start with, falling to 0; by default half of optim.lr, in cycles all of it;
            with convolutions a tenth for linbreg, twice that for adabreg in low rank.
        warm_up: share of all steps over which the learning rate rises, for adabreg in low rank after the freeze, too;
            by default 0.03 for linbreg and bregman, in cycles at least 50 steps or a tenth, 0.05 for adabreg in low
            rank with convolutions; 0 else.
    """

    density: float | None = None
    units: float | None = None
    rank: float | None = None
    params: float | None = None
    macs: float | None = None
    bytes: float | None = None
    scope: Literal["global", "layer"] | None = None
    controller: Literal["quantile", "feedback", "none"] = "quantile"
    relaxation: float | None = None
    every: int = 10
    ramp: Literal["cubic", "linear", "log", "none"] = "cubic"
    start: float | None = None
    ramp_over: float | None = None
    consolidate: float | None = None
    consolidate_lr: float | None = None
    warm_up: float | None = None

    def check(self) -> None:
        """Check ranges, and that nothing is set without a goal."""
        for name, value in self.goals().items():
            if not value > 0:
                raise ValueError(f"target.{name} must be a number > 0, got {value!r}: 0.05 is 5 %, 5000 a number")
        if self.density is not None and self.density > 1 and self.density != int(self.density):
            raise ValueError(f"target.density must be a share up to 1 or a whole number, got {self.density!r}")
        if not self.asked:
            self.scope = None if self.scope == "global" else self.scope  # as configurations made before 0.1 have it
            usual = {name for name in _USUAL if self.share(name) == _USUAL[name]}
            refuse_idle("target", self, usual, f"no goal (one of {', '.join(GOALS)})")
            self.settle()
        self._check_shares()

    def settle(self) -> None:
        """Give what neither was set nor comes from the recipe its usual value."""
        for name in _USUAL:
            setattr(self, name, self.share(name))
        if self.asked:
            self.scope = self.scope or ("layer" if self.units is not None and self.units <= 1 else "global")

    def share(self, name: Literal["ramp_over", "consolidate"]) -> float:
        """Return a share of all steps, the usual one where it is left open."""
        value = getattr(self, name)
        return _USUAL[name] if value is None else value

    def _check_shares(self) -> None:
        for name in ("ramp_over", "consolidate", "warm_up"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"target.{name} must lie in [0, 1), got {value!r}: a share of all steps")
        if self.relaxation is not None and not 0 < self.relaxation <= 1:
            raise ValueError(f"target.relaxation must lie in (0, 1], got {self.relaxation!r}")
        if self.start is not None and not 0 < self.start <= 1:
            raise ValueError(f"target.start must lie in (0, 1], got {self.start!r}: a share of the dense network")
        if self.every < 1:
            raise ValueError(f"target.every must be a number >= 1, got {self.every!r}: steps between two looks")
        if self.consolidate_lr is not None and not 0 <= self.consolidate_lr < math.inf:
            raise ValueError(f"target.consolidate_lr must be a number >= 0, got {self.consolidate_lr!r}")
        ramp_over, consolidate = self.share("ramp_over"), self.share("consolidate")
        if ramp_over + consolidate > 1:
            raise ValueError(
                f"target.ramp_over {ramp_over:g} and target.consolidate {consolidate:g} are more than all steps: make "
                "one of them smaller"
            )

    def goals(self) -> dict[str, float]:
        """Return the sizes asked for, by name."""
        found = {name: getattr(self, name) for name in GOALS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def asked(self) -> bool:
        """Whether a size is asked for."""
        return bool(self.goals())


OUTGOING = "outgoing"
"""Name of the regulariser that is a group norm on all that reads a unit."""
_MANY = 0.05
"""Density from which on a network is so large that it fits its data too well."""
_DEAR = 0.03
"""Density from which on a coarse step costs as much as a fifth of what a fine one adds to it."""
LOW_RANK = ("nuclear", "dynamic_rank_nuclear")
_RATES = {"linbreg": 0.1, "adabreg": 0.01}
_CONVOLUTIONAL = ("convnet", "lenet5_caffe", "resnet")
_RATES_LOW_RANK = {"linbreg": 0.05, "adabreg": 0.003}
_SLOWER = {("linbreg", False): 0.02, ("linbreg", True): 0.005}
"""With convolutions, in low rank or not: a weight that is used at many positions has a larger gradient."""
_BY_UNITS = 0.005
"""Of AdaBreg with convolutions by whole units, whose incoming weights are dense and free."""
EARLY = {"ramp_over": 0.4, "consolidate": 0.5}
"""A target that leaves half of the steps to what is frozen."""
_LIKE_WEIGHTS = 0.01
"""λ of a dense start by whole units, as large as its weights.

From one ten times as large, a move of λ by a tenth shortens weights as much as they are long.
"""
_GENTLY = 0.05
"""Warm-up of AdaBreg in low rank with convolutions: steps as long as the rate in every entry shut filters off."""
_WEIGHTED = 2e-4
"""λ at the start where it is multiplied by √(mn): what 0.1 is to a matrix of a quarter of a million entries."""


def with_recipe(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration that asks for a size, with what has proved itself where a field is missing.

    AdaBreg with learning rate 0.01 (0.005 and weight decay 0.1, with convolutions 1e-4, from a density of 5 % on; 0.003
    for low rank), or, if it is asked for, LinBreg with 0.1 (0.05 for low rank; with convolutions 0.02 and 0.005, and a
    tenth of that after the freeze) and Nesterov momentum; a start at the density at which the ramp starts, at rank 4,
    or dense for whole units, whose incoming weights have no regulariser.

    From a dense start by whole units λ starts at 0.01, the network is frozen after half of the steps, and AdaBreg has
    learning rate 0.005 with convolutions. With those, multiply-adds are met by the same share of units in each layer:
    one λ for all would leave a convolution one filter beside hundreds of units.

    In low rank with convolutions the nuclear norm is weighted, for one λ for all directions would leave a small
    convolution none beside a large linear layer, and AdaBreg freezes after half of the steps, to train factors alone
    with twice the learning rate, which rises over 5 % of the steps at the start and after the freeze.

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
    low_rank = regularizer.get("name") in LOW_RANK
    model = plain.get("model", {})
    convolutional = isinstance(model, dict) and model.get("name") in _CONVOLUTIONAL
    cycles = regularizer.get("name", "l1") == "l1" and bool(_coarse_steps(optim))
    if cycles and optim.get("name", "linbreg") == "linbreg" and not convolutional:
        optim.setdefault("lr", 0.2)
    if convolutional and (low_rank or regularizer.get("name") == OUTGOING):
        target = _in_all_layers(target, low_rank, plain.get("rules", {}))
    by_units = regularizer.get("name") == OUTGOING and start.setdefault("kind", "dense") == "dense"
    if by_units and not _coarse_steps(optim):
        target = _by_units(regularizer, optim, convolutional, target)
    _move(optim, low_rank, convolutional, target.get("density"))
    if cycles:
        regularizer.setdefault("lam", 0.003)
        optim["multilevel"] = {"m_start": 1, "m_over": _growing(target.get("density")), **optim["multilevel"]}
        target = _early(target, None if convolutional else optim.get("lr"))
    if convolutional and optim["name"] == "linbreg":
        target = {**_after_freeze(0.1, optim), **target}
    if low_rank and convolutional:
        _weigh(regularizer)
        if optim["name"] == "adabreg":
            target = {**EARLY, **_after_freeze(2.0, optim), "warm_up": _GENTLY, **target}
    _begin(start, target, low_rank)
    return {**plain, "optim": optim, "regularizer": regularizer, "start": start, "target": target}


def _name_norm(regularizer: dict[str, Any], target: dict[str, Any]) -> None:
    if target.get("rank") is not None:
        regularizer.setdefault("name", "nuclear")
    if target.get("units") is not None:
        regularizer.setdefault("name", OUTGOING)


def _in_all_layers(target: dict[str, Any], low_rank: bool, rules: Any) -> dict[str, Any]:
    """Return a target of cost that all layers meet alike, where it is all that is asked, and no layer has another norm.

    Convolutions are used at many positions, their levels rise otherwise than those of linear layers.
    """
    goals = ("params", "macs", "bytes") if low_rank else ("macs",)
    beside = rules.values() if isinstance(rules, dict) else [None]
    alike = all(isinstance(rule, dict) and rule.get("name") == "none" for rule in beside)
    asked = [goal for goal in GOALS if target.get(goal) is not None]
    return {"scope": "layer", **target} if alike and len(asked) == 1 and asked[0] in goals else target


def _by_units(
    regularizer: dict[str, Any], optim: dict[str, Any], convolutional: bool, target: dict[str, Any]
) -> dict[str, Any]:
    """Return the target of a dense start by whole units, with an early freeze."""
    regularizer.setdefault("lam", _LIKE_WEIGHTS)
    if convolutional and optim.get("name", "adabreg") == "adabreg":
        optim.setdefault("lr", _BY_UNITS)
    return {**EARLY, **target}


def _move(optim: dict[str, Any], low_rank: bool, convolutional: bool, density: Any) -> None:
    in_cycles = _coarse_steps(optim) is not None  # for plain dual steps only
    name = optim.setdefault("name", "linbreg" if in_cycles else "adabreg")
    if name == "adabreg" and isinstance(density, (int, float)) and _MANY <= density <= 1 and "lr" not in optim:
        optim.update({"lr": 0.005, "weight_decay": 1e-4 if convolutional or low_rank else 0.1, **optim})
    rates = _RATES_LOW_RANK if low_rank else _RATES
    if name in rates:
        optim.setdefault("lr", _SLOWER.get((name, low_rank), rates[name]) if convolutional else rates[name])
    if name == "linbreg" and not {"momentum", "dampening", "nesterov", "accelerated"} & optim.keys():
        optim.update(momentum=0.9, nesterov=True)


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


def _begin(start: dict[str, Any], target: dict[str, Any], low_rank: bool) -> None:
    kind = start.setdefault("kind", "low_rank" if low_rank else "sparse")
    if kind == "sparse" and "density" not in start:
        goal, share = target.get("density"), target.get("start")
        known = isinstance(share, (int, float)) and 0 < share <= 1
        start["density"] = share if known else ramp_start(goal if isinstance(goal, (int, float)) else 0.0)


def ramp_start(goal: float) -> float:
    """Return the share of the dense network at which a ramp to a goal starts: max(0.2, 2·goal), at most 1.

    Example:
        >>> ramp_start(0.01), ramp_start(0.25), ramp_start(0.7)
        (0.2, 0.5, 1.0)
    """
    return min(max(0.2, 2 * goal), 1.0) if goal <= 1 else 0.2
