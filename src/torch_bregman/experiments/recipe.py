"""What an experiment is: configurations × seeds, what is measured of every run, and what is shown. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_bregman.train import Conf, RunFolder
from torch_bregman.train.yaml_file import read_mapping

SCALES = ("smoke", "small", "full")
"""Seconds on the embedded sample; minutes to an hour on two cores with the real data; as published."""

Changes = Mapping[str, Any]
"""Fields of `Conf`, sections as mappings."""

Measure = Callable[[RunFolder], dict[str, float]]
"""Numbers of a finished run that its summary does not hold."""


@dataclass(frozen=True)
class Quantity:
    """A number of a run, as it is shown.

    Args:
        key: in the summary, in the log (`layer_rank/fc1.weight` for nested columns), or of what `measure` returns.
        label: heading of the column or the axis, with its unit.
        factor: from the number to that unit.
        digits: after the point.
    """

    key: str
    label: str
    factor: float = 1.0
    digits: int = 2


ACCURACY = Quantity("test_accuracy", "test accuracy, %", 100)
VALIDATION = Quantity("val_accuracy", "validation accuracy, %", 100)
VALIDATION_LOSS = Quantity("val_loss", "validation loss", 1, 4)
LOSS = Quantity("train_loss", "training loss", 1, 4)
DENSITY = Quantity("density", "weights left, %", 100)
SECONDS = Quantity("seconds", "seconds of training", 1, 0)


@dataclass(frozen=True)
class Variant:
    """One line of the table: a configuration.

    Args:
        name: of its folders, e.g. linbreg-0.1.
        label: in tables and figures.
        changes: to the experiment's configuration.
        scales: at which it runs.
        controls: makes what else is advanced after every step, as in `train.fit`.
        beside: what those are set to that the configuration does not say.
        gradients: share of the steps that need the gradient of all weights, awake or not; with it the cost of training
            is counted, see `measures.training_cost`.
        series: of which it is one size: figures join those of one name.
    """

    name: str
    label: str
    changes: Changes
    scales: tuple[str, ...] = SCALES
    controls: Callable[[Conf, Any], Sequence[Any]] | None = None
    beside: Changes = field(default_factory=dict)
    gradients: float | None = None
    series: str = ""


@dataclass(frozen=True)
class Scale:
    """How large an experiment is done.

    Args:
        about: in words, for the page: epochs, data, what is left out.
        seeds: runs a variant, with seeds 0, 1, …
        changes: to the experiment's configuration, before those of the variant.
    """

    about: str
    seeds: int
    changes: Changes


BRIEF = Scale(
    "2 epochs of the embedded sample, 1 seed.",
    1,
    {"epochs": 2, "data": {"name": "sample", "batch_size": 100, "validation": 0.0}},
)
"""Scale smoke of what needs no more."""


def scales_of(brief: bool) -> tuple[str, ...]:
    """Return the scales of a variant: all, or all but smoke."""
    return SCALES if brief else SCALES[1:]


@dataclass(frozen=True)
class Curves:
    """A figure of quantities of the log against epochs, one panel each."""

    name: str
    title: str
    panels: tuple[Quantity, ...]


@dataclass(frozen=True)
class Scatter:
    """A figure of one final number against another, a point with its spread for every variant."""

    name: str
    title: str
    x: Quantity
    y: Quantity


@dataclass(frozen=True)
class Experiment:
    """Configurations × seeds.

    Args:
        name: for the command.
        title: for the page.
        about: what is compared, which grids were searched, and how the choice was made.
        config: file beside the recipe with what all variants share.
        variants: what is compared.
        scales: by name, some of `SCALES`.
        columns: of the table.
        figures: drawn of the results.
        marks: numbers to compare with, by variant and key, in the units shown.
        marks_from: whose they are.
        measure: what else is measured of a finished run.
        pairs: names of two variants whose difference is to be judged, seed by seed: the first less the second.
        judged: by which quantity.
        tunes: whether it tries settings: one that diverges is then a result, the worst, and not an error.
    """

    name: str
    title: str
    about: str
    config: str
    variants: tuple[Variant, ...]
    scales: Mapping[str, Scale]
    columns: tuple[Quantity, ...] = (ACCURACY, DENSITY)
    figures: tuple[Curves | Scatter, ...] = ()
    marks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    marks_from: str = ""
    measure: Measure | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    judged: Quantity = ACCURACY
    tunes: bool = False

    def at(self, scale: str) -> Scale:
        """Return how it is done at a scale.

        Raises:
            ValueError: where it is not.
        """
        if scale not in self.scales:
            raise ValueError(f"experiment {self.name} has no scale {scale}: use {' or '.join(self.scales)}")
        return self.scales[scale]

    def variants_at(self, scale: str) -> list[Variant]:
        """Return what runs at a scale."""
        return [variant for variant in self.variants if scale in variant.scales]

    def variant(self, name: str) -> Variant:
        """Return the variant of that name.

        Raises:
            ValueError: where there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(variant.name for variant in self.variants)
        raise ValueError(f"experiment {self.name} has no variant {name!r}: use some of {known}")

    def conf(self, scale: str, variant: Variant) -> Conf:
        """Return the configuration of a variant, with seed 0.

        Raises:
            ValueError: for fields that do not fit.
        """
        base = read_mapping(Path(__file__).parent / self.config)
        return Conf.from_dict(merged(merged(base, self.at(scale).changes), variant.changes))


def merged(fields: Changes, changes: Changes) -> dict[str, Any]:
    """Return fields with changes; a section that is given a `name` or `kind` is replaced, others are amended.

    Example:
        >>> merged({"optim": {"name": "sgd", "momentum": 0.9}}, {"epochs": 3, "optim": {"name": "adam"}})
        {'optim': {'name': 'adam'}, 'epochs': 3}
        >>> merged({"optim": {"name": "sgd", "momentum": 0.9}}, {"optim": {"lr": 0.1}})
        {'optim': {'name': 'sgd', 'momentum': 0.9, 'lr': 0.1}}
    """
    result = dict(fields)
    for key, value in changes.items():
        amends = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and not {"name", "kind"} & {*value}
        result[key] = {**result[key], **value} if amends else value
    return result


def settings(conf: Conf) -> dict[str, Any]:
    """Return all fields of a configuration that bear on what comes out, but for the seed.

    Example:
        >>> {"name", "seed", "out"} & settings(Conf()).keys()
        set()
    """
    plain = conf.to_dict()
    plain["data"].pop("dir")
    return {key: value for key, value in plain.items() if key not in ("name", "seed", "out", "track", "scale")}
