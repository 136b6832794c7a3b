"""JMLR 23(192): the denoising autoencoder that finds its own bottleneck, units (rows) waking one by one."""

from __future__ import annotations

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

JMLR_DENOISER = Experiment(
    name="jmlr-denoiser",
    title="JMLR: denoising autoencoder",
    about=(
        "Seven linear layers of 784 units with ReLU between them remove Gaussian noise of standard deviation 0.2 from "
        "Fashion-MNIST, pixels in [0, 1], batches of 128, mean squared error. J is the group norm of rows (units) with "
        "λ = 0.07, and 1 % of the rows are there at the start, as in the paper. Noise and learning rates are ours. The "
        "noisy images themselves have a PSNR of 14 dB."
    ),
    config="jmlr_denoiser.yaml",
    variants=(
        Variant("adam", "Adam, dense", {**_DENSE, "optim": {"name": "adam", "lr": 0.001}}),
        Variant("adabreg", "AdaBreg, rows", {}),
        Variant("linbreg", "LinBreg with momentum, rows", {"optim": {"name": "linbreg", "lr": 1.0, "momentum": 0.9}}),
    ),
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
