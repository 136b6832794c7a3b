"""What the recipe for whole units and filters stands on: λ at the start, learning rates, the freeze, one λ or many."""

from __future__ import annotations

from functools import reduce

from torch_bregman.experiments.choosing import held_out
from torch_bregman.experiments.recipe import (
    BRIEF,
    VALIDATION,
    VALIDATION_LOSS,
    Changes,
    Experiment,
    Scale,
    Variant,
    merged,
    scales_of,
)

_BRIEFLY = ("adabreg-0.2-0.01", "adabreg-0.4-0.005")
"""Variants of scale smoke."""
_LAMS = (0.1, 0.01, 0.003)
_LATE: Changes = {"target": {"ramp_over": 0.5, "consolidate": 0.3}}


def _tried(name: str, label: str, *changes: Changes) -> Variant:
    return Variant(name, label, reduce(merged, changes), scales_of(name in _BRIEFLY))


def _from(share: float, optim: Changes, lam: float) -> Changes:
    return {"target": {"units": share}, "optim": optim, "regularizer": {"name": "outgoing", "lam": lam}}


def _scales(epochs: int) -> dict[str, Scale]:
    return {
        "smoke": held_out(BRIEF),
        "small": held_out(Scale(f"{epochs} epochs, 1 seed.", 1, {"epochs": epochs})),
        "full": held_out(Scale("20 epochs, 3 seeds.", 3, {"epochs": 20})),
    }


_OPTIMIZERS = (("adabreg", "AdaBreg"), ("linbreg", "LinBreg"))

FRONTIER_UNITS_RATES = Experiment(
    name="frontier-units-rates",
    title="λ at the start and the freeze for whole units: LeNet-300-100 on MNIST",
    about=(
        "LeNet-300-100 on MNIST, dense at the start, asked for a share of the units of each layer, with λ = 0.1, 0.01 "
        "and 0.003 at the start and the rest of the recipe; and with a ramp over half of the steps and a freeze after "
        "0.7 of them, in the place of 0.4 and 0.5. Only validation images (a tenth) are looked at."
    ),
    config="size_lenet.yaml",
    variants=(
        *(
            _tried(f"{name}-{share:g}-{lam:g}", f"{label}, {share:.0%}, λ = {lam:g}", _from(share, {"name": name}, lam))
            for share in (0.05, 0.2)
            for name, label in _OPTIMIZERS
            for lam in _LAMS
        ),
        *(
            _tried(f"adabreg-{share:g}-late", f"AdaBreg, {share:.0%}, late", {"target": {"units": share}}, _LATE)
            for share in (0.05, 0.2)
        ),
    ),
    scales=_scales(8),
    columns=(VALIDATION, VALIDATION_LOSS),
    tunes=True,
)

FRONTIER_FILTERS_RATES = Experiment(
    name="frontier-filters-rates",
    title="Learning rates, λ at the start and the freeze for whole filters: LeNet-5-Caffe on MNIST",
    about=(
        "LeNet-5-Caffe on MNIST, dense at the start, asked for a share of the filters and units of each layer: AdaBreg "
        "with other learning rates, with λ = 0.1 at the start, and with a ramp over half of the steps and a freeze "
        "after 0.7 of them, else the recipe; and asked for 158,000 multiply-adds, by the same share of units in each "
        "layer and by one λ for all. Only validation images (a tenth) are looked at."
    ),
    config="frontier_lenet5.yaml",
    variants=(
        *(
            _tried(
                f"adabreg-{share:g}-{lr:g}",
                f"AdaBreg, {share:.0%}, lr = {lr:g}",
                {"target": {"units": share}, "optim": {"name": "adabreg", "lr": lr}},
            )
            for share in (0.1, 0.4)
            for lr in (0.003, 0.005, 0.01)
        ),
        *(
            _tried(f"adabreg-{share:g}-lam", f"AdaBreg, {share:.0%}, λ = 0.1", _from(share, {"name": "adabreg"}, 0.1))
            for share in (0.1, 0.4)
        ),
        *(
            _tried(f"adabreg-{share:g}-late", f"AdaBreg, {share:.0%}, late", {"target": {"units": share}}, _LATE)
            for share in (0.1, 0.4)
        ),
        *(
            _tried(
                f"adabreg-macs-{scope}",
                f"AdaBreg, 158,000 multiply-adds, {how}",
                {"regularizer": {"name": "outgoing"}, "target": {"macs": 158_000, "scope": scope}},
            )
            for scope, how in (("layer", "the same share in each layer"), ("global", "one λ"))
        ),
    ),
    scales=_scales(5),
    columns=(VALIDATION, VALIDATION_LOSS),
    tunes=True,
)
