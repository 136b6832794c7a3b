"""The recipes that ship: every configuration fits, every name leads somewhere."""

from __future__ import annotations

import dataclasses
import re

import pytest

from torch_bregman.experiments import EXPERIMENTS, SCALES, Curves, Experiment, find
from torch_bregman.experiments.recipe import settings
from torch_bregman.train import Conf
from torch_bregman.train.setup import set_up

ALL = list(EXPERIMENTS.values())


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: each.name)
class TestEveryRecipe:
    def test_names_can_be_typed_and_mean_one_thing(self, experiment: Experiment) -> None:
        names = [variant.name for variant in experiment.variants]
        labels = [variant.label for variant in experiment.variants]
        assert len(set(names)) == len(names)
        assert len(set(labels)) == len(labels)
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) for name in [experiment.name, *names])

    def test_it_has_scales_and_something_runs_at_each(self, experiment: Experiment) -> None:
        assert {"smoke", "full"} <= set(experiment.scales) <= set(SCALES)
        assert all(experiment.variants_at(scale) for scale in experiment.scales)
        assert all(set(variant.scales) <= set(experiment.scales) for variant in experiment.variants)

    def test_configurations_fit_and_differ(self, experiment: Experiment) -> None:
        for scale in experiment.scales:
            variants = experiment.variants_at(scale)
            runs = [(settings(experiment.conf(scale, variant)), repr(variant.controls)) for variant in variants]
            assert all(one != other for i, one in enumerate(runs) for other in runs[:i])

    def test_smoke_needs_no_data_but_the_sample_and_all_parts_go_together(self, experiment: Experiment) -> None:
        for variant in experiment.variants_at("smoke"):
            conf = experiment.conf("smoke", variant)
            assert conf.data.name == "sample"
            assert set_up(conf).model is not None

    def test_marks_stand_beside_what_is_shown(self, experiment: Experiment) -> None:
        shown = {quantity.key for quantity in experiment.columns}
        for name, marks in experiment.marks.items():
            assert experiment.variant(name)
            assert set(marks) <= shown
        assert bool(experiment.marks) == bool(experiment.marks_from)

    def test_at_least_three_seeds_where_conclusions_are_drawn(self, experiment: Experiment) -> None:
        least = 1 if experiment.name.endswith("-rates") else 3
        assert all(scale.seeds >= least for name, scale in experiment.scales.items() if name != "smoke")

    def test_figures_have_names_of_their_own(self, experiment: Experiment) -> None:
        names = [figure.name for figure in experiment.figures]
        assert len(set(names)) == len(names)
        assert all(figure.panels for figure in experiment.figures if isinstance(figure, Curves))


def test_the_table_knows_each_by_its_name() -> None:
    assert all(find(name) is experiment and experiment.name == name for name, experiment in EXPERIMENTS.items())


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no experiment 'jmlr-mpl': did you mean jmlr-mlp"):
        find("jmlr-mpl")


def test_a_scale_that_an_experiment_lacks_is_refused(tiny: Experiment) -> None:
    short = dataclasses.replace(tiny, scales={"smoke": tiny.scales["smoke"], "full": tiny.scales["full"]})
    with pytest.raises(ValueError, match="experiment tiny has no scale small: use smoke or full"):
        short.conf("small", tiny.variant("linbreg"))


def test_an_unknown_variant_is_refused(tiny: Experiment) -> None:
    with pytest.raises(ValueError, match="experiment tiny has no variant 'adam': use some of linbreg, sgd"):
        tiny.variant("adam")


def test_a_variant_goes_before_the_scale_and_the_scale_before_the_base(tiny: Experiment) -> None:
    conf = tiny.conf("small", tiny.variant("linbreg"))
    assert (conf.epochs, conf.optim.lr, conf.start.density) == (3, 0.5, 0.1)
    conf = tiny.conf("smoke", tiny.variant("sgd"))
    assert (conf.epochs, conf.optim.name, conf.start.kind) == (2, "sgd", "dense")


def test_settings_are_all_that_bears_on_the_result() -> None:
    conf = Conf()
    assert settings(Conf(name="other", seed=3, out="there")) == settings(conf)
    assert settings(Conf(epochs=3)) != settings(conf)
    assert settings(Conf(threads=2)) != settings(conf)
