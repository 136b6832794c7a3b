"""The runs of an experiment, one after another or in parallel processes; what is finished is skipped."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from torch_bregman.experiments.one_run import Job, complete
from torch_bregman.experiments.recipe import Experiment
from torch_bregman.experiments.results import Results, Run
from torch_bregman.train.workers import end_with_the_first

Outcome = tuple[Job, Run | ValueError]


def run_missing(
    experiment: Experiment,
    scale: str,
    *,
    out: str = "runs",
    results: str = "results",
    data: str | None = None,
    seeds: int | None = None,
    only: Sequence[str] = (),
    jobs: int = 1,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> Results:
    """Do all runs that the results lack; each is added to the file as it ends.

    Args:
        experiment: which.
        scale: smoke, small or full.
        out: folder of all runs.
        results: folder of all results.
        data: folder of the data sets, default the usual places.
        seeds: runs a variant, default that of the scale.
        only: names of variants, default all.
        jobs: processes.
        replace: make runs of another configuration anew, instead of refusing them.
        say: is told of every run that ends.

    Raises:
        ValueError: for results made by another configuration, and, when all others are done, where runs failed.
    """
    found = Results.open(Path(results), experiment, scale, replace=replace)
    todo = _missing(found, seeds or experiment.at(scale).seeds, only, out, data)
    failed, total = [], len(todo)
    say(f"{found.command}: {total} runs to do, {len(found.runs)} in {found.path}")
    try:
        for number, (job, outcome) in enumerate(_outcomes(todo, jobs), start=1):
            if isinstance(outcome, Run):
                found.add(outcome)
            else:
                failed.append(f"{job}: {outcome}")
            say(f"[{number}/{total}] {_line(job, outcome)}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: the same command goes on where the runs were stopped") from None
    if failed:
        raise ValueError(f"{len(failed)} of {total} runs failed, first {failed[0]}")
    return found


def _missing(found: Results, seeds: int, only: Sequence[str], out: str, data: str | None) -> list[Job]:
    """Return the runs to do, seed by seed, so that early on every variant has a number."""
    experiment, scale = found.experiment, found.scale
    chosen = [experiment.variant(name) for name in only] or experiment.variants_at(scale)
    if absent := [variant.name for variant in chosen if scale not in variant.scales]:
        raise ValueError(f"variant {absent[0]} of {experiment.name} does not run at scale {scale}")
    return [
        Job(experiment, scale, variant, seed, out, data)
        for seed in range(seeds)
        for variant in chosen
        if not found.has(variant.name, seed)
    ]


def _outcomes(todo: list[Job], jobs: int) -> Iterator[Outcome]:
    if jobs == 1 or len(todo) <= 1:
        for job in todo:
            yield job, _attempt(job)
        return
    context = multiprocessing.get_context("spawn")  # torch and fork do not go together
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_the_first) as pool:
        futures = {pool.submit(_attempt, job): job for job in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _attempt(job: Job) -> Run | ValueError:
    """Do a run; that one fails is no reason not to do the others."""
    try:
        return complete(job)
    except ValueError as error:
        return ValueError(str(error))  # of a type that travels between processes


def _line(job: Job, outcome: Run | ValueError) -> str:
    if isinstance(outcome, ValueError):
        return f"{job} failed: {outcome}"
    if outcome.diverged:
        return f"{job}: {outcome.diverged}"
    shown = [q for q in job.experiment.columns if q.key in outcome.numbers]
    values = ", ".join(f"{q.label} {q.factor * outcome.numbers[q.key]:.{q.digits}f}" for q in shown)
    return f"{job}: {values}"
