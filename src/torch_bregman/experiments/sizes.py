"""Sizes on request: what accuracy a network has that was asked for 1 % of its weights, or for so many numbers."""

from __future__ import annotations

from torch_bregman.experiments.recipe import ACCURACY, DENSITY, SECONDS, Experiment, Quantity, Scale, Scatter, Variant

_LEFT = Quantity("weights_left", "weights left", 1, 0)
_STORED = Quantity("stored", "numbers stored", 1, 0)
_SMOKE = {"epochs": 4, "data": {"name": "sample", "batch_size": 50}}
_TO_SPARSE = {"density": 0.01, "ramp": "none", "start": 0.01}
_SIZE = Scatter("size", "Accuracy against size", DENSITY, ACCURACY)


def _adabreg(goal: float) -> Variant:
    return Variant(f"adabreg-{goal}", f"AdaBreg, {goal:.0%}", {"target": {"density": goal}}, series="AdaBreg")


SIZE_LENET = Experiment(
    name="size-lenet",
    title="LeNet-300-100 on MNIST at the size asked for",
    about=(
        "784-300-100-10, batches of 100, 20 epochs, everything but the target left to the recipe: AdaBreg, the target "
        "falls cubically from 20 % in the first half, the last 30 % of the steps train the exact number of weights "
        "that was asked for. Sparse to sparse starts with 1 % of the weights and asks for 1 % from the first step on."
    ),
    config="size_lenet.yaml",
    variants=(
        *(_adabreg(goal) for goal in (0.01, 0.02, 0.05, 0.1)),
        Variant("sparse-to-sparse-0.01", "AdaBreg, 1 % from the start", {"target": _TO_SPARSE}),
    ),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, 5 seeds.", 5, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, DENSITY, _LEFT, SECONDS),
    figures=(_SIZE,),
    marks={
        "adabreg-0.01": {"test_accuracy": 97.64},
        "adabreg-0.02": {"test_accuracy": 98.01},
        "adabreg-0.05": {"test_accuracy": 98.47},
        "adabreg-0.1": {"test_accuracy": 98.6},
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

SIZE_LOW_RANK = Experiment(
    name="size-low-rank",
    title="LeNet-300-100 on MNIST in low rank, by the numbers stored",
    about=(
        "784-300-100-10, batches of 100, 20 epochs, the nuclear norm on the first two weights; the last, which two "
        "factors would hardly make smaller, stays dense. The ranks of the layers are found under one λ, then the "
        "factors are trained alone. All weights are counted, biases are not."
    ),
    config="size_lenet.yaml",
    variants=tuple(
        Variant(
            f"params-{goal}",
            f"AdaBreg, {goal:,} numbers",
            {
                "regularizer": {"name": "nuclear"},
                "rules": {"fc3": {"name": "none", "lam": 0.0}},
                "target": {"params": goal},
            },
        )
        for goal in (31016, 15324)
    ),
    scales={
        "smoke": Scale("4 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("20 epochs, 3 seeds.", 3, {}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, _STORED, *(Quantity(f"layer_rank/fc{i}.weight", f"rank fc{i}", 1, 1) for i in (1, 2)), SECONDS),
)
