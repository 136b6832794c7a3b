"""Running what is missing: skipped, resumed, in parallel, with failures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_bregman.experiments import Experiment, Variant
from torch_bregman.experiments.one_run import Job
from torch_bregman.experiments.queue import run_missing
from torch_bregman.experiments.results import Results
from torch_bregman.report.experiment_table import markdown_table, values
from torch_bregman.train import Conf, RunFolder, fit
from torch_bregman.train.history import Row


class StopAfter:
    """Interrupts a run after an epoch, as a kill would."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def started(self, *_: object) -> None: ...

    def epoch(self, row: Row) -> None:
        if row["epoch"] == self._epoch:
            raise KeyboardInterrupt

    def finished(self, result: object) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {"out": str(tmp_path / "runs"), "results": str(tmp_path / "results")}


def timeless(results: Results) -> list[tuple[str, int, dict[str, float], dict[str, list[float]]]]:
    """All numbers but the time they took."""
    return [
        (run.variant, run.seed, {k: v for k, v in run.numbers.items() if k != "seconds"}, run.curves)
        for run in results.runs
    ]


def test_all_variants_and_seeds_run_and_are_not_run_again(tiny: Experiment, places: dict[str, Any]) -> None:
    said: list[str] = []
    first = run_missing(tiny, "smoke", **places, say=said.append)
    assert [(run.variant, run.seed) for run in first.runs] == [("linbreg", 0), ("linbreg", 1), ("sgd", 0), ("sgd", 1)]
    assert said[0].startswith("bregman experiment run tiny --scale smoke: 4 runs to do, 0 in ")
    assert said[1].startswith("[1/4] tiny linbreg seed 0: test accuracy, % ")
    folders = {path: path.stat().st_mtime_ns for path in Path(places["out"]).rglob("*")}
    again = run_missing(tiny, "smoke", **places, say=said.append)
    assert again.runs == first.runs
    assert "0 runs to do, 4 in" in said[-1]
    assert {path: path.stat().st_mtime_ns for path in Path(places["out"]).rglob("*")} == folders


def test_numbers_are_those_of_the_run_itself(tiny: Experiment, places: dict[str, Any], tmp_path: Path) -> None:
    (run,) = run_missing(tiny, "small", **places, say=lambda _: None).runs
    conf = dataclasses.replace(tiny.conf("small", tiny.variants[0]), out=str(tmp_path / "alone"))
    result = fit(conf, observers=[])
    assert run.numbers["test_accuracy"] == pytest.approx(result.summary["test_accuracy"], rel=1e-5)
    assert run.curves["val_loss"] == pytest.approx([row["val_loss"] for row in result.rows], rel=1e-5)
    assert len(run.curves["val_loss"]) == 3
    assert {"torch", "python", "torch-bregman", "processor", "cores"} <= run.environment.keys()


def test_parallel_processes_come_to_the_same_numbers(tiny: Experiment, places: dict[str, Any], tmp_path: Path) -> None:
    alone = run_missing(tiny, "smoke", **places, say=lambda _: None)
    together = {"out": str(tmp_path / "runs2"), "results": str(tmp_path / "results2")}
    assert timeless(run_missing(tiny, "smoke", **together, jobs=2, say=lambda _: None)) == timeless(alone)


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    tiny: Experiment, places: dict[str, Any], tmp_path: Path
) -> None:
    untouched = {"out": str(tmp_path / "runs2"), "results": str(tmp_path / "results2")}
    expected = run_missing(tiny, "smoke", **untouched, say=lambda _: None)
    job = Job(tiny, "smoke", tiny.variant("linbreg"), 1, places["out"], None)
    with pytest.raises(KeyboardInterrupt):
        fit(job.conf(), observers=[StopAfter(1)])
    assert timeless(run_missing(tiny, "smoke", **places, say=lambda _: None)) == timeless(expected)
    assert sorted(path.name for path in (tmp_path / "runs" / "tiny-smoke").iterdir()) == [
        *("linbreg-0", "linbreg-1", "sgd-0", "sgd-1")
    ]


def test_a_run_that_never_started_is_no_obstacle(tiny: Experiment, places: dict[str, Any]) -> None:
    (Path(places["out"]) / "tiny-smoke" / "linbreg-0").mkdir(parents=True)
    assert len(run_missing(tiny, "smoke", **places, say=lambda _: None).runs) == 4


def test_a_folder_of_another_configuration_is_left_alone(tiny: Experiment, places: dict[str, Any]) -> None:
    run_missing(tiny, "small", **places, say=lambda _: None)
    shorter = dataclasses.replace(tiny, variants=(Variant("linbreg", "LinBreg", {"epochs": 1}),))
    (run,) = run_missing(shorter, "small", **places, replace=True, say=lambda _: None).runs
    assert len(run.curves["val_loss"]) == 1
    folders = sorted((Path(places["out"]) / "tiny-small").iterdir())
    assert [Conf.from_yaml(RunFolder(path).config).epochs for path in folders] == [3, 1]


def test_one_run_that_diverges_does_not_keep_the_others(tiny: Experiment, places: dict[str, Any]) -> None:
    wild = Variant("wild", "wild", {"optim": {"name": "sgd", "lr": 1e30}})
    broken = dataclasses.replace(tiny, variants=(wild, *tiny.variants))
    said: list[str] = []
    with pytest.raises(ValueError, match=r"2 of 6 runs failed, first tiny wild seed 0: epoch 1 diverged"):
        run_missing(broken, "smoke", **places, say=said.append)
    assert len(Results.open(Path(places["results"]), broken, "smoke").runs) == 4
    assert any("wild seed 0 failed: epoch 1 diverged" in line for line in said)


def test_a_setting_that_diverges_is_the_worst_of_those_that_are_tried(tiny: Experiment, places: dict[str, Any]) -> None:
    wild = Variant("wild", "wild", {"optim": {"name": "sgd", "lr": 1e30}})
    tuning = dataclasses.replace(tiny, variants=(wild, *tiny.variants), tunes=True)
    said: list[str] = []
    results = run_missing(tuning, "smoke", **places, seeds=1, say=said.append)
    assert "tiny wild seed 0: epoch 1 diverged (the loss is nan)" in said[1]
    (run,) = results.of("wild")
    assert (run.numbers, run.curves) == ({}, {})
    assert run.environment["torch"] == torch.__version__
    again = Results.open(Path(places["results"]), tuning, "smoke")
    assert again.runs == results.runs
    assert "| wild | 1 | diverged | diverged |" in " ".join(markdown_table(again).split())
    assert '"diverged": ""' not in results.path.read_text()
    assert not values(again, wild, tuning.columns[0])


def test_what_is_measured_besides_is_among_the_numbers(tiny: Experiment, places: dict[str, Any]) -> None:
    measuring = dataclasses.replace(tiny, measure=lambda folder: {"letters": float(len(folder.path.name))})
    runs = run_missing(measuring, "smoke", **places, only=["sgd"], seeds=1, say=lambda _: None).runs
    assert [run.numbers["letters"] for run in runs] == [5.0]


def test_a_variant_of_another_scale_is_refused(tiny: Experiment, places: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="variant sgd of tiny does not run at scale small"):
        run_missing(tiny, "small", **places, only=["sgd"])


def test_data_lie_in_a_folder_of_their_name_or_in_the_folder_itself(tiny: Experiment, tmp_path: Path) -> None:
    mnist = dataclasses.replace(tiny, variants=(Variant("a", "a", {"data": {"name": "mnist"}}),))
    job = Job(mnist, "smoke", mnist.variants[0], 0, "runs", str(tmp_path))
    assert job.conf().data.dir == str(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert job.conf().data.dir == str(tmp_path / "mnist")
    assert Job(tiny, "smoke", tiny.variants[0], 0, "runs", str(tmp_path)).conf().data.dir is None
