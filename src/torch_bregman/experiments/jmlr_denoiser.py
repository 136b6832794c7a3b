"""JMLR 23(192): the denoising autoencoder that finds its own bottleneck, units (rows) waking one by one."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import DENSITY, SECONDS, Curves, Experiment, Quantity, Scale, Scatter, Variant
from torch_bregman.train import RunFolder

_PSNR = Quantity("test_psnr", "test PSNR, dB", 1, 2)
_SSIM = Quantity("test_ssim", "test SSIM", 1, 3)
_VALIDATION = Quantity("val_psnr", "validation PSNR, dB", 1, 2)
_ROWS = Quantity("row_density", "rows left, %", 100)
_NARROWEST = Quantity("narrowest", "units of the narrowest layer", 1, 0)


def _measure(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import rows_left, similarity

    return {**similarity(folder), **rows_left(folder)}


_DENSE = {"start": {"kind": "dense"}, "regularizer": {"name": "none", "lam": 0.0}}
_SMOKE = {"epochs": 1, "data": {"name": "sample", "noise": 0.2, "batch_size": 256}}


def _method(name: str, lr: float) -> dict[str, Any]:
    momentum = {"momentum": 0.9} if name == "linbreg" else {}
    return {**(_DENSE if name == "adam" else {}), "optim": {"name": name, "lr": lr, **momentum}}


_RATES = {"adam": 0.001, "adabreg": 0.003, "linbreg": 1.0}
"""Chosen in `jmlr-denoiser-rates`."""
_LABELS = {"adam": "Adam, dense", "adabreg": "AdaBreg, rows", "linbreg": "LinBreg with momentum, rows"}

JMLR_DENOISER = Experiment(
    name="jmlr-denoiser",
    title="JMLR: denoising autoencoder",
    about=(
        "Seven linear layers of 784 units with ReLU between them remove Gaussian noise of standard deviation 0.2 from "
        "Fashion-MNIST, pixels in [0, 1], batches of 128, mean squared error. J is the group norm of rows (units) with "
        "λ = 0.07, and 1 % of the rows are there at the start, as in the paper. The noise is ours; learning rates come "
        "from `jmlr-denoiser-rates`, those of the highest PSNR on the validation images. The noisy images themselves "
        "have a PSNR of 14 dB."
    ),
    config="jmlr_denoiser.yaml",
    variants=tuple(Variant(name, _LABELS[name], _method(name, lr)) for name, lr in _RATES.items()),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("4 epochs where the paper has 100, 3 seeds.", 3, {"epochs": 4}),
        "full": Scale("As published: 100 epochs, 3 seeds.", 3, {}),
    },
    columns=(_PSNR, _SSIM, _ROWS, _NARROWEST, DENSITY, SECONDS),
    figures=(
        Curves("curves", "Denoising autoencoder", (_VALIDATION, DENSITY)),
        Scatter("size", "PSNR against size", DENSITY, _PSNR),
    ),
    measure=_measure,
)

_GRIDS = {"adam": (0.0003, 0.001, 0.003), "adabreg": (0.0003, 0.001, 0.003), "linbreg": (0.3, 1.0, 3.0)}

JMLR_DENOISER_RATES = Experiment(
    name="jmlr-denoiser-rates",
    title="Learning rates for the denoising autoencoder",
    about="The grid of learning rates for `jmlr-denoiser`. Only validation images are looked at.",
    config="jmlr_denoiser.yaml",
    variants=tuple(
        Variant(f"{name}-{lr}", f"{_LABELS[name]}, lr = {lr}", _method(name, lr))
        for name, grid in _GRIDS.items()
        for lr in grid
    ),
    scales={
        "smoke": Scale("1 epoch of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale("2 epochs, 1 seed.", 1, {"epochs": 2}),
        "full": Scale("10 epochs, 3 seeds.", 3, {"epochs": 10}),
    },
    columns=(_VALIDATION, DENSITY),
    tunes=True,
)
