"""Experiment 5.4: what truncating the SVD does, and what following the leading subspace does instead."""

from __future__ import annotations

from torch_bregman.experiments.recipe import ACCURACY, Changes, Experiment, Quantity, Scale, Scatter, Variant
from torch_bregman.train import RunFolder

_STEP = Quantity("step_ms", "ms a step", 1, 1)
_ERROR = Quantity("svt_error", "error against float64, 1e-6", 1e6, 1)


def _thresholding(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import thresholding

    return thresholding(folder)


def _engine(name: str) -> Changes:
    options = {"engine": name}
    return {
        "regularizer": {"options": options},
        "rules": {"fc3.weight": {"name": "none", "lam": 0.0}},
    }


TRUNCATED_SVD = Experiment(
    name="truncated-svd",
    title="5.4 Truncated against full SVD",
    about=(
        "Perceptron 784-512-512-10 on MNIST, nuclear norm with λ = 0.5 on the first two weights, plain LinBreg with "
        "lr = 0.1, batches of 180, so that an epoch has 300 steps, from rank 5. `randomized(k)` is the truncated SVD "
        "of the literature (`torch.svd_lowrank`), which keeps k singular values at most: below, at and above the rank "
        "that the exact methods find in the first layer. Time and error are measured over 30 further steps: the "
        "median of the processor time of whole steps, and the worst ‖θ − SVT(v)‖ / ‖SVT(v)‖ against float64."
    ),
    config="truncated_svd.yaml",
    variants=(
        Variant("full", "full SVD", _engine("full"), ("small", "full")),
        Variant("gram", "Gram", _engine("gram")),
        Variant("tracked", "tracked", _engine("tracked")),
        *(
            Variant(f"randomized-{rank}", f"randomized({rank})", _engine(f"randomized({rank})"))
            for rank in (10, 30, 60)
        ),
    ),
    scales={
        "smoke": Scale(
            "1 epoch of the embedded sample, 1 seed, without the full SVD.",
            1,
            {"data": {"name": "sample", "batch_size": 180}},
        ),
        "small": Scale("1 epoch, 300 steps, 3 seeds.", 3, {}),
        "full": Scale("15 epochs, 4500 steps, 5 seeds.", 5, {"epochs": 15}),
    },
    columns=(
        ACCURACY,
        Quantity("layer_rank/fc1.weight", "rank fc1", 1, 0),
        Quantity("layer_rank/fc2.weight", "rank fc2", 1, 0),
        _STEP,
        _ERROR,
    ),
    figures=(Scatter("time", "Accuracy against time", _STEP, ACCURACY),),
    measure=_thresholding,
)
