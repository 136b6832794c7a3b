"""Paired differences and Student's distribution, beside scipy's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from torch_bregman.experiments import Experiment
from torch_bregman.experiments.results import Results, Run
from torch_bregman.experiments.significance import differences, paired, student_probability, student_quantile


@given(t=st.floats(-50, 50), degrees=st.integers(1, 60))
def test_the_distribution_is_that_of_scipy(t: float, degrees: int) -> None:
    assert student_probability(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)


@given(probability=st.floats(0.001, 0.999), degrees=st.integers(1, 60))
def test_the_quantile_is_that_of_scipy(probability: float, degrees: int) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(
        stats.t.ppf(probability, degrees), rel=1e-8, abs=1e-9
    )


@pytest.mark.parametrize("probability", [0.0, 1.0, -1.0, float("nan")])
def test_a_probability_outside_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="probability must lie in"):
        student_quantile(probability, 3)


def results_of(tiny: Experiment, folder: Path, ours: dict[int, float], its: dict[int, float]) -> Results:
    experiment = dataclasses.replace(tiny, pairs=(("linbreg", "sgd"),))
    results = Results.open(folder, experiment, "smoke")
    for variant, numbers in (("linbreg", ours), ("sgd", its)):
        for seed, accuracy in numbers.items():
            results.runs.append(Run(variant, seed, {}, {"test_accuracy": accuracy}, {}))
    return results


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_a_paired_t_test(seed: int, tiny: Experiment, tmp_path: Path) -> None:
    rng, count = np.random.default_rng(seed), seed + 2
    ours, its = rng.uniform(0.9, 1, count), rng.uniform(0.9, 1, count)
    results = results_of(tiny, tmp_path, dict(enumerate(map(float, ours))), dict(enumerate(map(float, its))))
    found = paired(results, "linbreg", "sgd", tiny.columns[0])
    assert found is not None
    delta = 100 * (ours - its)
    low, high = stats.t.interval(0.95, count - 1, loc=delta.mean(), scale=stats.sem(delta))
    assert (found.seeds, found.mean, found.low, found.high) == (
        count,
        *(pytest.approx(x) for x in (delta.mean(), low, high)),
    )
    assert found.sure == (1 if low > 0 else -1 if high < 0 else 0)


def test_pairs_are_of_the_same_seed(tiny: Experiment, tmp_path: Path) -> None:
    (found,) = differences(results_of(tiny, tmp_path, {0: 0.9, 1: 0.8, 5: 0.1}, {1: 0.7, 0: 0.8, 7: 1.0}))
    assert (found.seeds, found.mean) == (2, pytest.approx(10.0))
    assert found.sure == 1  # both by just as much


def test_one_pair_says_nothing_for_sure_and_none_is_none(tiny: Experiment, tmp_path: Path) -> None:
    (found,) = differences(results_of(tiny, tmp_path / "one", {0: 0.9}, {0: 0.1}))
    assert (found.low, found.high, found.sure) == (None, None, 0)
    assert differences(results_of(tiny, tmp_path / "none", {0: 0.9}, {1: 0.1})) == []
