"""Experiment 5.2: nuclear norm, ℓ1 and groups: what accuracy costs in numbers stored and multiply-adds."""

from __future__ import annotations

from torch_bregman.experiments.recipe import (
    ACCURACY,
    VALIDATION,
    Changes,
    Curves,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)
from torch_bregman.train import RunFolder

_STORED = Quantity("numbers_stored", "numbers stored", 1, 0)
_MACS = Quantity("macs_left", "multiply-adds an image", 1, 0)


def _size(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import size

    return size(folder)


def _ranks(*layers: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(f"layer_rank/{layer}.weight", f"rank {layer.split('.')[-1]}", 1, 0) for layer in layers)


def _nuclear(lam: float) -> Changes:
    return {"start": {"kind": "low_rank", "rank": 4}, "regularizer": {"name": "nuclear", "lam": lam}}


def _l1(lam: float) -> Changes:
    return {"regularizer": {"lam": lam}}


def _rows(lam: float) -> Changes:
    """Return groups of the rows of all layers but the last, whose rows are the classes."""
    return {
        "start": {"kind": "sparse", "density": 0.1, "view": "rows"},
        "regularizer": {"name": "group_l2", "lam": lam, "options": {"view": "rows"}},
        "rules": {"fc3.weight": {"name": "l1", "lam": lam}},
    }


def _kernels(lam: float) -> Changes:
    return {
        "start": {"kind": "sparse", "density": 0.05},
        "rules": {"Conv2d": {"name": "group_l2", "lam": lam, "options": {"view": "kernels"}}},
        "regularizer": {"lam": lam},
    }


_DENSE: Changes = {
    "start": {"kind": "dense"},
    "regularizer": {"name": "none", "lam": 0.0},
    "optim": {"name": "sgd", "lr": 0.03, "momentum": 0.9},
}
_SMOKE = {"epochs": 2, "data": {"name": "sample", "batch_size": 128}}
_FIGURES = (
    Scatter("stored", "Accuracy against numbers stored", _STORED, ACCURACY),
    Scatter("macs", "Accuracy against multiply-adds", _MACS, ACCURACY),
    Curves("curves", "Validation accuracy", (VALIDATION,)),
)

NORMS_MLP = Experiment(
    name="norms-mlp",
    title="5.2 Nuclear norm, ℓ1, groups: perceptron on MNIST",
    about=(
        "Perceptron 784-200-80-10 on MNIST by plain LinBreg with lr = 0.1, batches of 128. The grid of λ is shown "
        "whole: nuclear norm from rank 4, ℓ1 from 1 % of the weights, rows (units; ℓ1 on the last layer, whose rows "
        "are the classes) from a tenth of the rows; dense SGD with lr = 0.03 and momentum beside them. Each weight "
        "counts as it is cheaper, by its non-zeros or in two factors; the indices that unstructured zeros need are "
        "not counted."
    ),
    config="jmlr_mlp.yaml",
    variants=(
        Variant("dense", "SGD, dense", _DENSE),
        *(Variant(f"nuclear-{lam}", f"nuclear, λ = {lam}", _nuclear(lam)) for lam in (0.5, 1.0, 2.0)),
        *(Variant(f"l1-{lam}", f"ℓ1, λ = {lam}", _l1(lam)) for lam in (0.05, 0.1, 0.2)),
        *(Variant(f"rows-{lam}", f"rows, λ = {lam}", _rows(lam)) for lam in (0.02, 0.05, 0.1)),
    ),
    scales={
        "smoke": Scale("2 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("15 epochs, 3 seeds.", 3, {"epochs": 15}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, _STORED, _MACS, *_ranks("fc1", "fc2", "fc3")),
    figures=_FIGURES,
    marks={
        "nuclear-0.5": {
            "test_accuracy": 97.45,
            "layer_rank/fc1.weight": 69,
            "layer_rank/fc2.weight": 21,
            "layer_rank/fc3.weight": 10,
        },
        "nuclear-1.0": {
            "test_accuracy": 97.2,
            "layer_rank/fc1.weight": 45,
            "layer_rank/fc2.weight": 15,
            "layer_rank/fc3.weight": 9,
        },
        "nuclear-2.0": {
            "test_accuracy": 96.75,
            "layer_rank/fc1.weight": 32,
            "layer_rank/fc2.weight": 11,
            "layer_rank/fc3.weight": 9,
        },
    },
    marks_from="an earlier study of this library's authors, 15 epochs",
    measure=_size,
)

NORMS_CONVNET = Experiment(
    name="norms-convnet",
    title="5.2 Nuclear norm, ℓ1, groups: ConvNet on Fashion-MNIST",
    about=(
        "The JMLR paper's ConvNet on Fashion-MNIST by plain LinBreg with lr = 0.1, batches of 128: nuclear norm of "
        "out × (in·k·k) from rank 4, ℓ1 from 1 % of the weights, kernels (ℓ1 on linear layers) from 5 %."
    ),
    config="jmlr_convnet.yaml",
    variants=(
        Variant("dense", "SGD, dense", _DENSE, ("full",)),
        *(
            Variant(
                f"nuclear-{lam}", f"nuclear, λ = {lam}", _nuclear(lam), ("smoke", "full") if lam == 0.2 else ("full",)
            )
            for lam in (0.1, 0.2, 0.5)
        ),
        *(
            Variant(f"l1-{lam}", f"ℓ1, λ = {lam}", _l1(lam), ("smoke", "full") if lam == 0.1 else ("full",))
            for lam in (0.05, 0.1, 0.2)
        ),
        *(
            Variant(
                f"kernels-{lam}", f"kernels, λ = {lam}", _kernels(lam), ("smoke", "full") if lam == 0.1 else ("full",)
            )
            for lam in (0.05, 0.1, 0.2)
        ),
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed, the middle of each grid.", 1, {**_SMOKE, "epochs": 1}),
        "full": Scale("100 epochs, 3 seeds.", 3, {"epochs": 100}),
    },
    columns=(ACCURACY, _STORED, _MACS, *_ranks("features.conv1", "features.conv2", "classifier.fc1", "classifier.fc2")),
    figures=_FIGURES,
    measure=_size,
)
