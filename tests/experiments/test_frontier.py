"""The frontier: every method comes to its size, grids are alike, and what is chosen is the best of its grid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torch_bregman import cli
from torch_bregman.experiments import choosing, find
from torch_bregman.experiments.catalog import TUNED
from torch_bregman.experiments.choosing import best, read_chosen, setting_for, write_chosen
from torch_bregman.experiments.frontier import FRONTIERS
from torch_bregman.experiments.frontier_low_rank import LOW_RANK_FRONTIERS
from torch_bregman.experiments.methods import METHODS, Setting
from torch_bregman.experiments.one_run import Job, complete
from torch_bregman.experiments.queue import run_missing
from torch_bregman.experiments.results import Results, Run
from torch_bregman.train.setup import set_up

ROOT = Path(__file__).parents[2]
ALL = list(FRONTIERS.values())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("frontier")
    out, results = str(folder / "runs"), str(folder / "results")
    return run_missing(find("frontier-mnist"), "smoke", out=out, results=results, say=lambda line: None)


def test_every_method_comes_to_its_size_in_seconds(smoke: Results) -> None:
    assert {run.variant.removesuffix("-0.1") for run in smoke.runs} == set(METHODS)
    for run in smoke.runs:
        dense = run.variant.startswith("dense")
        assert run.numbers["weights_left"] == pytest.approx(266200 if dense else 26620, abs=0 if dense else 300)
        assert run.numbers["test_accuracy"] > 0.6
        assert run.numbers["train_macs_share"] <= 1 + 1e-9
        assert not dense or run.numbers["train_macs_share"] == pytest.approx(1.0)


def test_what_moves_masks_at_random_costs_three_sparse_passes(smoke: Results) -> None:
    (static,) = smoke.of("static-0.1")
    densities = [static.numbers[f"layer_density/fc{i}.weight"] for i in (1, 2, 3)]
    left = sum(density * size for density, size in zip(densities, (235200, 30000, 1000), strict=True))
    assert static.numbers["train_macs"] == pytest.approx(2 * 6000 * 3 * left, rel=1e-3)


@pytest.mark.parametrize("frontier", ALL, ids=lambda each: each.name)
class TestEveryFrontier:
    def test_grids_are_as_large_as_ours(self, frontier) -> None:
        grids = {name: METHODS[name].grid for name in frontier.methods}
        assert {len(set(grid)) for grid in grids.values()} == {len(grids["adabreg"])}
        assert all(METHODS[name].usual in grid for name, grid in grids.items())

    def test_no_image_is_held_out_where_methods_are_compared_and_epochs_are_equal(self, frontier) -> None:
        experiment = find(frontier.name)
        for scale in ("small", "full"):
            confs = [experiment.conf(scale, variant) for variant in experiment.variants_at(scale)]
            assert {conf.data.validation for conf in confs} == {0.0}
            assert len({conf.epochs for conf in confs}) == 1

    def test_ours_is_paired_with_every_other_of_its_size(self, frontier) -> None:
        experiment = find(frontier.name)
        sized = [variant.name for variant in experiment.variants if not variant.name.startswith(("dense", "adabreg"))]
        assert [other for _, other in experiment.pairs] == sorted(sized, key=[o for _, o in experiment.pairs].index)
        assert len(experiment.pairs) == len(sized)
        assert all(one.rpartition("-")[2] == other.rpartition("-")[2] for one, other in experiment.pairs)


@pytest.mark.parametrize("frontier", TUNED.values(), ids=lambda each: each.name)
def test_candidates_are_the_variants_of_the_experiment_that_tunes(frontier) -> None:
    tuning = find(frontier.rates)
    assert [each.variant for each in frontier.candidates()] == [each.name for each in tuning.variants]
    for each in frontier.candidates():
        conf = tuning.conf("small", tuning.variant(each.variant))
        assert (conf.optim.lr, conf.optim.weight_decay) == (each.setting.lr, each.setting.weight_decay)
        assert conf.data.validation == 0.1
        if conf.target is not None and conf.target.params is not None:
            assert conf.target.params == each.tuned_at


@pytest.mark.parametrize("frontier", TUNED.values(), ids=lambda each: each.name)
def test_what_is_chosen_is_what_committed_results_say(frontier) -> None:
    chosen = read_chosen().get(frontier.rates)
    if chosen is None:
        pytest.skip("nothing was chosen yet")
    results = Results.open(ROOT / "docs/experiments", find(frontier.rates), chosen["scale"])
    found = best(results, frontier.candidates())
    assert found
    assert len(found) == sum(len(goals) for key, goals in chosen.items() if key != "scale")
    for each in found:
        assert setting_for(frontier.rates, each.method, each.tuned_at, read_chosen()) == each.setting


@pytest.mark.parametrize("frontier", LOW_RANK_FRONTIERS.values(), ids=lambda each: each.name)
class TestEveryFrontierOfLowRank:
    def test_grids_are_alike_and_hold_what_is_usual(self, frontier) -> None:
        assert {len(set(method.grid)) for method in frontier.methods} == {8}
        assert all(method.usual in method.grid for method in frontier.methods)

    def test_all_methods_come_to_the_numbers_asked_for(self, frontier) -> None:
        experiment = find(frontier.name)
        for budget in frontier.budgets:
            for method, ranks in budget.ranks.items():
                model = set_up(experiment.conf("smoke", experiment.variant(f"{method}-{budget.numbers}"))).model
                numbers = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
                step = 784 + 300 + 300 + 100 if "300" in frontier.base else 20 * 25 + 50 + 800 + 500
                assert budget.numbers - step < numbers <= budget.numbers, (method, ranks)

    def test_ours_is_paired_with_every_other_of_its_size(self, frontier) -> None:
        others = [method.name for method in frontier.methods[1:]]
        sizes = [budget.numbers for budget in frontier.budgets]
        assert list(find(frontier.name).pairs) == [(f"adabreg-{n}", f"{other}-{n}") for n in sizes for other in others]


def tuned(folder: Path, accuracies: dict[str, float]) -> Results:
    results = Results.open(folder, find("frontier-mnist-rates"), "small")
    for variant, accuracy in accuracies.items():
        results.add(Run(variant, 0, {}, {"val_accuracy": accuracy}, {}))
    return results


def test_a_setting_that_diverged_is_the_worst(tmp_path: Path) -> None:
    results = tuned(tmp_path, dict.fromkeys(GRID[1:], 0.1))
    results.add(Run(GRID[0], 0, {}, {}, {}, "epoch 1 diverged"))
    candidates = FRONTIERS["frontier-mnist"].candidates()
    assert [each.variant for each in best(results, candidates)] == [GRID[1]]


def test_a_frontier_may_have_a_grid_of_its_own() -> None:
    frontier = FRONTIERS["frontier-convnet"]
    for name in frontier.methods:
        grid = frontier.method(name).grid
        assert len(grid) == len(set(grid)) == len(METHODS[name].grid)
        assert frontier.method(name).usual in grid
        assert max(setting.lr for setting in grid) <= max(setting.lr for setting in METHODS[name].grid)
        assert [each.setting for each in frontier.candidates() if each.method.name == name] == list(grid)


GRID = [each.variant for each in FRONTIERS["frontier-mnist"].candidates() if each.variant.startswith("set-0.01-")]


def test_the_best_on_held_out_images_is_chosen_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "chosen.json"
    write_chosen("another", "full", [], kept)
    monkeypatch.setattr("torch_bregman.experiments.commands.write_chosen", lambda *given: write_chosen(*given, kept))
    accuracies = dict(zip(GRID, (0.9, 0.95, 0.93, 0.97, 0.97, 0.8, 0.9, 0.7), strict=True))
    tuned(tmp_path, {**accuracies, "rigl-0.01-0.1-0": 0.99})  # a grid that is not whole yet is left out
    arguments = ["experiment", "choose", "frontier-mnist-rates", "--scale", "small", "--results", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "SET at 1 %: lr = 0.1, weight decay = 0.0005\n" in capsys.readouterr().out
    picks = {"scale": "small", "set": {"0.01": {"lr": 0.1, "weight_decay": 0.0005}}}
    assert json.loads(kept.read_text()) == {"another": {"scale": "full"}, "frontier-mnist-rates": picks}
    chosen = read_chosen(kept)
    assert setting_for("frontier-mnist-rates", METHODS["set"], 0.01, chosen) == Setting(0.1, 0.0005)
    assert setting_for("frontier-mnist-rates", METHODS["set"], 0.05, chosen) == METHODS["set"].usual


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frontier-mnist", "experiment choose needs one of frontier-mnist-rates, frontier-fashion-rates"),
        ("frontier-mnist-rates", "frontier-mnist-rates-smoke.json has no whole grid yet: bregman experiment run"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["experiment", "choose", name, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert choosing.CHOSEN.parent.is_dir()


def test_runs_made_with_another_lam_are_not_taken_for_this_one(tmp_path: Path) -> None:
    experiment = find("frontier-mnist")
    names = set()
    for lam in (1e-3, 3e-3):
        variant = METHODS["proxsgd"].variant("proxsgd-0.1", "ProxSGD", Setting(0.1, lam=lam), 0.1)
        names.add(Job(experiment, "smoke", variant, 0, str(tmp_path), None).conf().name)
    assert len(names) == 2
    assert all(name.startswith("proxsgd-0.1-0-") for name in names)


def test_results_made_with_another_lam_are_refused(smoke: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, folder = smoke.experiment, smoke.path.parent
    assert len(Results.open(folder, experiment, "smoke").runs) == 12
    text = smoke.path.read_text()
    assert '"beside": {"lam": 0.001}' in text
    other = folder / "other"
    other.mkdir()
    (other / smoke.path.name).write_text(text.replace('"beside": {"lam": 0.001}', '"beside": {"lam": 0.002}'))
    with pytest.raises(ValueError, match=r"variant proxsgd-0\.1 differs in beside"):
        Results.open(other, experiment, "smoke")


def test_a_run_that_was_stopped_goes_on_with_its_masks(tmp_path: Path) -> None:
    experiment = find("frontier-mnist")
    job = Job(experiment, "smoke", experiment.variant("rigl-0.1"), 3, str(tmp_path / "whole"), None)
    whole = complete(job)
    folder = tmp_path / "whole" / "frontier-mnist-smoke" / "rigl-0.1-3"
    (folder / "summary.json").unlink()
    again = complete(job)  # goes on after the last epoch: nothing is left to train
    assert {**again.numbers, "seconds": 0} == {**whole.numbers, "seconds": 0}
