"""The file of results: says what it was made from, and is refused where that was another configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.experiments import Experiment
from torch_bregman.experiments.recipe import merged
from torch_bregman.experiments.results import Results, Run, spread

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9)


def run(variant: str, seed: int, accuracy: float = 0.9) -> Run:
    return Run(variant, seed, {"torch": "2"}, {"test_accuracy": accuracy}, {"density": [0.1, 0.2]})


def changed(experiment: Experiment, **changes: object) -> Experiment:
    first, *others = experiment.variants
    first = dataclasses.replace(first, changes=merged(first.changes, changes))
    return dataclasses.replace(experiment, variants=(first, *others))


@pytest.fixture
def saved(tiny: Experiment, tmp_path: Path) -> Path:
    results = Results.open(tmp_path / "results", tiny, "smoke")
    for each in (run("sgd", 1), run("linbreg", 1), run("linbreg", 0)):
        results.add(each)
    return tmp_path / "results"


def test_what_was_added_is_there_by_variant_and_seed(saved: Path, tiny: Experiment) -> None:
    results = Results.open(saved, tiny, "smoke")
    assert [(each.variant, each.seed) for each in results.runs] == [("linbreg", 0), ("linbreg", 1), ("sgd", 1)]
    assert results.of("linbreg") == [run("linbreg", 0), run("linbreg", 1)]
    assert (results.has("sgd", 1), results.has("sgd", 0)) == (True, False)


def test_the_file_names_configuration_seeds_versions_and_command(saved: Path) -> None:
    content = json.loads((saved / "tiny-smoke.json").read_text())
    assert content["made_by"] == "bregman experiment run tiny --scale smoke"
    assert content["configs"]["linbreg"]["optim"]["lr"] == 0.5
    assert "seed" not in content["configs"]["linbreg"]
    assert content["runs"][0]["environment"] == {"torch": "2"}
    assert content["runs"][0]["seed"] == 0


def test_scales_do_not_mix(saved: Path, tiny: Experiment) -> None:
    assert Results.open(saved, tiny, "small").runs == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"epochs": 9}, "epochs"), ({"optim": {"lr": 0.4}}, "optim"), ({"dtype": "float64"}, "dtype")],
)
def test_results_of_another_configuration_are_refused(
    saved: Path, tiny: Experiment, changes: dict[str, object], field: str
) -> None:
    other = changed(tiny, **changes)
    with pytest.raises(ValueError, match=f"another configuration, variant linbreg differs in {field}: .*--replace"):
        Results.open(saved, other, "smoke")
    kept = Results.open(saved, other, "smoke", replace=True)
    assert [each.variant for each in kept.runs] == ["sgd"]


def test_results_of_a_variant_that_is_gone_are_refused(saved: Path, tiny: Experiment) -> None:
    fewer = dataclasses.replace(tiny, variants=tiny.variants[:1])
    with pytest.raises(ValueError, match="variant sgd differs in its name, which is gone"):
        Results.open(saved, fewer, "smoke")


def test_a_field_that_came_later_has_its_default_in_older_results(saved: Path, tiny: Experiment) -> None:
    path = saved / "tiny-smoke.json"
    content = json.loads(path.read_text())
    for config in content["configs"].values():
        del config["rank_schedule"], config["data"]["flip"]
    path.write_text(json.dumps(content))
    assert len(Results.open(saved, tiny, "smoke").runs) == 3
    with pytest.raises(ValueError, match="differs in data"):
        Results.open(saved, changed(tiny, data={"flip": True}), "smoke")


def test_a_field_that_is_gone_is_another_configuration(saved: Path, tiny: Experiment) -> None:
    path = saved / "tiny-smoke.json"
    path.write_text(path.read_text().replace('"dtype"', '"precision"'))
    with pytest.raises(ValueError, match="another configuration"):
        Results.open(saved, tiny, "smoke")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"configs": {}, "runs": 3}'])
def test_damaged_files_are_refused(text: str, tiny: Experiment, tmp_path: Path) -> None:
    (tmp_path / "tiny-smoke.json").write_text(text)
    with pytest.raises(ValueError, match=r"tiny-smoke\.json .*restore it, or remove it"):
        Results.open(tmp_path, tiny, "smoke")


def test_a_damaged_run_is_refused(saved: Path, tiny: Experiment) -> None:
    path = saved / "tiny-smoke.json"
    path.write_text(path.read_text().replace('"curves"', '"curve"', 1))
    with pytest.raises(ValueError, match="a run of the results cannot be read"):
        Results.open(saved, tiny, "smoke")


@given(values=numbers)
def test_spread_is_that_of_numpy(values: list[float]) -> None:
    mean, deviation = spread(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)
