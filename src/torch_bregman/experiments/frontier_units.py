"""The frontier of whole units and filters, by multiply-adds and milliseconds after `compact`."""

from __future__ import annotations

from torch_bregman.experiments.recipe import (
    ACCURACY,
    BRIEF,
    SCALES,
    Changes,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)
from torch_bregman.train import RunFolder

_LONG = SCALES[1:]
_ADAM: Changes = {
    "start": {"kind": "dense"},
    "regularizer": {"name": "none", "lam": 0.0},
    "optim": {"name": "adam", "lr": 0.001},
    "schedule": {"name": "CosineAnnealingLR", "every": "step"},
}


def _scales(seeds: int, epochs: int = 20) -> dict[str, Scale]:
    return {
        "smoke": BRIEF,
        "small": Scale(f"{epochs} epochs, {seeds} seeds.", seeds, {"epochs": epochs}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    }


def _after_compaction(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import after_compaction

    return after_compaction(folder)


_MACS = Quantity("compact_macs", "multiply-adds an image", 1, 0)
_ONE = Quantity("ms_at_1", "ms at batch 1", 1, 3)
_MANY = Quantity("ms_at_128", "ms at batch 128", 1, 2)
_FASTER = Quantity("faster_at_128", "times as fast at batch 128", 1, 1)
_WIDTHS = {0.05: [15, 5], 0.1: [30, 10], 0.2: [60, 20], 0.4: [120, 40]}
_FILTERS = {0.1: [2, 5, 50], 0.2: [4, 10, 100], 0.4: [8, 20, 200]}
_PUBLISHED = {403_000: 99.0, 158_000: 99.0}
"""Multiply-adds an image of LeNet-5-Caffe and accuracy, Louizos, Welling, Kingma 2018, table 1: their own, BC-GHS."""


def _shrunk(share: float, what: str, scales: tuple[str, ...]) -> Variant:
    label = f"AdaBreg, {share:.0%} of the {what}"
    return Variant(f"adabreg-{share:g}", label, {"target": {"units": share}}, scales, series="AdaBreg")


def _narrow(share: float, model: Changes, scales: tuple[str, ...]) -> Variant:
    label = f"narrow from the start, {share:.0%}"
    return Variant(f"narrow-{share:g}", label, {**_ADAM, "model": model}, scales, series="narrow from the start")


def _within(macs: int) -> Variant:
    label = f"AdaBreg, {macs:,} multiply-adds"
    changes: Changes = {"regularizer": {"name": "outgoing"}, "target": {"macs": macs}}
    return Variant(f"adabreg-macs-{macs}", label, changes, _LONG, series="AdaBreg")


FRONTIER_UNITS = Experiment(
    name="frontier-units",
    title="The frontier of whole units: LeNet-300-100 on MNIST, compacted",
    about=(
        "LeNet-300-100 on MNIST, batches of 100, the same epochs for all. AdaBreg with groups of all that reads a "
        "unit, asked for a share of the units of each layer, then made smaller by `compact`; beside it a network that "
        "is as narrow from the start, and the dense one, by Adam with lr = 0.001 falling by cosine. Multiply-adds, and "
        "the median milliseconds of a forward pass on one thread, are those of the compact model."
    ),
    config="size_lenet.yaml",
    variants=(
        Variant("dense", "dense", _ADAM),
        *(
            _shrunk(share, "units", scales)
            for share, scales in zip(_WIDTHS, (_LONG, SCALES, _LONG, _LONG), strict=True)
        ),
        *(
            _narrow(share, {"name": "mlp", "hidden": widths}, scales)
            for (share, widths), scales in zip(_WIDTHS.items(), (_LONG, SCALES, _LONG, _LONG), strict=True)
        ),
    ),
    scales=_scales(3),
    columns=(ACCURACY, _MACS, _ONE, _MANY, _FASTER),
    figures=(
        Scatter("macs", "Accuracy against multiply-adds", _MACS, ACCURACY),
        Scatter("latency", "Accuracy against latency", _MANY, ACCURACY),
    ),
    measure=_after_compaction,
    pairs=tuple((f"adabreg-{share:g}", f"narrow-{share:g}") for share in _WIDTHS),
)

FRONTIER_FILTERS = Experiment(
    name="frontier-filters",
    title="The frontier of whole filters: LeNet-5-Caffe on MNIST, compacted",
    about=(
        "LeNet-5-Caffe (20-50-500 filters and units) on MNIST, batches of 100, the same epochs for all. AdaBreg with "
        "groups of all that reads a unit or filter, asked for a share of those of each layer, or for multiply-adds, "
        "then made smaller by `compact`; beside it a network that is as narrow from the start, and the dense one, by "
        "Adam with lr = 0.001 falling by cosine."
    ),
    config="frontier_lenet5.yaml",
    variants=(
        Variant("dense", "dense", _ADAM),
        *(
            _shrunk(share, "filters and units", scales)
            for share, scales in zip(_FILTERS, (_LONG, SCALES, _LONG), strict=True)
        ),
        *(_within(macs) for macs in _PUBLISHED),
        *(
            _narrow(share, {"options": {"widths": widths, "conv_relu": True}}, scales)
            for (share, widths), scales in zip(_FILTERS.items(), (_LONG, SCALES, _LONG), strict=True)
        ),
    ),
    scales=_scales(3, 10),
    columns=(ACCURACY, _MACS, _ONE, _MANY, _FASTER),
    figures=(
        Scatter("macs", "Accuracy against multiply-adds", _MACS, ACCURACY),
        Scatter("latency", "Accuracy against latency", _MANY, ACCURACY),
    ),
    marks={f"adabreg-macs-{macs}": {"test_accuracy": accuracy} for macs, accuracy in _PUBLISHED.items()},
    marks_from=(
        "table 1 of Louizos, Welling, Kingma 2018: ℓ0 regularisation, 403,000 multiply-adds of a network of 9 and 18 "
        "filters, 65 of 800 inputs and 25 units; Bayesian compression (Louizos, Ullrich, Welling 2017) as quoted "
        "there, 5-10-76-16"
    ),
    measure=_after_compaction,
    pairs=tuple((f"adabreg-{share:g}", f"narrow-{share:g}") for share in _FILTERS),
)
