"""The frontier: how good a network of a given size is by each method, under the same budget of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch_bregman.experiments.choosing import Candidate, held_out, not_yet, read_chosen, setting_for, tuned_for
from torch_bregman.experiments.methods import METHODS, Method, Setting, grid
from torch_bregman.experiments.recipe import (
    ACCURACY,
    BRIEF,
    DENSITY,
    SECONDS,
    VALIDATION,
    Experiment,
    Quantity,
    Scale,
    Scatter,
    Variant,
    scales_of,
)

_LEFT = Quantity("weights_left", "weights left", 1, 0)
_COST = Quantity("train_macs_share", "training cost, % of dense", 100, 0)
_OURS = "adabreg"
_FIGURES = (
    Scatter("size", "Accuracy against size", DENSITY, ACCURACY),
    Scatter("cost", "Accuracy against the cost of training", _COST, ACCURACY),
)


@dataclass(frozen=True)
class Frontier:
    """A network, a data set, sizes and methods: two experiments, one that tunes and one that compares.

    Args:
        name: of the experiment that compares; the one that tunes has `-rates` after it.
        place: network and data, in words.
        config: file with what all share.
        goals: densities.
        tuned_at: densities at which settings are chosen, each for all goals up to the next.
        methods: by name.
        scales: of the comparison.
        tuning: scales of the experiment that tunes.
        marks: published accuracies by goal, beside AdaBreg.
        marks_from: whose.
        smoke: methods that run at scale smoke.
        grids: of methods whose own does not suit the network; the first setting is the usual one.
    """

    name: str
    place: str
    config: str
    goals: tuple[float, ...]
    tuned_at: tuple[float, ...]
    methods: tuple[str, ...]
    scales: Mapping[str, Scale]
    tuning: Mapping[str, Scale]
    marks: Mapping[float, float] = field(default_factory=dict)
    marks_from: str = ""
    smoke: tuple[str, ...] = (_OURS,)
    grids: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)

    @property
    def rates(self) -> str:
        """Name of the experiment that tunes."""
        return f"{self.name}-rates"

    def method(self, name: str) -> Method:
        """Return a method with the grid that it has here."""
        own = self.grids.get(name)
        return METHODS[name] if own is None else replace(METHODS[name], grid=own, usual=own[0])

    def candidates(self) -> tuple[Candidate[Method], ...]:
        """Return all that is tried."""
        return tuple(
            Candidate(_named(method, goal, setting.name), method, goal, setting, _percent(goal))
            for method in map(self.method, self.methods)
            for goal in ((1.0,) if method.dense else self.tuned_at)
            for setting in method.grid
        )

    def compared(self) -> Experiment:
        """Return the experiment that compares."""
        variants = tuple(
            self._variant(self.method(name), goal) for goal in (1.0, *self.goals) for name in self._at(goal)
        )
        others = [name for name in self.methods if name != _OURS and not METHODS[name].dense]
        return Experiment(
            name=self.name,
            title=f"The frontier: {self.place}",
            about=self._about(),
            config=self.config,
            variants=variants,
            scales=self.scales,
            columns=(ACCURACY, DENSITY, _LEFT, _COST, SECONDS),
            figures=_FIGURES,
            marks={_named(METHODS[_OURS], goal): {"test_accuracy": mark} for goal, mark in self.marks.items()},
            marks_from=self.marks_from,
            pairs=tuple((f"{_OURS}-{goal:g}", f"{name}-{goal:g}") for goal in self.goals for name in others),
        )

    def tuned(self) -> Experiment:
        """Return the experiment that tunes."""
        first = {(each.method.name, each.tuned_at): each.variant for each in reversed(self.candidates())}
        return Experiment(
            name=self.rates,
            title=f"Settings for the frontier: {self.place}",
            about=(
                f"The grids for `{self.name}`: eight settings for every method, learning rates times weight decays "
                f"or, for methods with a regulariser of their own, with λ; at {_listed(self.tuned_at)} of the weights, "
                f"each for the sizes up to the next. The best accuracy on the held-out tenth of the training images "
                f"after the last epoch is taken, by `bregman experiment choose {self.rates}`; test images are not "
                f"looked at."
            ),
            config=self.config,
            variants=tuple(
                each.method.variant(
                    each.variant,
                    f"{each.method.label}{_of(each.tuned_at)}, {each.setting.label}",
                    each.setting,
                    each.tuned_at,
                    scales_of(
                        each.variant == first[each.method.name, each.tuned_at]
                        and each.tuned_at in (1.0, self.tuned_at[0])
                        and each.method.name in self.smoke[:3]
                    ),
                )
                for each in self.candidates()
            ),
            scales={name: held_out(scale) for name, scale in self.tuning.items()},
            columns=(VALIDATION, DENSITY),
            tunes=True,
        )

    def _at(self, goal: float) -> list[str]:
        return [name for name in self.methods if METHODS[name].dense == (goal == 1.0)]

    def _variant(self, method: Method, goal: float) -> Variant:
        tuned = 1.0 if method.dense else tuned_for(goal, self.tuned_at)
        setting = setting_for(self.rates, method, tuned, _CHOSEN)
        brief = method.name in self.smoke and goal in (1.0, self.goals[-1])
        name, label = _named(method, goal), f"{method.label}{_of(goal)}"
        return method.variant(name, label, setting, goal, scales_of(brief))

    def _about(self) -> str:
        tuned = f"Settings of every method are chosen on held-out images from grids of equal size, by `{self.rates}`"
        usual = not_yet(self.rates, [METHODS[name] for name in self.methods], _CHOSEN)
        return (
            f"{self.place[0].upper()}{self.place[1:]}, batches of 100, the same epochs for every method, all training "
            f"images, exactly the density asked for over all weights (Erdős–Rényi methods lose what dies). Gradual "
            f"pruning over all layers together from 10 % to 60 % of the steps; one-shot pruning after half of them, "
            f"then anew from the full learning rate; SET, RigL and static masks with Erdős–Rényi densities; ProxSGD, "
            f"Prox-Adam and the ℓ1 penalty dense up to 70 % of the steps, where the largest weights are kept and "
            f"trained on without, as AdaBreg does. {tuned}{usual}. The cost of training counts multiply-adds by "
            f"zeros as saved, but for the full gradient where a method needs it."
        )


def _named(method: Method, goal: float, setting: str = "") -> str:
    size = "" if method.dense else f"-{goal:g}"
    return f"{method.name}{size}-{setting}" if setting else f"{method.name}{size}"


def _of(goal: float) -> str:
    return "" if goal == 1.0 else f", {_percent(goal)}"


def _listed(goals: tuple[float, ...]) -> str:
    *first, last = map(_percent, goals)
    return f"{', '.join(first)} and {last}" if first else last


def _percent(goal: float) -> str:
    return f"{100 * goal:g} %"


_CHOSEN = read_chosen()
_SIZED = ("one-shot", "pruning-sgd", "pruning-adam", "set", "rigl", "static", "proxsgd", "proxadam", "lasso")
_LENET = {
    "smoke": BRIEF,
    "small": Scale("20 epochs, 5 seeds.", 5, {"epochs": 20}),
    "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
}
_LENET_RATES = {
    "smoke": BRIEF,
    "small": Scale("10 epochs, 1 seed.", 1, {"epochs": 10}),
    "full": Scale("40 epochs, 3 seeds.", 3, {"epochs": 40}),
}
_GOALS = (0.005, 0.01, 0.02, 0.05, 0.1)
_CONVOLUTIONAL = {
    "adabreg": grid((0.02, 0.01, 0.03, 0.04), (0.0, 0.03)),
    "dense-sgd": grid((0.03, 0.01, 0.05, 0.1), (0.0, 5e-4)),
    "dense-adam": grid((0.001, 0.0005, 0.002, 0.005), (0.0, 0.1)),
    "pruning-sgd": grid((0.03, 0.01, 0.05, 0.1), (0.0, 5e-4)),
    "pruning-adam": grid((0.001, 0.0005, 0.002, 0.005), (0.0, 0.1)),
    "rigl": grid((0.05, 0.02, 0.1, 0.2), (0.0, 5e-4)),
}
"""Lower rates than those of perceptrons, for a weight that is used at many positions has a larger gradient; AdaBreg's,
which does not depend on how large gradients are, rises at first by the recipe, and stands those."""
_LENET5 = {
    **_CONVOLUTIONAL,
    "adabreg": grid((0.01, 0.005, 0.02, 0.04), (0.0, 0.1)),
    "pruning-sgd": grid((0.05, 0.03, 0.1, 0.2), (0.0, 5e-4)),
    "proxadam": grid((0.002, 0.005), (), (0.1, 0.03, 0.01)) + grid((0.01,), (), (0.1, 0.03)),
    "rigl": grid((0.05, 0.02, 0.07, 0.1), (0.0, 5e-4)),
}
"""AdaBreg with the weight decay of larger networks; gradual pruning and Prox-Adam came to the edge of the grids above;
RigL diverges from a rate of 0.1 on."""
_MOMENTUM = "sparse momentum (Dettmers, Zettlemoyer 2019), 100 epochs"

FRONTIERS: dict[str, Frontier] = {
    frontier.name: frontier
    for frontier in (
        Frontier(
            name="frontier-mnist",
            place="LeNet-300-100 on MNIST",
            config="size_lenet.yaml",
            goals=_GOALS,
            tuned_at=(0.005, 0.01, 0.05),
            methods=("dense-sgd", "dense-adam", _OURS, *_SIZED),
            scales=_LENET,
            tuning=_LENET_RATES,
            marks={0.01: 97.64, 0.02: 98.01, 0.05: 98.47, 0.1: 98.6},
            marks_from=_MOMENTUM,
            smoke=(_OURS, "dense-sgd", "pruning-sgd", "dense-adam", *_SIZED),
        ),
        Frontier(
            name="frontier-fashion",
            place="LeNet-300-100 on Fashion-MNIST",
            config="size_fashion.yaml",
            goals=_GOALS,
            tuned_at=(0.005, 0.01, 0.05),
            methods=("dense-sgd", "dense-adam", _OURS, *_SIZED),
            scales=_LENET,
            tuning=_LENET_RATES,
        ),
        Frontier(
            name="frontier-lenet5",
            place="LeNet-5-Caffe on MNIST",
            config="frontier_lenet5.yaml",
            goals=(0.01, 0.02, 0.05),
            tuned_at=(0.02,),
            methods=("dense-adam", _OURS, "pruning-sgd", "pruning-adam", "rigl", "proxadam"),
            scales={
                "smoke": BRIEF,
                "small": Scale("10 epochs, 3 seeds.", 3, {"epochs": 10}),
                "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
            },
            tuning={
                "smoke": BRIEF,
                "small": Scale("3 epochs, 1 seed.", 1, {"epochs": 3}),
                "full": Scale("40 epochs, 3 seeds.", 3, {"epochs": 40}),
            },
            grids=_LENET5,
            marks={0.01: 99.17, 0.02: 99.24, 0.05: 99.31},
            marks_from=f"{_MOMENTUM}; its network has a ReLU after each convolution, as here",
        ),
        Frontier(
            name="frontier-convnet",
            place="the JMLR paper's ConvNet on Fashion-MNIST",
            config="frontier_convnet.yaml",
            goals=(0.023,),
            tuned_at=(0.023,),
            methods=("dense-sgd", _OURS, "pruning-sgd"),
            scales={
                "smoke": BRIEF,
                "small": Scale("15 epochs in bfloat16 (weights in float32), 5 seeds.", 5, {}),
                "full": Scale("100 epochs in bfloat16 (weights in float32), 5 seeds.", 5, {"epochs": 100}),
            },
            tuning={
                "smoke": BRIEF,
                "small": Scale("3 epochs in bfloat16 (weights in float32), 2 seeds.", 2, {"epochs": 3}),
                "full": Scale("40 epochs in bfloat16 (weights in float32), 3 seeds.", 3, {"epochs": 40}),
            },
            grids=_CONVOLUTIONAL,
            marks={0.023: 90.5},
            marks_from="the JMLR paper, AdaBreg, 100 epochs",
        ),
    )
}
