"""JMLR 23(192), tables 1 and 2: the ConvNet on Fashion-MNIST, weights (ℓ1) and kernels (groups) that wake or die."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    DENSITY,
    SECONDS,
    VALIDATION,
    Curves,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)

_NONE = {"name": "none", "lam": 0.0}
_DENSE = {"kind": "dense"}
_SMOKE = {"epochs": 1, "data": {"name": "sample", "batch_size": 128}}
_MOMENTUM = {"name": "linbreg", "momentum": 0.9}

_RATES = {"sgd": 0.03, "linbreg": 0.3, "momentum": 0.03, "adabreg": 0.004, "proxsgd": 0.1}
"""Chosen in `jmlr-convnet-rates`; plain LinBreg has that of momentum over 1 − μ."""


def _optim(method: str, lr: float) -> dict[str, Any]:
    if method in ("sgd", "lasso"):
        return {"name": "sgd", "lr": lr, "momentum": 0.9}
    return {**_MOMENTUM, "lr": lr} if method == "momentum" else {"name": method, "lr": lr}


def _with_l1(method: str, lam: float, lr: float) -> dict[str, Any]:
    start = {"start": _DENSE} if method in ("proxsgd", "lasso") else {}  # these shrink what is there, and grow nothing
    return {**start, "regularizer": {"lam": lam}, "optim": _optim(method, lr)}


def _with_groups(method: str, lam: float, lr: float) -> dict[str, Any]:
    kernels = {"name": "group_l2", "lam": lam, "options": {"view": "kernels"}}
    dense = method in ("proxsgd", "lasso")
    start = _DENSE if dense else {"kind": "sparse", "density": 0.05}
    return {**_with_l1(method, lam, lr), "start": start, "rules": {"Conv2d": kernels}}


_DENSE_SGD = {"start": _DENSE, "regularizer": _NONE, "optim": _optim("sgd", _RATES["sgd"])}
_LAM = {"linbreg": 0.1, "momentum": 0.1, "adabreg": 0.5, "proxsgd": 1e-3, "lasso": 1e-4}
_LABELS = {
    "linbreg": "LinBreg",
    "momentum": "LinBreg, momentum",
    "adabreg": "AdaBreg",
    "proxsgd": "ProxSGD",
    "lasso": "SGD on the lasso",
}
_RATE_OF = {**_RATES, "lasso": _RATES["sgd"]}
_BUDGET = ("momentum", "adabreg", "proxsgd")
"""What runs at small scale, beside dense SGD: an epoch takes 40 s on one core."""


def _scales(method: str) -> tuple[str, ...]:
    return ("smoke", "small", "full") if method in _BUDGET else ("full",)


JMLR_CONVNET = Experiment(
    name="jmlr-convnet",
    title="JMLR, table 1: ConvNet on Fashion-MNIST",
    about=(
        "Two 5 × 5 convolutions of 64 filters and two linear layers on Fashion-MNIST, batches of 128, ℓ1 on all "
        "weights. Bregman methods start with 1 % of the weights; ProxSGD, the lasso and SGD with all. λ: "
        + ", ".join(f"{_LABELS[name]} {lam:g}" for name, lam in _LAM.items())
        + ". Learning rates come from `jmlr-convnet-rates` by the rule of `jmlr-mlp`: of those within half a point of "
        "the best accuracy on the validation images the one with the fewest weights; plain LinBreg has that of LinBreg "
        "with momentum over 1 − μ, the lasso that of SGD."
    ),
    config="jmlr_convnet.yaml",
    variants=(
        Variant("sgd", "SGD, dense", _DENSE_SGD),
        *(
            Variant(name, _LABELS[name], _with_l1(name, lam, _RATE_OF[name]), _scales(name))
            for name, lam in _LAM.items()
        ),
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale(
            "3 epochs where the paper has 100, in bfloat16 (weights in float32), 3 seeds; dense SGD, LinBreg with "
            "momentum, AdaBreg and ProxSGD only.",
            3,
            {"epochs": 3, "dtype": "bfloat16"},
        ),
        "full": Scale("As published: 100 epochs, 3 seeds.", 3, {}),
    },
    columns=(ACCURACY, DENSITY, SECONDS),
    figures=(
        Curves("curves", "ConvNet on Fashion-MNIST", (VALIDATION, DENSITY)),
        Scatter("size", "Accuracy against size", DENSITY, ACCURACY),
    ),
    marks={
        "sgd": {"test_accuracy": 92.1},
        "linbreg": {"test_accuracy": 89.2, "density": 1.9},
        "momentum": {"test_accuracy": 89.9, "density": 2.7},
        "adabreg": {"test_accuracy": 90.5, "density": 2.3},
        "proxsgd": {"test_accuracy": 89.4, "density": 4.8},
        "lasso": {"test_accuracy": 90.1, "density": 3.5},
    },
    marks_from="the paper, 100 epochs",
)

_KERNELS = Quantity("kernel_density", "kernels left, %", 100)


def _measure_kernels(folder: Any) -> dict[str, float]:
    from torch_bregman.experiments.measures import kernels_left

    return kernels_left(folder)


JMLR_CONVNET_GROUPS = Experiment(
    name="jmlr-convnet-groups",
    title="JMLR, table 2: kernels of the ConvNet",
    about=(
        "The same with groups: J is λ Σ √n ‖kernel‖₂ over the 5 × 5 kernels of convolutions and ℓ1 on linear layers; "
        "Bregman methods start with 5 % of the weights. λ and learning rates are those of `jmlr-convnet`."
    ),
    config="jmlr_convnet.yaml",
    variants=tuple(
        Variant(
            name,
            _LABELS[name].replace("the lasso", "the group lasso"),
            _with_groups(name, lam, _RATE_OF[name]),
            ("smoke", "full") if name in ("momentum", "adabreg") else ("full",),
        )
        for name, lam in _LAM.items()
        if name != "proxsgd"
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed; momentum and AdaBreg only.", 1, _SMOKE),
        "full": Scale("As published: 100 epochs, 3 seeds.", 3, {}),
    },
    columns=(ACCURACY, _KERNELS, DENSITY),
    figures=(Curves("curves", "Kernels of the ConvNet", (VALIDATION, DENSITY)),),
    marks={
        "linbreg": {"test_accuracy": 89.5},
        "momentum": {"test_accuracy": 89.9},
        "adabreg": {"test_accuracy": 89.4},
        "lasso": {"test_accuracy": 90.3},
    },
    marks_from="the paper, 100 epochs, 2.8–4.7 % of the kernels",
    measure=_measure_kernels,
)

_GRIDS = {
    "sgd": (0.01, 0.03, 0.1),
    "momentum": (0.01, 0.03),
    "adabreg": (0.001, 0.002, 0.004),
    "proxsgd": (0.03, 0.1, 0.3),
}

JMLR_CONVNET_RATES = Experiment(
    name="jmlr-convnet-rates",
    title="Learning rates for the ConvNet",
    about=(
        "The grid of learning rates for `jmlr-convnet`: two or three a method, a factor of 2 or 3 apart, same "
        "network, data and batches. Only validation images are looked at. LinBreg with momentum diverges "
        "in its first epoch with lr = 0.1."
    ),
    config="jmlr_convnet.yaml",
    variants=tuple(
        Variant(
            f"{name}-{lr}",
            f"{name}, lr = {lr}",
            {**_DENSE_SGD, "optim": _optim("sgd", lr)} if name == "sgd" else _with_l1(name, _LAM[name], lr),
            ("smoke", "small", "full") if lr == rates[0] else ("small", "full"),
        )
        for name, rates in _GRIDS.items()
        for lr in rates
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed, the first of each grid.", 1, _SMOKE),
        "small": Scale("2 epochs in bfloat16 (weights in float32), 1 seed.", 1, {"epochs": 2, "dtype": "bfloat16"}),
        "full": Scale("10 epochs, 3 seeds.", 3, {"epochs": 10}),
    },
    columns=(VALIDATION, DENSITY),
    tunes=True,
)
