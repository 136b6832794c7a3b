"""The methods of the frontier: what each is trained by, which settings are tried, and how it comes to its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch_bregman.experiments.recipe import SCALES, Changes, Variant
from torch_bregman.train import Conf

Controls = Callable[[Conf, Any], list[Any]]
"""From a run's parts to what is advanced after every step."""


@dataclass(frozen=True)
class Setting:
    """What is tuned.

    Args:
        lr: learning rate.
        weight_decay: as the optimizer takes it.
        lam: λ of methods that bring a regulariser of their own.
        freeze: share of the steps after which the network is frozen, else the recipe's.
    """

    lr: float
    weight_decay: float = 0.0
    lam: float | None = None
    freeze: float | None = None

    @property
    def name(self) -> str:
        """For the names of variants, e.g. 0.1-0.0005."""
        return f"{self.lr:g}-{self._second[1]:g}"

    @property
    def label(self) -> str:
        """In words."""
        return "lr = {:g}, {} = {:g}".format(self.lr, *self._second)

    @property
    def _second(self) -> tuple[str, float]:
        if self.freeze is not None:
            return "frozen at", self.freeze
        return ("weight decay", self.weight_decay) if self.lam is None else ("λ", self.lam)


@dataclass(frozen=True)
class Method:
    """One way to a network of a given size.

    Args:
        name: for variants.
        label: in tables and figures.
        optimizer: of `Conf`.
        grid: what is tried on held-out images.
        usual: one of the grid, taken until something was chosen.
        kind: what is advanced beside, by the names of `_MAKE`; none for dense training and for targets.
        gradients: share of the steps that need the gradient of all weights.
    """

    name: str
    label: str
    optimizer: str
    grid: tuple[Setting, ...]
    usual: Setting
    kind: str = ""
    gradients: float = 0.0

    @property
    def dense(self) -> bool:
        """Whether it has no size to come to."""
        return self.name.startswith("dense")

    def changes(self, setting: Setting, goal: float) -> Changes:
        """Return what it changes in a configuration."""
        name = "adamw" if self.optimizer == "adam" and setting.weight_decay else self.optimizer
        optim = {"name": name, "lr": setting.lr, "weight_decay": setting.weight_decay}
        if self.optimizer == "adabreg":
            return {"target": {"density": goal}, "optim": optim}
        momentum = {"momentum": 0.9, "nesterov": True} if self.optimizer == "sgd" else {}
        rates = {} if self.kind in _IN_TWO_PHASES else {"schedule": {"name": "CosineAnnealingLR", "every": "step"}}
        plain: Changes = {"start": {"kind": "dense"}, "regularizer": {"name": "none", "lam": 0.0}}
        return {**plain, **rates, "optim": {**optim, **momentum}}

    def variant(
        self, name: str, label: str, setting: Setting, goal: float, scales: tuple[str, ...] = SCALES
    ) -> Variant:
        """Return a line of an experiment.

        Args:
            name: of the variant.
            label: of the variant.
            setting: of the method.
            goal: density; of no effect on dense training.
            scales: at which it runs.
        """
        beside = {} if setting.lam is None else {"lam": setting.lam}
        controls = partial(_MAKE[self.kind], goal, setting.lam) if self.kind else None
        changes = self.changes(setting, goal)
        return Variant(
            name, label, changes, scales, controls, beside, 1.0 if self.dense else self.gradients, self.label
        )


def grid(
    rates: tuple[float, ...],
    decays: tuple[float, ...] = (),
    lams: tuple[float, ...] = (),
    freezes: tuple[float, ...] = (),
) -> tuple[Setting, ...]:
    """Return settings: learning rates times weight decays, times λ, and times freezes."""
    by_decay = tuple(Setting(lr, decay) for lr in rates for decay in decays)
    by_lam = tuple(Setting(lr, lam=lam) for lr in rates for lam in lams)
    return by_decay + by_lam + tuple(Setting(lr, freeze=freeze) for lr in rates for freeze in freezes)


_SGD = grid((0.03, 0.05, 0.1, 0.2), (0.0, 5e-4))
"""Dense networks, those that begin as such, and RigL diverge at 0.4 with one seed or another."""
_SGD_SPARSE = grid((0.03, 0.1, 0.2, 0.4), (0.0, 5e-4))
_ADABREG = grid((0.005, 0.01, 0.02, 0.04), (0.0, 0.1))
"""The decay of AdaBreg and of Adam is decoupled, times the learning rate; SGD's is part of the gradient.

What the recipe for sizes takes, 0.01 and from 5 % on 0.005 with a decay of 0.1, is in the grid."""
_ADAM = grid((0.001, 0.002, 0.005, 0.01), (0.0, 0.3))
FROZEN = 0.7
"""Share of the steps before the support is fixed, as the recipe of targets has it."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("adabreg", "AdaBreg", "adabreg", _ADABREG, Setting(0.01), "", FROZEN),
        Method("dense-sgd", "dense, SGD", "sgd", _SGD, Setting(0.1)),
        Method("dense-adam", "dense, Adam", "adam", _ADAM, Setting(0.001)),
        Method("one-shot", "one-shot pruning", "sgd", _SGD, Setting(0.1), "one-shot"),
        Method("pruning-sgd", "gradual pruning, SGD", "sgd", _SGD, Setting(0.1), "pruning"),
        Method("pruning-adam", "gradual pruning, Adam", "adam", _ADAM, Setting(0.002), "pruning"),
        Method("set", "SET", "sgd", _SGD_SPARSE, Setting(0.1), "evolution"),
        Method("rigl", "RigL", "sgd", _SGD, Setting(0.1), "rigl", 0.01),
        Method("static", "static masks", "sgd", _SGD_SPARSE, Setting(0.1), "static"),
        Method(
            "proxsgd",
            "ProxSGD",
            "sgd",
            grid((0.03, 0.1, 0.2), (), (1e-3, 3e-3)) + grid((0.1,), (), (3e-4, 1e-2)),
            Setting(0.1, lam=1e-3),
            "proximal",
            FROZEN,
        ),
        Method(
            "proxadam",
            "Prox-Adam",
            "adam",
            grid((0.001, 0.002, 0.005), (), (0.1, 0.3)) + grid((0.01,), (), (0.1,)) + grid((0.005,), (), (0.03,)),
            Setting(0.002, lam=0.1),
            "proximal",
            FROZEN,
        ),
        Method(
            "lasso",
            "ℓ1 penalty, pruned",
            "sgd",
            grid((0.03, 0.1, 0.2), (), (1e-4, 4e-4)) + grid((0.1,), (), (3e-5, 1e-3)),
            Setting(0.1, lam=1e-4),
            "lasso",
            FROZEN,
        ),
    )
}
"""RigL needs the whole gradient once in a hundred steps; what prunes needs only that of what is left."""

_IN_TWO_PHASES = ("one-shot", "proximal", "lasso")


def _one_shot(goal: float, _: float | None, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import OneShotPruning, two_phases

    steps = conf.epochs * len(parts.train)
    return [OneShotPruning(parts.model, parts.optimizer, goal, steps), two_phases(parts.optimizer, steps, 0.5)]


def _proximal(goal: float, lam: float, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import ProximalPruning

    steps = conf.epochs * len(parts.train)
    return [ProximalPruning(parts.model, parts.optimizer, goal, steps, lam, at=FROZEN), _as_targets(parts, steps)]


def _lasso(goal: float, lam: float, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import LassoPruning

    steps = conf.epochs * len(parts.train)
    return [LassoPruning(parts.model, parts.optimizer, goal, steps, lam, at=FROZEN), _as_targets(parts, steps)]


def _as_targets(parts: Any, steps: int) -> Any:
    """Return the rates of runs with a target."""
    from torch_bregman.experiments.baselines import two_phases

    return two_phases(parts.optimizer, steps, FROZEN, floor=0.1, again=0.5)


def _gradual(goal: float, _: float | None, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import GradualPruning

    return [GradualPruning(parts.model, parts.optimizer, goal, conf.epochs * len(parts.train))]


def _evolution(goal: float, _: float | None, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import SparseEvolution

    steps = conf.epochs * len(parts.train)
    return [SparseEvolution(parts.model, parts.optimizer, goal, steps, seed=conf.seed)]


def _rigl(goal: float, _: float | None, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import RigL

    return [RigL(parts.model, parts.optimizer, goal, conf.epochs * len(parts.train), seed=conf.seed)]


def _static(goal: float, _: float | None, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import StaticMasks

    return [StaticMasks(parts.model, parts.optimizer, goal, seed=conf.seed)]


_MAKE: dict[str, Callable[..., list[Any]]] = {
    "one-shot": _one_shot,
    "proximal": _proximal,
    "lasso": _lasso,
    "pruning": _gradual,
    "evolution": _evolution,
    "rigl": _rigl,
    "static": _static,
}
