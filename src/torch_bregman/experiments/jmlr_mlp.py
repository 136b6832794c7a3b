"""JMLR 23(192), section 4: the perceptron on MNIST by LinBreg, AdaBreg and ProxSGD, beside dense SGD."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    DENSITY,
    VALIDATION,
    Curves,
    Experiment,
    Scale,
    Scatter,
    Variant,
)

_DENSE = {"start": {"kind": "dense"}, "regularizer": {"name": "none", "lam": 0.0}}
_SMOKE = {"epochs": 2, "data": {"name": "sample", "batch_size": 32}}


def _regularised(optimizer: str, lam: float, lr: float) -> dict[str, Any]:
    changes: dict[str, Any] = {"regularizer": {"lam": lam}, "optim": {"name": optimizer, "lr": lr}}
    # proximal methods shrink what is there, and grow nothing
    return {**changes, "start": {"kind": "dense"}} if optimizer == "proxsgd" else changes


_RATES = {"sgd": 0.03, "linbreg": 0.1, "adabreg": 0.002, "proxsgd": 0.5}
"""Chosen in `jmlr-mlp-rates`."""

JMLR_MLP = Experiment(
    name="jmlr-mlp",
    title="JMLR: perceptron on MNIST",
    about=(
        "Perceptron 784-200-80-10 on MNIST, batches of 128, ℓ1 on all weights. LinBreg and AdaBreg start with 1 % of "
        "the weights, ProxSGD and SGD with all. λ is the paper's grid, for AdaBreg 0.3 and 0.5, which live on another "
        "scale. Learning rates come from `jmlr-mlp-rates`, by one rule for all: of those within half a point of the "
        "best accuracy on the validation images the one with the fewest weights. Lines that name an lr have "
        "that of the marks."
    ),
    config="jmlr_mlp.yaml",
    variants=(
        Variant("sgd", "SGD, dense", {**_DENSE, "optim": {"name": "sgd", "lr": _RATES["sgd"], "momentum": 0.9}}),
        *(
            Variant(f"linbreg-{lam}", f"LinBreg, λ = {lam}", _regularised("linbreg", lam, _RATES["linbreg"]))
            for lam in (0.001, 0.01, 0.1)
        ),
        *(
            Variant(f"adabreg-{lam}", f"AdaBreg, λ = {lam}", _regularised("adabreg", lam, _RATES["adabreg"]))
            for lam in (0.3, 0.5)
        ),
        *(
            Variant(f"adabreg-{lam}-marked", f"AdaBreg, λ = {lam}, lr = 0.001", _regularised("adabreg", lam, 0.001))
            for lam in (0.3, 0.5)
        ),
        *(
            Variant(f"proxsgd-{lam}", f"ProxSGD, λ = {lam}", _regularised("proxsgd", float(lam), _RATES["proxsgd"]))
            for lam in ("1e-5", "1e-4", "1e-3")
        ),
        Variant("proxsgd-1e-4-marked", "ProxSGD, λ = 1e-4, lr = 0.1", _regularised("proxsgd", 1e-4, 0.1)),
    ),
    scales={
        "smoke": Scale("2 epochs of the embedded sample, 2 seeds.", 2, _SMOKE),
        "small": Scale("30 epochs, 3 seeds.", 3, {}),
        "full": Scale("As published: 100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    figures=(
        Curves("curves", "Perceptron on MNIST", (VALIDATION, DENSITY)),
        Scatter("size", "Accuracy against size", DENSITY, ACCURACY),
    ),
    marks={
        "sgd": {"test_accuracy": 98.4},
        "linbreg-0.1": {"test_accuracy": 97.0, "density": 8.6},
        "adabreg-0.3-marked": {"test_accuracy": 98.1, "density": 16.5},
        "adabreg-0.5-marked": {"test_accuracy": 97.7, "density": 10.1},
        "proxsgd-1e-4-marked": {"test_accuracy": 97.5, "density": 53.0},
    },
    marks_from="the reference implementation, 30 epochs",
)

_GRIDS = {
    "sgd": (0.01, 0.03, 0.1),
    "linbreg": (0.03, 0.1, 0.3),
    "adabreg": (0.0005, 0.001, 0.002, 0.004),
    "proxsgd": (0.03, 0.1, 0.3, 0.5),
}
_LAM = {"linbreg": 0.1, "adabreg": 0.5, "proxsgd": 1e-4}

JMLR_MLP_RATES = Experiment(
    name="jmlr-mlp-rates",
    title="Learning rates for the perceptron",
    about=(
        "The grid of learning rates for `jmlr-mlp`: three or four a method, same network, data and "
        "batches. Only validation images are looked at. ProxSGD with lr = 1 diverges in its first epoch."
    ),
    config="jmlr_mlp.yaml",
    variants=tuple(
        Variant(
            f"{name}-{lr}",
            f"{name}, lr = {lr}",
            {**_DENSE, "optim": {"name": "sgd", "lr": lr, "momentum": 0.9}}
            if name == "sgd"
            else _regularised(name, _LAM[name], lr),
        )
        for name, rates in _GRIDS.items()
        for lr in rates
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed.", 1, {**_SMOKE, "epochs": 1}),
        "small": Scale("10 epochs, 1 seed.", 1, {"epochs": 10}),
        "full": Scale("30 epochs, 3 seeds.", 3, {}),
    },
    columns=(VALIDATION, DENSITY),
    tunes=True,
)
