"""Sizes on request beside gradual magnitude pruning and sparse evolutionary training, under the same budget."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    DENSITY,
    SECONDS,
    VALIDATION,
    Changes,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)
from torch_bregman.train import Conf

_DENSE: Changes = {"start": {"kind": "dense"}, "regularizer": {"name": "none", "lam": 0.0}}
_COSINE: Changes = {"schedule": {"name": "CosineAnnealingLR", "every": "step"}}
_SMOKE = {"epochs": 4, "data": {"name": "sample", "batch_size": 50}}
_LEFT = Quantity("weights_left", "weights left", 1, 0)


def _pruned(density: float, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import GradualPruning

    return [GradualPruning(parts.model, parts.optimizer, density, conf.epochs * len(parts.train))]


def _evolved(density: float, conf: Conf, parts: Any) -> list[Any]:
    from torch_bregman.experiments.baselines import SparseEvolution

    steps = conf.epochs * len(parts.train)
    return [SparseEvolution(parts.model, parts.optimizer, density, steps, seed=conf.seed)]


def _adabreg(goal: float) -> Variant:
    return Variant(f"adabreg-{goal}", f"AdaBreg, {goal:.0%}", {"target": {"density": goal}}, series="AdaBreg")


def _baseline(method: str, optimizer: str, lr: float, goal: float, name: str) -> Variant:
    momentum = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    changes = {**_DENSE, **_COSINE, "optim": {"name": optimizer, "lr": lr, **momentum}}
    make = {"pruning": _pruned, "evolution": _evolved}[method]
    label = {"pruning": "gradual magnitude pruning", "evolution": "SET"}[method]
    return Variant(
        name,
        f"{label}, {optimizer}, lr = {lr}, {goal:.0%}",
        changes,
        controls=partial(make, goal),
        series=f"{label}, {optimizer}",
    )


_RATES = {("pruning", "sgd"): 0.1, ("pruning", "adam"): 0.002, ("evolution", "sgd"): 0.2}
"""The best of `size-fashion-rates` on validation images."""
_GOALS = (0.01, 0.02, 0.05, 0.1)
_GRIDS = {
    ("pruning", "sgd"): (0.03, 0.1, 0.2),
    ("pruning", "adam"): (0.001, 0.002, 0.005),
    ("evolution", "sgd"): (0.03, 0.1, 0.2, 0.4),
}

SIZE_FASHION = Experiment(
    name="size-fashion",
    title="LeNet-300-100 on Fashion-MNIST at 1, 2, 5 and 10 % of the weights, beside other methods",
    about=(
        "784-300-100-10, batches of 100, 20 epochs for every method. AdaBreg as the recipe has it. Gradual magnitude "
        "pruning over all layers together from 10 % to 60 % of the steps, SET with Erdős–Rényi densities and 30 % "
        "exchanged every 300 steps; both with lr falling by cosine to 0. Their learning rates are the "
        "best of `size-fashion-rates` on validation images; AdaBreg's was chosen on MNIST."
    ),
    config="size_fashion.yaml",
    variants=tuple(
        variant
        for goal in _GOALS
        for variant in (
            _adabreg(goal),
            *(_baseline(m, o, lr, goal, f"{m}-{o}-{goal}") for (m, o), lr in _RATES.items()),
        )
    ),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, 3 seeds.", 3, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, DENSITY, _LEFT, SECONDS),
    figures=(Scatter("size", "Accuracy against size", DENSITY, ACCURACY),),
    pairs=tuple((f"adabreg-{goal}", f"{m}-{o}-{goal}") for goal in _GOALS for m, o in _RATES),
)

SIZE_FASHION_RATES = Experiment(
    name="size-fashion-rates",
    title="Learning rates of the other methods on Fashion-MNIST at 1 % of the weights",
    about="A grid of learning rates for `size-fashion`; only validation images (a tenth) are looked at.",
    config="size_fashion.yaml",
    variants=tuple(_baseline(m, o, lr, 0.01, f"{m}-{o}-{lr}") for (m, o), grid in _GRIDS.items() for lr in grid),
    scales={
        "smoke": Scale(
            "4 epochs of the embedded sample, 1 seed.", 1, {**_SMOKE, "data": {**_SMOKE["data"], "validation": 0.1}}
        ),
        "small": Scale("10 epochs, 1 seed.", 1, {"epochs": 10, "data": {"validation": 0.1}}),
        "full": Scale("20 epochs, 3 seeds.", 3, {"data": {"validation": 0.1}}),
    },
    columns=(VALIDATION, DENSITY),
    tunes=True,
)
