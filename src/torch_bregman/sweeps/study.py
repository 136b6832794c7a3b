"""The trials of a sweep, kept in a journal that any number of processes share; what was stopped goes on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_bregman.sweeps.plan import Choice, Plan
from torch_bregman.sweeps.trial import Hopeless, run_trial
from torch_bregman.train.yaml_file import read_mapping, to_text

Say = Callable[[str], None]


def open_study(plan: Plan, *, worker: int = 0) -> Any:
    """Return the Optuna study of a sweep, made or found in its folder.

    Args:
        plan: of the sweep.
        worker: number of this process among those started together, so that each draws trials of its own.

    Raises:
        ValueError: where optuna is missing, or the folder holds another sweep.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError:
        raise ValueError("optuna is not installed: pip install 'torch-bregman[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _keep_plan(plan)
    path = str(plan.folder / "journal.log")
    backend = JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=plan.name,
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    seed = plan.seed + len(study.get_trials(deepcopy=False)) + 1009 * worker
    samplers = optuna.samplers
    kinds = {"tpe": samplers.TPESampler, "nsga2": samplers.NSGAIISampler, "random": samplers.RandomSampler}
    study.sampler = kinds[plan.sampler](seed=seed)
    return study


def _keep_plan(plan: Plan) -> None:
    """Write the plan beside the journal; refuse another one, but for the number of trials."""
    path = plan.folder / "sweep.yaml"
    fields = {key: value for key, value in vars(plan).items() if key not in ("out", "trials")}
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.write_text(to_text(fields), encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"cannot write to {plan.folder} ({error.strerror}): choose another folder with --out"
        ) from None
    if read_mapping(path) != fields:
        raise ValueError(f"{path} is of another sweep: give this one another name, or take that file")


def work(plan: Plan, study: Any, say: Say = print) -> None:
    """Do trials until the sweep has as many as were asked for.

    Processes that work on the same sweep share them. A trial whose process has died is taken up where it stopped.

    Args:
        plan: of the sweep.
        study: of the same plan.
        say: is told of every trial that ends.
    """
    from optuna.trial import TrialState

    while True:
        _take_over(study)
        trial = study.ask()
        trial.set_user_attr("process", _process())
        if _before(study, trial.number) >= plan.trials:
            study.tell(trial, state=TrialState.FAIL)
            return
        _do(plan, study, trial, say)


def _do(plan: Plan, study: Any, trial: Any, say: Say) -> None:
    from optuna.trial import TrialState

    values = {key: _suggest(trial, key, part) for key, part in plan.parts().items()}
    shown = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )
    try:
        found = run_trial(plan, study, trial, values)
    except Hopeless as reason:
        trial.set_user_attr("reason", str(reason))
        study.tell(trial, state=TrialState.PRUNED)
        say(f"trial {trial.number} stopped, {reason} ({shown})")
    else:
        study.tell(trial, found)
        say(f"trial {trial.number}: {plan.quality} {found[0]:.4g}, {plan.size} {found[1]:.4g} ({shown})")


def _suggest(trial: Any, key: str, part: Any) -> Any:
    if isinstance(part, Choice):
        places = list(range(len(part.values)))
        return part.values[trial.suggest_categorical(key, places)]
    if part.whole:
        return trial.suggest_int(key, int(part.low), int(part.high), log=part.log)
    return trial.suggest_float(key, part.low, part.high, log=part.log)


def _before(study: Any, number: int) -> int:
    """Return how many trials before this one count: all but those given up."""
    from optuna.trial import TrialState

    return sum(
        each.number < number and each.state not in (TrialState.FAIL, TrialState.WAITING)
        for each in study.get_trials(deepcopy=False)
    )


def _process() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid()}


def _take_over(study: Any) -> None:
    """Give up the trials whose process on this machine has died, and put them on the list again with their runs."""
    from optuna.trial import TrialState

    for each in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = each.user_attrs.get("process")
        if owner is None or owner["host"] != platform.node() or _lives(owner["pid"]):
            continue
        try:
            study.tell(each.number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):
            continue  # another process was faster
        study.enqueue_trial(each.params, user_attrs={"run": each.user_attrs.get("run", f"trial-{each.number}")})


def _lives(pid: int) -> bool:
    if pid == os.getpid():
        return False  # of an earlier process with the same number
    if Path("/proc").is_dir():
        return Path(f"/proc/{pid}").exists()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
