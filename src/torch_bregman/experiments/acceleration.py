"""Experiment 5.1: LinBreg plain, with momentum, Nesterov, accelerated with restart, at equal τ/(1−μ)."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    DENSITY,
    LOSS,
    VALIDATION,
    Changes,
    Curves,
    Experiment,
    Scale,
    Variant,
)

_FIGURE = (LOSS, VALIDATION, DENSITY)


def _variants(rate: float, scales: tuple[str, ...]) -> tuple[Variant, ...]:
    """Return the methods at the same τ(1 − dampening)/(1 − μ), given as the rate of the plain one."""
    slow = round(rate / 10, 6)
    momentum = {"name": "linbreg", "lr": slow, "momentum": 0.9}
    named: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("plain", {"name": "linbreg", "lr": rate}),
        "momentum": ("momentum", momentum),
        "damped": ("momentum, damped", {**momentum, "dampening": 0.9}),
        "nesterov": ("Nesterov", {**momentum, "nesterov": True}),
        "accelerated": ("accelerated, restart", {"name": "linbreg", "lr": slow, "accelerated": True}),
    }
    return tuple(Variant(name, label, {"optim": optim}, scales) for name, (label, optim) in named.items())


def _in_minibatches(name: str, title: str, net: str, config: str, scales: dict[str, Scale]) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        about=(
            f"{net}, batches of 128, ℓ1 with λ = 0.1, from 1 % of the weights. Compared at the same effective rate "
            f"τ/(1 − μ) = 0.1: plain τ = 0.1, the others τ = 0.01 with μ = 0.9; the accelerated one τ = 0.01 with a "
            f"momentum that grows towards 1 and restarts. The paper's momentum is damped by 1 − μ: with τ = 0.1 it "
            f"would be momentum step for step; it is shown with the τ of the others."
        ),
        config=config,
        variants=_variants(0.1, tuple(scales)),
        scales=scales,
        columns=(LOSS, ACCURACY, DENSITY),
        figures=(Curves("curves", title, _FIGURE),),
    )


ACCELERATION_MLP = _in_minibatches(
    "acceleration-mlp",
    "5.1 Acceleration: perceptron on MNIST",
    "Perceptron 784-200-80-10 on MNIST",
    "jmlr_mlp.yaml",
    {
        "smoke": Scale("2 epochs of the embedded sample, 2 seeds.", 2, {"epochs": 2, "data": {"name": "sample"}}),
        "small": Scale("15 epochs, 3 seeds.", 3, {"epochs": 15}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
)

ACCELERATION_CONVNET = _in_minibatches(
    "acceleration-convnet",
    "5.1 Acceleration: ConvNet on Fashion-MNIST",
    "The JMLR paper's ConvNet on Fashion-MNIST",
    "jmlr_convnet.yaml",
    {
        "smoke": Scale(
            "1 epoch of the embedded sample, 1 seed.",
            1,
            {"epochs": 1, "data": {"name": "sample", "batch_size": 256}},
        ),
        "full": Scale("100 epochs, 3 seeds.", 3, {"epochs": 100}),
    },
)


def _pgd(lam: float, accelerated: bool) -> Changes:
    return {
        "start": {"kind": "dense"},
        "regularizer": {"lam": lam},
        "optim": {"name": "pgd", "accelerated": accelerated},
    }


ACCELERATION_FULL_BATCH = Experiment(
    name="acceleration-full-batch",
    title="5.1 Acceleration: full batches, beside proximal gradient descent",
    about=(
        "Perceptron 784-200-80-10 on the embedded sample of MNIST, one step an epoch with the gradient of all images. "
        "LinBreg has ℓ1 with λ = 0.1 and 1 % of the weights at the start, τ/(1 − μ) = 0.4 (accelerated and damped: τ "
        "= 0.04); with 1 the plain one diverges. Proximal gradient descent (PGD) minimises loss + λ‖θ‖₁ with λ = 1e-3 "
        "from a dense start, plain and with FISTA's acceleration, its step found by backtracking."
    ),
    config="jmlr_mlp.yaml",
    variants=(
        *_variants(0.4, ("smoke", "small", "full")),
        Variant("pgd", "PGD", _pgd(1e-3, accelerated=False)),
        Variant("pgd-accelerated", "PGD, accelerated", _pgd(1e-3, accelerated=True)),
    ),
    scales={
        "smoke": Scale("5 steps, 1 seed.", 1, {"epochs": 5, "data": {"name": "sample", "batch_size": 0}}),
        "small": Scale("100 steps, 3 seeds.", 3, {"epochs": 100, "data": {"name": "sample", "batch_size": 0}}),
        "full": Scale("1000 steps, 5 seeds.", 5, {"epochs": 1000, "data": {"name": "sample", "batch_size": 0}}),
    },
    columns=(LOSS, ACCURACY, DENSITY),
    figures=(Curves("curves", "Full batches of the sample", _FIGURE),),
)
