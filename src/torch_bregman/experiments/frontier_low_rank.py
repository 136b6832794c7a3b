"""The frontier of low rank: accuracy by the numbers stored, every method with settings chosen on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_bregman.experiments.choosing import Candidate, held_out, not_yet, read_chosen, setting_for, tuned_for
from torch_bregman.experiments.methods import FROZEN, Setting, grid
from torch_bregman.experiments.recipe import (
    ACCURACY,
    BRIEF,
    SECONDS,
    VALIDATION,
    VALIDATION_LOSS,
    Changes,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
    scales_of,
)
from torch_bregman.train import RunFolder
from torch_bregman.train.target_recipe import EARLY

_STORED = Quantity("numbers_stored", "numbers stored", 1, 0)
_OURS = "adabreg"
_CHOSEN = read_chosen()


@dataclass(frozen=True)
class Budget:
    """Numbers that weights may take, and what methods make of them that do not find ranks themselves.

    Args:
        numbers: of all weights, a low-rank one as its two factors.
        ranks: by method and layer, of those that train factors from the start.
    """

    numbers: int
    ranks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class LowRankMethod:
    """One way to a network of low rank.

    Args:
        name: for variants.
        label: in tables and figures.
        grid: what is tried on held-out images.
        usual: one of the grid, taken until something was chosen.
        changes: what it changes in a configuration.
    """

    name: str
    label: str
    grid: tuple[Setting, ...]
    usual: Setting
    changes: Callable[[LowRankFrontier, Budget, Setting], Changes]


@dataclass(frozen=True)
class LowRankFrontier:
    """A network, budgets and methods: two experiments, one that tunes and one that compares.

    Args:
        name: of the experiment that compares; the one that tunes has `-rates` after it.
        place: network and data, in words.
        config: file with what all share.
        base: network whose weights become factors.
        options: of that network.
        free: layers that stay dense.
        kept: those in words, as the subject of a sentence, with its verb.
        found: what AdaBreg finds, in words.
        frozen: how it trains the factors after the freeze, in words.
        note: what else is to be said.
        budgets: of numbers stored, the largest first.
        tuned_at: numbers at which settings are chosen, each for all budgets up to the next.
        methods: compared.
        scales: of the comparison.
        tuning: scales of the experiment that tunes.
        marks: known accuracies by budget, beside AdaBreg.
        marks_from: whose.
    """

    name: str
    place: str
    config: str
    base: str
    options: Mapping[str, Any]
    free: tuple[str, ...]
    kept: str
    found: str
    frozen: str
    note: str
    budgets: tuple[Budget, ...]
    tuned_at: tuple[int, ...]
    methods: tuple[LowRankMethod, ...]
    scales: Mapping[str, Scale]
    tuning: Mapping[str, Scale]
    marks: Mapping[int, float]
    marks_from: str

    @property
    def rates(self) -> str:
        """Name of the experiment that tunes."""
        return f"{self.name}-rates"

    @property
    def rules(self) -> dict[str, Any]:
        """Rules of the layers that stay dense."""
        return {layer: {"name": "none", "lam": 0.0} for layer in self.free}

    @property
    def _second(self) -> str:
        """What is tuned beside learning rates, in words."""
        frozen = any(setting.freeze is not None for method in self.methods for setting in method.grid)
        return "decoupled weight decays" + (
            ", for AdaBreg times shares of the steps before the freeze" if frozen else ""
        )

    def candidates(self) -> tuple[Candidate[LowRankMethod], ...]:
        """Return all that is tried."""
        return tuple(
            Candidate(f"{method.name}-{numbers}-{setting.name}", method, numbers, setting, f"{numbers:,} numbers")
            for method in self.methods
            for numbers in self.tuned_at
            for setting in method.grid
        )

    def compared(self) -> Experiment:
        """Return the experiment that compares."""
        variants = (self._variant(method, budget) for budget in self.budgets for method in self.methods)
        others = [method.name for method in self.methods if method.name != _OURS]
        return Experiment(
            name=self.name,
            title=f"The frontier of low rank: {self.place}",
            about=self._about(),
            config=self.config,
            variants=tuple(variants),
            scales=self.scales,
            columns=(ACCURACY, _STORED, SECONDS),
            figures=(Scatter("stored", "Accuracy against numbers stored", _STORED, ACCURACY),),
            marks={f"{_OURS}-{numbers}": {"test_accuracy": mark} for numbers, mark in self.marks.items()},
            marks_from=self.marks_from,
            measure=_size,
            pairs=tuple(
                (f"{_OURS}-{budget.numbers}", f"{other}-{budget.numbers}")
                for budget in self.budgets
                for other in others
            ),
        )

    def tuned(self) -> Experiment:
        """Return the experiment that tunes."""
        budgets = {budget.numbers: budget for budget in self.budgets}
        return Experiment(
            name=self.rates,
            title=f"Settings for the frontier of low rank: {self.place}",
            about=(
                f"The grids for `{self.name}`: eight settings for every method, learning rates times {self._second}, "
                f"at {' and '.join(f'{numbers:,}' for numbers in self.tuned_at)} numbers. The best accuracy on the "
                f"held-out tenth of the training images after the last epoch is taken, by `bregman experiment choose "
                f"{self.rates}`; test images are not looked at."
            ),
            config=self.config,
            variants=tuple(
                Variant(
                    each.variant,
                    f"{each.method.label}, {each.tuned_at:,}, {each.setting.label}",
                    each.method.changes(self, budgets[int(each.tuned_at)], each.setting),
                    scales_of(each.setting == each.method.grid[0] and each.tuned_at == max(self.tuned_at)),
                    series=each.method.label,
                )
                for each in self.candidates()
            ),
            scales={name: held_out(scale) for name, scale in self.tuning.items()},
            columns=(VALIDATION, VALIDATION_LOSS),
            tunes=True,
        )

    def _variant(self, method: LowRankMethod, budget: Budget) -> Variant:
        setting = setting_for(self.rates, method, tuned_for(budget.numbers, self.tuned_at), _CHOSEN)
        name, label = f"{method.name}-{budget.numbers}", f"{method.label}, {budget.numbers:,}"
        scales = scales_of(budget == self.budgets[0])
        return Variant(name, label, method.changes(self, budget, setting), scales, series=method.label)

    def _about(self) -> str:
        return (
            f"{self.place}, batches of 100, the same epochs for all; {self.kept} dense, every number stored for "
            f"weights counts, a low-rank weight as its two factors. AdaBreg finds {self.found} and trains the factors "
            f"alone, {self.frozen}. Beside it Adam, dense for half of the steps, then cut to the leading singular "
            f"values that the same budget allows and fine-tuned by factors from the full learning rate; and two thin "
            f"layers in the place of each from the start, the rate falling by cosine. {self.note}Settings of every "
            f"method are chosen on held-out images from grids of equal size, by `{self.rates}`"
            f"{not_yet(self.rates, self.methods, _CHOSEN)}."
        )


def _size(folder: RunFolder) -> dict[str, float]:
    from torch_bregman.experiments.measures import size

    return size(folder)


def _optim(name: str, setting: Setting) -> dict[str, Any]:
    return {"name": name, "lr": setting.lr, "weight_decay": setting.weight_decay}


def _grown(frontier: LowRankFrontier, budget: Budget, setting: Setting) -> Changes:
    """Return AdaBreg with a target; the factors alone are trained early and fast, or as the recipe for ℓ1 has it."""
    early = {} if setting.freeze == FROZEN else {**EARLY, "consolidate_lr": 2 * setting.lr}
    return {
        "regularizer": {"name": "nuclear"},
        "rules": frontier.rules,
        "optim": _optim("adabreg", setting),
        "target": {"params": budget.numbers, **early},
    }


def _truncated(frontier: LowRankFrontier, budget: Budget, setting: Setting) -> Changes:
    """Return dense Adam, its weights cut to the leading singular values after half of the steps, then factors."""
    end = {"controller": "none", "ramp": "none", "ramp_over": 0.0, "consolidate": 0.5, "consolidate_lr": setting.lr}
    return {
        "start": {"kind": "dense"},
        "regularizer": {"name": "nuclear", "lam": 0.0},
        "rules": frontier.rules,
        "optim": _optim("adabreg", setting),
        "target": {"params": budget.numbers, **end},
    }


def _from_scratch(method: str) -> Callable[[LowRankFrontier, Budget, Setting], Changes]:
    def changes(frontier: LowRankFrontier, budget: Budget, setting: Setting) -> Changes:
        own = {"options": {**frontier.options}} if frontier.options else {}
        options = {"base": frontier.base, "ranks": {**budget.ranks[method]}, **own}
        return {
            "start": {"kind": "dense"},
            "regularizer": {"name": "none", "lam": 0.0},
            "optim": _optim("adamw" if setting.weight_decay else "adam", setting),
            "schedule": {"name": "CosineAnnealingLR", "every": "step"},
            "model": {"name": "factored", "options": options},
        }

    return changes


_THIN = grid((0.005, 0.002, 0.01, 0.02), (0.0, 0.1))
"""Thin layers from the start stand, and want, a higher rate than a dense network that is cut."""
_SAME = LowRankMethod("same-ranks", "factors at the same ranks", _THIN, _THIN[0], _from_scratch("same-ranks"))
_EQUAL = LowRankMethod("uniform", "factors at equal ranks", _THIN, _THIN[0], _from_scratch("uniform"))


def _adabreg(settings: tuple[Setting, ...]) -> LowRankMethod:
    return LowRankMethod(_OURS, "AdaBreg", settings, settings[0], _grown)


_BY_DECAY = grid((0.003, 0.002, 0.005, 0.008), (0.0, 0.1))
_BY_FREEZE = grid((0.003, 0.002, 0.005, 0.008), freezes=(1 - EARLY["consolidate"], FROZEN))
"""Without a decay, which both budgets of LeNet-300-100 came to before, and with the freeze, in which they differ."""


def _cut(*rates: float) -> LowRankMethod:
    settings = grid(rates, (0.0, 0.1))
    return LowRankMethod("truncated", "truncated after dense Adam", settings, settings[0], _truncated)


def _lenet(numbers: int, same: tuple[int, int], equal: int) -> Budget:
    same_ranks = {"fc1": same[0], "fc2": same[1]}
    return Budget(numbers, {"same-ranks": same_ranks, "uniform": {"fc1": equal, "fc2": equal}})


def _caffe(numbers: int, equal: int) -> Budget:
    return Budget(numbers, {"uniform": {"features.conv2": equal, "classifier.fc1": equal}})


def _scales(epochs: int, brief: int, seeds: int) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Return scales of the comparison and of the experiment that tunes."""
    return (
        {
            "smoke": BRIEF,
            "small": Scale(f"{epochs} epochs, {seeds} seeds.", seeds, {"epochs": epochs}),
            "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
        },
        {
            "smoke": BRIEF,
            "small": Scale(f"{brief} epochs, 1 seed.", 1, {"epochs": brief}),
            "full": Scale("40 epochs, 3 seeds.", 3, {"epochs": 40}),
        },
    )


_LENET, _LENET_RATES = _scales(20, 20, seeds=5)
_LENET5, _LENET5_RATES = _scales(10, 5, seeds=3)

LOW_RANK_FRONTIERS: dict[str, LowRankFrontier] = {
    frontier.name: frontier
    for frontier in (
        LowRankFrontier(
            name="frontier-low-rank",
            place="LeNet-300-100 on MNIST",
            config="size_lenet.yaml",
            base="lenet_300_100",
            options={},
            free=("fc3",),
            kept="the last layer stays",
            found="ranks under one λ",
            frozen=(
                "from half of the steps on with twice the learning rate at first, or from 70 % on with half of it, as "
                "was better on held-out images"
            ),
            note="The same ranks are those that AdaBreg came to in `size-low-rank`. ",
            budgets=(_lenet(31016, (24, 9), 20), _lenet(15324, (11, 6), 9)),
            tuned_at=(15324, 31016),
            methods=(_adabreg(_BY_FREEZE), _cut(0.001, 0.0005, 0.00025, 0.002), _SAME, _EQUAL),
            scales=_LENET,
            tuning=_LENET_RATES,
            marks={31016: 98.2, 15324: 97.0},
            marks_from="an earlier study of this library's authors",
        ),
        LowRankFrontier(
            name="frontier-low-rank-lenet5",
            place="LeNet-5-Caffe on MNIST",
            config="frontier_lenet5.yaml",
            base="lenet5_caffe",
            options={"conv_relu": True},
            free=("features.conv1", "classifier.fc2"),
            kept="the first convolution and the last layer stay",
            found="as many directions in both layers, or one more in the smaller where that still fits,",
            frozen="from half of the steps on, with twice the learning rate at first",
            note=(
                "Truncation keeps the same ranks. For both the rate rises over 5 % of the steps at the start and after "
                "the freeze. "
            ),
            budgets=(_caffe(30278, 13), _caffe(13091, 4)),
            tuned_at=(13091,),
            methods=(_adabreg(_BY_DECAY), _cut(0.002, 0.001, 0.004, 0.008), _EQUAL),
            scales=_LENET5,
            tuning=_LENET5_RATES,
            marks={30278: 98.2, 13091: 98.1},
            marks_from="DLRT (Schotthöfer, Zangrando, Kusch, Ceruti, Tudisco 2022) with as many parameters",
        ),
    )
}
