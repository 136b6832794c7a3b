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


def _shrunk(share: float, what: str, scales: tuple[str, ...]) -> Variant:
    label = f"AdaBreg, {share:.0%} of the {what}"
    return Variant(f"adabreg-{share:g}", label, {"target": {"units": share}}, scales, series="AdaBreg")


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
            Variant(
                f"narrow-{share:g}",
                f"narrow from the start, {share:.0%}",
                {**_ADAM, "model": {"name": "mlp", "hidden": widths}},
                scales,
                series="narrow from the start",
            )
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
        "LeNet-5-Caffe (20-50-500 filters and units) on MNIST, batches of 100; AdaBreg with groups of all that reads a "
        "unit or filter, asked for a share of those of each layer, then made smaller by `compact`; the dense network "
        "by Adam with lr = 0.001 falling by cosine. ℓ0 regularisation (Louizos, Welling, Kingma 2018) comes to "
        "9-18-65-25 units at about 99 % of accuracy, its last number the pixels that are left of a channel."
    ),
    config="frontier_lenet5.yaml",
    variants=(
        Variant("dense", "dense", _ADAM),
        *(_shrunk(share, "filters and units", scales) for share, scales in ((0.1, _LONG), (0.2, SCALES), (0.4, _LONG))),
    ),
    scales=_scales(3, 10),
    columns=(ACCURACY, _MACS, _ONE, _MANY, _FASTER),
    figures=(Scatter("macs", "Accuracy against multiply-adds", _MACS, ACCURACY),),
    measure=_after_compaction,
    pairs=tuple((f"adabreg-{share:g}", "dense") for share in (0.1, 0.2, 0.4)),
)
