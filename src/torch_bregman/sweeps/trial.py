"""One trial: a run, or the rest of one, to its two numbers; stopped where others did better with less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_bregman.sweeps.plan import Plan
from torch_bregman.train import Result, RunFolder, fit, resume
from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row
from torch_bregman.train.steps import TrainingDivergedError

if TYPE_CHECKING:
    from torch_bregman.train.setup import Parts

_BEATEN_BY = 3


class Hopeless(Exception):  # noqa: N818 - not an error: the outcome of a trial
    """A trial that is not worth going on with."""


def run_trial(plan: Plan, study: Any, trial: Any, values: dict[str, Any]) -> list[float]:
    """Return quality and size of the network that these values lead to.

    Args:
        plan: of the sweep.
        study: of the sweep, for what other trials have come to.
        trial: of the study; gets the run's folder, its course and its test quality as attributes.
        values: of the fields in the space.

    Raises:
        Hopeless: where it was stopped, diverged, or is made of values that do not go together.
    """
    name = trial.user_attrs.get("run", f"trial-{trial.number}")
    trial.set_user_attr("run", name)
    watch = _Watch(plan, study, trial)
    try:
        folder = RunFolder(plan.folder / name)
        if folder.config.is_file():
            result = resume(str(folder.path), observers=[watch])
        else:
            result = fit(plan.conf(values, name), observers=[watch])
    except TrainingDivergedError as error:
        raise Hopeless(str(error)) from None
    except ValueError as error:
        raise Hopeless(f"it cannot be run: {error}") from None
    last = result.rows[-1]
    trial.set_user_attr("test", result.summary[f"test_{plan.quality}"])
    trial.set_user_attr("density", last["density"])
    return [_quality(plan, last), _size(plan, result)]


class _Watch:
    """Writes a trial's course into the study, and stops it where it is beaten."""

    def __init__(self, plan: Plan, study: Any, trial: Any) -> None:
        self._plan, self._study, self._trial = plan, study, trial

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Nothing to do."""

    def epoch(self, row: Row) -> None:
        """Compare with what others had come to at this epoch."""
        number, here = row["epoch"], (_quality(self._plan, row), row["density"])
        self._trial.set_user_attr(f"epoch-{number}", list(here))
        if not self._plan.prune or number < self._plan.warmup:
            return
        others = [
            each.user_attrs[f"epoch-{number}"]
            for each in self._study.get_trials(deepcopy=False)
            if each.number != self._trial.number and f"epoch-{number}" in each.user_attrs
        ]
        better = sum(quality > here[0] and size < here[1] for quality, size in others)
        if better >= _BEATEN_BY:
            raise Hopeless(f"beaten by {better} trials at epoch {number}")

    def finished(self, result: Result) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def _quality(plan: Plan, row: Row) -> float:
    return row.get(f"val_{plan.quality}", row[f"train_{plan.quality}"])


def _size(plan: Plan, result: Result) -> float:
    if plan.size == "density":
        return result.rows[-1]["density"]
    from torch_bregman.experiments.measures import size
    from torch_bregman.train import reopen

    if plan.size != "latency":
        return float(size(result.folder)[{"macs": "macs_left", "stored": "numbers_stored"}[plan.size]])
    from torch_bregman.compaction import compact
    from torch_bregman.compaction.latency import measure_latency

    example = reopen(result.folder).test.images[:8]
    small, _ = compact(result.model.eval(), example)
    return measure_latency([small], example, 1)[0]
