"""The frontier of low rank, by numbers stored, and of whole units, by multiply-adds and milliseconds."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    SECONDS,
    Changes,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
)
from torch_bregman.experiments.sizes import LOW_RANK_HALF
from torch_bregman.train import RunFolder

_SMOKE: Changes = {"epochs": 2, "data": {"name": "sample", "batch_size": 100, "validation": 0.0}}
_BRIEF = ("smoke", "small", "full")
_LONG = ("small", "full")
_DENSE: Changes = {"start": {"kind": "dense"}, "regularizer": {"name": "none", "lam": 0.0}}
_ADAM: Changes = {
    **_DENSE,
    "optim": {"name": "adam", "lr": 0.001},
    "schedule": {"name": "CosineAnnealingLR", "every": "step"},
}


def _scales(seeds: int, epochs: int = 20) -> dict[str, Scale]:
    return {
        "smoke": Scale("2 epochs of the embedded sample, 1 seed.", 1, _SMOKE),
        "small": Scale(f"{epochs} epochs, {seeds} seeds.", seeds, {"epochs": epochs}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    }


def _size(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import size

    return size(folder)


def _after_compaction(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import after_compaction

    return after_compaction(folder)


_STORED = Quantity("numbers_stored", "numbers stored", 1, 0)
_NUCLEAR: Changes = {"regularizer": {"name": "nuclear"}}


_HALF = int(LOW_RANK_HALF["target"]["params"])


def _decay(goal: int) -> dict[str, float]:
    """Return the decoupled weight decay that all methods have at a size, that of AdaBreg there."""
    return {"weight_decay": LOW_RANK_HALF["optim"]["weight_decay"]} if goal == _HALF else {}


def _free(*layers: str) -> dict[str, Any]:
    return {layer: {"name": "none", "lam": 0.0} for layer in layers}


def _at(goal: int) -> tuple[str, ...]:
    return _BRIEF if goal > 30000 else _LONG


def _grown(goal: int, dense: tuple[str, ...]) -> Variant:
    own = LOW_RANK_HALF if goal == _HALF else {"target": {"params": goal}}
    changes = {**_NUCLEAR, "rules": _free(*dense), **own}
    return Variant(f"adabreg-{goal}", f"AdaBreg, {goal:,}", changes, _at(goal), series="AdaBreg")


def _truncated(goal: int, dense: tuple[str, ...]) -> Variant:
    """Return dense Adam, its weights cut to the leading singular values after half of the steps, then factors."""
    end = {"controller": "none", "ramp": "none", "ramp_over": 0.0, "consolidate": 0.5, "consolidate_lr": 0.001}
    changes = {
        "start": {"kind": "dense"},
        "regularizer": {"name": "nuclear", "lam": 0.0},
        "rules": _free(*dense),
        "optim": {"name": "adabreg", "lr": 0.001, **_decay(goal)},
        "target": {"params": goal, **end},
    }
    return Variant(f"truncated-{goal}", f"Adam, truncated, {goal:,}", changes, _at(goal), series="Adam, truncated")


_SCRATCH = {"same-ranks": "from scratch, the same ranks", "uniform": "from scratch, equal ranks"}


def _factored(base: str, goal: int, ranks: dict[str, int], kind: str, label: str, **options: Any) -> Variant:
    model = {"name": "factored", "options": {"base": base, "ranks": ranks, **options}}
    decay = _decay(goal)
    optim = {**_ADAM["optim"], **({"name": "adamw", **decay} if decay else {})}
    return Variant(
        f"{kind}-{goal}",
        f"factors from scratch, {label}, {goal:,}",
        {**_ADAM, "optim": optim, "model": model},
        _at(goal),
        series=_SCRATCH[kind],
    )


def _low_rank_about(place: str, dense: str) -> str:
    return (
        f"{place}, batches of 100, the same epochs for all; {dense} stays dense, every number stored for weights "
        f"counts, a low-rank weight as its two factors. AdaBreg as the recipe has it, ranks found under one λ. Beside "
        f"it Adam, lr = 0.001: dense for half of the steps, then cut to the leading singular values that the same "
        f"budget allows and fine-tuned by factors; and two thin layers in the place of each from the start, lr falling "
        f"by cosine."
    )


FRONTIER_LOW_RANK = Experiment(
    name="frontier-low-rank",
    title="The frontier of low rank: LeNet-300-100 on MNIST",
    about=_low_rank_about("LeNet-300-100 on MNIST", "the last layer")
    + " The same ranks are those that AdaBreg came to in `size-low-rank`. At 15,324 numbers all have the decoupled "
    "weight decay of 0.1 that AdaBreg has there.",
    config="size_lenet.yaml",
    variants=tuple(
        variant
        for goal, found, uniform in ((31016, (24, 9), 20), (15324, (11, 6), 9))
        for variant in (
            _grown(goal, ("fc3",)),
            _truncated(goal, ("fc3",)),
            _factored("lenet_300_100", goal, {"fc1": found[0], "fc2": found[1]}, "same-ranks", "the same ranks"),
            _factored("lenet_300_100", goal, {"fc1": uniform, "fc2": uniform}, "uniform", f"rank {uniform}"),
        )
    ),
    scales=_scales(3),
    columns=(ACCURACY, _STORED, SECONDS),
    figures=(Scatter("stored", "Accuracy against numbers stored", _STORED, ACCURACY),),
    marks={"adabreg-31016": {"test_accuracy": 98.2}, "adabreg-15324": {"test_accuracy": 97.0}},
    marks_from="an earlier study of this library's authors",
    measure=_size,
    pairs=tuple(
        (f"adabreg-{goal}", f"{other}-{goal}")
        for goal in (31016, 15324)
        for other in ("truncated", "same-ranks", "uniform")
    ),
)

_CAFFE = ("features.conv1", "classifier.fc2")

FRONTIER_LOW_RANK_LENET5 = Experiment(
    name="frontier-low-rank-lenet5",
    title="The frontier of low rank: LeNet-5-Caffe on MNIST",
    about=_low_rank_about("LeNet-5-Caffe on MNIST", "the first convolution and the last layer"),
    config="frontier_lenet5.yaml",
    variants=tuple(
        variant
        for goal, rank in ((30278, 13), (13091, 4))
        for variant in (
            _grown(goal, _CAFFE),
            _truncated(goal, _CAFFE),
            _factored(
                "lenet5_caffe", goal, {"features.conv2": rank, "classifier.fc1": rank}, "uniform", f"rank {rank}"
            ),
        )
    ),
    scales=_scales(3, 10),
    columns=(ACCURACY, _STORED, SECONDS),
    figures=(Scatter("stored", "Accuracy against numbers stored", _STORED, ACCURACY),),
    marks={"adabreg-30278": {"test_accuracy": 98.2}, "adabreg-13091": {"test_accuracy": 98.1}},
    marks_from="DLRT (Schotthöfer, Zangrando, Kusch, Ceruti, Tudisco 2022) with as many parameters",
    measure=_size,
    pairs=tuple(
        (f"adabreg-{goal}", f"{other}-{goal}") for goal in (30278, 13091) for other in ("truncated", "uniform")
    ),
)

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
            for share, scales in zip(_WIDTHS, (_LONG, _BRIEF, _LONG, _LONG), strict=True)
        ),
        *(
            Variant(
                f"narrow-{share:g}",
                f"narrow from the start, {share:.0%}",
                {**_ADAM, "model": {"name": "mlp", "hidden": widths}},
                scales,
                series="narrow from the start",
            )
            for (share, widths), scales in zip(_WIDTHS.items(), (_LONG, _BRIEF, _LONG, _LONG), strict=True)
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
        *(_shrunk(share, "filters and units", scales) for share, scales in ((0.1, _LONG), (0.2, _BRIEF), (0.4, _LONG))),
    ),
    scales=_scales(3, 10),
    columns=(ACCURACY, _MACS, _ONE, _MANY, _FASTER),
    figures=(Scatter("macs", "Accuracy against multiply-adds", _MACS, ACCURACY),),
    measure=_after_compaction,
    pairs=tuple((f"adabreg-{share:g}", "dense") for share in (0.1, 0.2, 0.4)),
)
