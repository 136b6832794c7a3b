"""`bregman experiment` as a user types it."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest

from tests.commands import bregman, is_one_error, start, wait_for
from torch_bregman.experiments import EXPERIMENTS
from torch_bregman.experiments.commands import Request

RUN = ("experiment", "run", "jmlr-mlp-rates", "--only", "sgd-0.03", "linbreg-0.1", "--seeds", "2")


def runs(folder: Path) -> list[tuple[str, int]]:
    content = json.loads((folder / "results" / "jmlr-mlp-rates-smoke.json").read_text())
    return [(run["variant"], run["seed"]) for run in content["runs"]]


def test_run_then_tables_then_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    done = bregman(*RUN, "--jobs", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("validation accuracy") == 4
    assert done.stdout.endswith("results in results/jmlr-mlp-rates-smoke.json\n")
    assert runs(tmp_path) == [("sgd-0.03", 0), ("sgd-0.03", 1), ("linbreg-0.1", 0), ("linbreg-0.1", 1)]
    again = bregman(*RUN, cwd=tmp_path)
    assert "0 runs to do, 4 in" in again.stdout
    shown = bregman("experiment", "tables", "all", "--page", "page.md", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "| sgd, lr = 0.03 | 2 | " in shown.stdout
    table = (tmp_path / "results" / "jmlr-mlp-rates-smoke.csv").read_text().splitlines()
    assert [row["variant"] for row in csv.DictReader(table)] == ["sgd-0.03", "linbreg-0.1"]
    assert "| sgd, lr = 0.03 | 2 | " in (tmp_path / "page.md").read_text()
    listed = bregman("experiment", "list", cwd=tmp_path)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(EXPERIMENTS)
    assert "jmlr-mlp-rates             4 of  14 smoke runs" in listed.stdout


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    process = start(*RUN, cwd=tmp_path, PYTHONUNBUFFERED="1")
    assert wait_for(process, "[1/4]")
    process.kill()
    process.communicate()
    assert len(runs(tmp_path)) >= 1
    done = bregman(*RUN, cwd=tmp_path)
    assert done.returncode == 0
    assert len(runs(tmp_path)) == 4


def test_interrupted_it_ends_with_its_processes_and_goes_on(tmp_path: Path) -> None:
    many = (*RUN[:-1], "6")
    process = start(*many, "--jobs", "2", cwd=tmp_path, PYTHONUNBUFFERED="1")
    assert wait_for(process, "[1/12]")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)  # pipes close only when the last process has gone
    assert process.returncode == 130
    assert error == "bregman: interrupted: the same command goes on where the runs were stopped\n"
    assert bregman(*many, cwd=tmp_path).returncode == 0
    assert len(runs(tmp_path)) == 12


def test_killed_it_leaves_no_processes_behind(tmp_path: Path) -> None:
    process = start(*RUN[:-1], "40", "--jobs", "2", cwd=tmp_path, PYTHONUNBUFFERED="1")
    assert wait_for(process, "[1/80]")
    process.kill()
    process.communicate(timeout=60)  # pipes close only when the last process has gone
    assert len(runs(tmp_path)) < 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "experiment run needs the name of an experiment"),
        (["run", "jmlr"], "there is no experiment 'jmlr'"),
        (["run", "jmlr-mlp", "--jobs", "0"], "--jobs must be a number >= 1, got 0"),
        (["run", "jmlr-mlp", "--page", "a.md"], "--page has no effect with experiment run"),
        (["run", "jmlr-mlp", "--only", "adam"], "experiment jmlr-mlp has no variant 'adam'"),
        (["run", "jmlr-mlp", "--scale", "huge"], "scale"),
        (
            ["run", "jmlr-mlp", "--scale", "small", "--data.dir", "nowhere"],
            "seed 0: nowhere: no such folder",
        ),
        (["tables", "jmlr-mlp"], "results/jmlr-mlp-smoke.json has no runs yet"),
        (["tables", "jmlr-mlp", "--seeds", "3"], "--seeds has no effect with experiment tables"),
        (["list", "jmlr-mlp"], "NAME has no effect with experiment list"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from torch_bregman import cli

    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiment", *arguments]) == 2
    error = capsys.readouterr().err
    assert is_one_error(error)
    assert message in error


def test_every_flag_is_one_of_some_action() -> None:
    from torch_bregman.experiments.commands import _TAKES

    taken = set().union(*_TAKES.values())
    assert taken == set(Request.__dataclass_fields__) - {"action"}
