"""What `bregman experiment` is asked for, and doing it. Without torch until something runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch_bregman.experiments.catalog import EXPERIMENTS, TUNED, find
from torch_bregman.experiments.choosing import CHOSEN, Candidate, best, write_chosen
from torch_bregman.experiments.results import Results

_TAKES = {
    "list": {"scale", "results"},
    "run": {"name", "scale", "data", "out", "results", "seeds", "only", "jobs", "replace"},
    "tables": {"name", "scale", "results", "page"},
    "choose": {"name", "scale", "results"},
}


@dataclass(frozen=True)
class Request:
    """The arguments of the command, checked.

    Args:
        action: list, run, tables or choose.
        name: of an experiment; all for tables.
        scale: smoke, small or full.
        data: folder of the data sets, or of the one that is needed; default the usual places.
        out: folder of all runs.
        results: folder of results, tables and figures.
        seeds: runs a variant, default those of the scale.
        only: names of variants, default all.
        jobs: processes at a time.
        replace: make runs of another configuration anew.
        page: one Markdown page of all results.

    Raises:
        ValueError: for what has no effect on the action, is missing or out of range.

    Example:
        >>> Request("run", "jmlr-mlp", jobs=0)
        Traceback (most recent call last):
        ValueError: --jobs must be a number >= 1, got 0
    """

    action: str
    name: str | None = None
    scale: str = "smoke"
    data: str | None = None
    out: str = "runs"
    results: str = "results"
    seeds: int | None = None
    only: tuple[str, ...] = ()
    jobs: int = 1
    replace: bool = False
    page: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self)[1:]:
            if getattr(self, each.name) != each.default and each.name not in _TAKES[self.action]:
                flag = {"name": "NAME", "data": "--data.dir"}.get(each.name, f"--{each.name}")
                raise ValueError(f"{flag} has no effect with experiment {self.action}: leave it out")
        for flag, number in (("--seeds", self.seeds), ("--jobs", self.jobs)):
            if number is not None and number < 1:
                raise ValueError(f"{flag} must be a number >= 1, got {number}")
        if self.name is None and self.action != "list":
            raise ValueError(f"experiment {self.action} needs the name of an experiment: see bregman experiment list")


def read_request(arguments: dict[str, Any]) -> Request:
    """Return what parsed arguments ask for."""
    given = {key: value for key, value in arguments.items() if value is not None}
    if "data" in given:
        given["data"] = given["data"]["dir"]
    if "only" in given:
        given["only"] = tuple(given["only"])
    return Request(**given)


def list_experiments(request: Request) -> None:
    """Print every experiment, with how many runs it has at the scale and how many of them are done."""
    for experiment in EXPERIMENTS.values():
        if request.scale not in experiment.scales:
            print(f"{experiment.name:24} not at scale {request.scale:5}    {experiment.title}")
            continue
        results = Results.open(Path(request.results), experiment, request.scale, replace=True)
        done = f"{len(results.runs):3} of {results.planned:3} {request.scale} runs"
        print(f"{experiment.name:24} {done}  {experiment.title}")


def run_experiment(request: Request) -> Results:
    """Do the runs that are missing."""
    from torch_bregman.experiments.queue import run_missing

    return run_missing(
        find(request.name or ""),
        request.scale,
        out=request.out,
        results=request.results,
        data=request.data,
        seeds=request.seeds,
        only=request.only,
        jobs=request.jobs,
        replace=request.replace,
    )


def choose_settings(request: Request) -> None:
    """Choose the settings of a frontier from the results of the experiment that tunes it, and keep them.

    Raises:
        ValueError: for another experiment, or where no grid has run whole yet.
    """
    if request.name not in TUNED:
        raise ValueError(f"experiment choose needs one of {', '.join(TUNED)}, got {request.name!r}")
    candidates: tuple[Candidate[Any], ...] = TUNED[request.name].candidates()
    results = Results.open(Path(request.results), find(request.name), request.scale)
    found = best(results, candidates)
    if not found:
        raise ValueError(f"{results.path} has no whole grid yet: {results.command} --results {request.results}")
    for each in found:
        edge = ", at the edge of its grid" if each.at_the_edge else ""
        print(f"{each.method.label} at {each.size}: {each.setting.label}{edge}")
    write_chosen(request.name, request.scale, found)
    print(f"kept in {CHOSEN}")


def results_to_show(request: Request) -> list[Results]:
    """Return the results asked for, of all experiments that have some where the name is all.

    Raises:
        ValueError: where there are none, or they were made by another configuration.
    """
    every = request.name == "all"
    chosen = [e for e in EXPERIMENTS.values() if request.scale in e.scales] if every else [find(request.name or "")]
    opened = [Results.open(Path(request.results), experiment, request.scale) for experiment in chosen]
    found = [results for results in opened if results.runs]
    if not found:
        raise ValueError(f"{opened[0].path} has no runs yet: {opened[0].command} --results {request.results}")
    return found
