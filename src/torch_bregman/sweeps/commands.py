"""Doing what `bregman sweep` is asked for."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

from torch_bregman.sweeps.front import Trial, finished, front_table, pareto, save_trials
from torch_bregman.sweeps.plan import Plan
from torch_bregman.sweeps.study import open_study, work
from torch_bregman.train.workers import end_with_the_first


def read_plan(config: str, out: str | None = None, trials: int | None = None) -> Plan:
    """Return the sweep of a file, with folder and number of trials changed where they are given."""
    plan = Plan.from_yaml(config)
    changes = {key: value for key, value in (("out", out), ("trials", trials)) if value is not None}
    return replace(plan, **changes)


def sweep(plan: Plan, jobs: int = 1) -> list[Trial]:
    """Do the trials that are missing, in this process or several, and return all that came to an end.

    Args:
        plan: the sweep.
        jobs: processes, one thread each where there are several.

    Raises:
        ValueError: where optuna is missing, the folder holds another sweep, or no trial came to an end.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be a number >= 1, got {jobs}")
    study = open_study(plan)
    try:
        work(plan, study) if jobs == 1 else _work_together(plan, jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: the same command goes on where the trials were stopped") from None
    trials = finished(plan, open_study(plan))
    if not trials:
        raise ValueError(f"no trial of {plan.folder} came to an end: see above why, and change base or space")
    print(f"{len(trials)} finished trials in {save_trials(plan, trials)}, those that no other beats:")
    print(front_table(plan, pareto(trials)))
    return trials


def figure_path(plan: Plan) -> Path:
    """Return where the picture of the front goes."""
    return plan.folder / "front.png"


def _work_together(plan: Plan, jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(plan, number)) for number in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        raise
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise ValueError(f"{len(failed)} of {jobs} processes failed (exit status {failed[0]}): see above")


def _worker(plan: Plan, number: int) -> None:
    end_with_the_first()
    import torch

    torch.set_num_threads(1)
    work(plan, open_study(plan, worker=number))
