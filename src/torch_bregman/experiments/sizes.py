"""Sizes on request: what accuracy a network has that was asked for 1 % of its weights, or for so many numbers."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.choosing import held_out
from torch_bregman.experiments.recipe import (
    ACCURACY,
    DENSITY,
    SCALES,
    SECONDS,
    VALIDATION,
    VALIDATION_LOSS,
    Changes,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)
from torch_bregman.train.target_recipe import EARLY

_LEFT = Quantity("weights_left", "weights left", 1, 0)
_STORED = Quantity("stored", "numbers stored", 1, 0)
_SMOKE: dict[str, Any] = {"epochs": 4, "data": {"name": "sample", "batch_size": 50}}
_TO_SPARSE = {"density": 0.01, "ramp": "none", "start": 0.01}
_SIZE = Scatter("size", "Accuracy against size", DENSITY, ACCURACY)


def _adabreg(goal: float) -> Variant:
    return Variant(f"adabreg-{goal}", f"AdaBreg, {goal:.0%}", {"target": {"density": goal}}, series="AdaBreg")


def _twice_as_long(goal: float) -> Variant:
    changes: Changes = {"target": {"density": goal}, "epochs": 40}
    return Variant(
        f"adabreg-{goal}-40", f"AdaBreg, {goal:.0%}, 40 epochs", changes, scales=("small",), series="AdaBreg, 40 epochs"
    )


SIZE_LENET = Experiment(
    name="size-lenet",
    title="LeNet-300-100 on MNIST at the size asked for",
    about=(
        "784-300-100-10, batches of 100, 20 epochs or 40, everything but the target left to the recipe: AdaBreg, the "
        "target falls cubically from 20 % in the first half, the last 30 % of the steps train the exact number of "
        "weights that was asked for. Sparse to sparse starts with 1 % of the weights and asks for 1 % from the first "
        "step on."
    ),
    config="size_lenet.yaml",
    variants=(
        *(_adabreg(goal) for goal in (0.01, 0.02, 0.05, 0.1)),
        *(_twice_as_long(goal) for goal in (0.01, 0.02, 0.05, 0.1)),
        Variant("sparse-to-sparse-0.01", "AdaBreg, 1 % from the start", {"target": _TO_SPARSE}),
    ),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, some 40, 5 seeds.", 5, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, DENSITY, _LEFT, SECONDS),
    figures=(_SIZE,),
    marks={
        f"adabreg-{goal}{epochs}": {"test_accuracy": mark}
        for goal, mark in {0.01: 97.64, 0.02: 98.01, 0.05: 98.47, 0.1: 98.6}.items()
        for epochs in ("", "-40")
    },
    marks_from="sparse momentum (Dettmers, Zettlemoyer 2019), 100 epochs",
)

SIZE_MLP = Experiment(
    name="size-mlp",
    title="Perceptron 784-200-80-10 on MNIST with 7 % of its weights",
    about="The network of the JMLR paper, batches of 100, 20 epochs, lr = 0.01, the rest left to the recipe.",
    config="size_mlp.yaml",
    variants=(Variant("adabreg-0.07", "AdaBreg, 7 %", {"target": {"density": 0.07}}),),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, 3 seeds.", 3, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, DENSITY, _LEFT, SECONDS),
)

_LOW_RANK: Changes = {"regularizer": {"name": "nuclear"}, "rules": {"fc3": {"name": "none", "lam": 0.0}}}
_HALF: Changes = {"target": {"params": 15324, **EARLY, "consolidate_lr": 0.006}}
"""Half as many numbers as the recipe is made for."""

SIZE_LOW_RANK = Experiment(
    name="size-low-rank",
    title="LeNet-300-100 on MNIST in low rank, by the numbers stored",
    about=(
        "784-300-100-10, batches of 100, 20 epochs, the nuclear norm on the first two weights; the last, which two "
        "factors would hardly make smaller, stays dense. The ranks of the layers are found under one λ, then the "
        "factors are trained alone. All weights are counted, biases are not. 31,016 numbers are left to the recipe; "
        "for half of them the factors are trained alone for half of the steps, with twice the learning rate at first, "
        "as in `frontier-low-rank`."
    ),
    config="size_lenet.yaml",
    variants=(
        Variant("params-31016", "AdaBreg, 31,016 numbers", {**_LOW_RANK, "target": {"params": 31016}}),
        Variant("params-15324", "AdaBreg, 15,324 numbers", {**_LOW_RANK, **_HALF}),
    ),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, 3 seeds.", 3, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, _STORED, *(Quantity(f"layer_rank/fc{i}.weight", f"rank fc{i}", 1, 1) for i in (1, 2)), SECONDS),
)

SIZE_LENET5 = Experiment(
    name="size-lenet5",
    title="LeNet-5-Caffe on MNIST with 1 % of its weights",
    about=(
        "Two convolutions and two linear layers, batches of 100, everything but the target left to the recipe. With a "
        "ReLU after each convolution, as most papers on pruning have the network, and without, as Caffe has it."
    ),
    config="size_lenet5.yaml",
    variants=(
        _adabreg(0.01),
        Variant(
            "adabreg-0.01-caffe",
            "AdaBreg, 1%, no ReLU after convolutions",
            {"target": {"density": 0.01}, "model": {"options": {"conv_relu": False}}},
        ),
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed.", 1, {**_SMOKE, "epochs": 1}),
        "small": Scale("15 epochs, 3 seeds.", 3, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, DENSITY, _LEFT, SECONDS),
    marks={"adabreg-0.01": {"test_accuracy": 99.17}},
    marks_from="sparse momentum (Dettmers, Zettlemoyer 2019), 100 epochs",
)


_FASHION: Changes = {"data": {"name": "fashion-mnist"}}


def _tried(goal: float, lr: float, decay: float, mark: str = "", changes: Changes | None = None) -> Variant:
    place = ", Fashion-MNIST" if changes else ""
    return Variant(
        f"adabreg-{goal}-{lr}{mark}",
        f"AdaBreg, {goal:.0%}, lr = {lr}" + (f", weight decay {decay:g}" if decay else "") + place,
        {"target": {"density": goal}, "optim": {"name": "adabreg", "lr": lr, "weight_decay": decay}, **(changes or {})},
        ("small", "full") if mark else SCALES,
    )


SIZE_RATES = Experiment(
    name="size-rates",
    title="Learning rates and weight decays of the recipe for sizes on request",
    about=(
        "784-300-100-10 on MNIST, the recipe with other learning rates at 1 % and at 10 % of the weights, and with "
        "other weight decays at 10 %, and at 5 % on Fashion-MNIST. Only validation images (a tenth) are looked at."
    ),
    config="size_lenet.yaml",
    variants=(
        *(_tried(goal, lr, decay) for goal, decay in ((0.01, 0.0), (0.1, 1e-4)) for lr in (0.003, 0.005, 0.01, 0.02)),
        *(_tried(0.1, 0.005, decay, f"-{decay:g}") for decay in (0.03, 0.1, 0.3, 1.0)),
        *(_tried(0.05, 0.005, decay, f"-{decay:g}-fashion", _FASHION) for decay in (1e-4, 0.1, 0.3)),
    ),
    scales={
        "smoke": held_out(Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE)),
        "small": held_out(Scale("20 epochs, 1 seed.", 1, {})),
        "full": held_out(Scale("100 epochs, 3 seeds.", 3, {"epochs": 100})),
    },
    columns=(VALIDATION, VALIDATION_LOSS, DENSITY),
    tunes=True,
)
