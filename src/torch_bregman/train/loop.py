"""A run from its start, or from where it was stopped, to its end: epochs, evaluation, the rows of its log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from torch.optim import Optimizer, lr_scheduler

from torch_bregman.distributed.processes import from_first, joined, rank, together
from torch_bregman.distributed.wrapping import same_buffers
from torch_bregman.metrics import density, density_report, layer_densities
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.train.again import Launch
from torch_bregman.train.conf import Conf
from torch_bregman.train.evaluation import judge
from torch_bregman.train.flops import FlopCount
from torch_bregman.train.history import Row
from torch_bregman.train.observer import Observer, Result
from torch_bregman.train.ranks import low_ranks
from torch_bregman.train.remarks import remarks
from torch_bregman.train.reproducible import reproducible
from torch_bregman.train.run_folder import RunFolder
from torch_bregman.train.saving import Keeper
from torch_bregman.train.setup import Control, Parts, set_up
from torch_bregman.train.steps import Steps
from torch_bregman.train.summary import summarise
from torch_bregman.train.terminal import Terminal
from torch_bregman.train.tracking import tracker

MakeControls = Callable[[Conf, Parts], Sequence[Control]]
"""From a run's parts to what is advanced after every step."""


def fit(conf: Conf, observers: Sequence[Observer] | None = None, *, controls: MakeControls | None = None) -> Result:
    """Train the network that a configuration describes, in a new folder `out/name`.

    Args:
        conf: the run.
        observers: told of every epoch; default one that prints to the terminal.
        controls: makes what else is advanced after every step, with a state for the checkpoint.

    Returns:
        The finished run.

    Raises:
        ValueError: where data, folder or parts of the configuration cannot be used.
        TrainingDivergedError: where the loss is not finite; the last good checkpoint is kept.

    Example:
        >>> import tempfile
        >>> out = tempfile.mkdtemp()
        >>> result = fit(Conf(name="tiny", epochs=1, out=out), observers=[])
        >>> result.path.name, len(result.rows)
        ('tiny', 1)
    """
    conf = Conf.from_dict(conf.to_dict())  # checks what was set since it was made, and is ours alone
    with joined(), reproducible(conf.threads):
        return _fit(conf, observers, controls)


def _fit(conf: Conf, observers: Sequence[Observer] | None, controls: MakeControls | None) -> Result:
    parts, watching = _set_up(conf, controls), together(lambda: _watching(conf, observers))
    launch = Launch.current(conf.out)
    begun = from_first(lambda: _begun(launch, conf))
    path = begun or from_first(lambda: str(RunFolder.create(conf).path))
    session = _Session(RunFolder(Path(path)), conf, parts, watching)
    if begun:
        session.keeper.restore()
    elif launch and rank() == 0:
        launch.begin(session.folder)
    result = session.run()
    if launch and rank() == 0:
        launch.end()
    return result


def _begun(launch: Launch | None, conf: Conf) -> str | None:
    """Return the folder of the run that torchrun has started these processes to go on with."""
    found = launch.unfinished(conf) if launch else None
    return str(found.path) if found else None


def resume(
    run: str,
    out: str = "runs",
    observers: Sequence[Observer] | None = None,
    *,
    controls: MakeControls | None = None,
) -> Result:
    """Go on with a run that was stopped: it ends bit for bit as if it never had been.

    Args:
        run: its folder, or its name in `out`.
        out: the folder of all runs.
        observers: told of every epoch to come; default one that prints to the terminal.
        controls: as they were given to `fit`.

    Raises:
        ValueError: where there is no such run, or its checkpoint is damaged or belongs to another model.
    """
    with joined():
        return _resume(run, out, observers, controls)


def _resume(run: str, out: str, observers: Sequence[Observer] | None, controls: MakeControls | None) -> Result:
    folder, conf = together(lambda: RunFolder.open(run, out))
    with reproducible(conf.threads):
        watching = together(lambda: _watching(conf, observers))
        session = _Session(folder, conf, _set_up(conf, controls), watching)
        session.keeper.restore()
        return session.run()


def reopen(folder: RunFolder) -> Parts:
    """Return the parts of a run as they were after its last finished epoch.

    Raises:
        ValueError: where it never started, or its checkpoint is damaged or belongs to another model.
    """
    folder, conf = RunFolder.open(str(folder.path))
    with reproducible(conf.threads):
        session = _Session(folder, conf, set_up(conf), [])
        session.keeper.restore()
        return session.parts


def _set_up(conf: Conf, controls: MakeControls | None) -> Parts:
    parts = set_up(conf)
    parts.controls.extend(controls(conf, parts) if controls else [])
    return parts


class _Session:
    def __init__(self, folder: RunFolder, conf: Conf, parts: Parts, observers: list[Observer]) -> None:
        self.folder, self.conf, self.parts, self.observers = folder, conf, parts, observers
        self.flops = FlopCount(conf, parts)
        self.steps = Steps(conf, parts, self.flops, folder.last)
        self.keeper = Keeper(folder, conf, parts, self.flops)
        self.history = self.keeper.history

    def run(self) -> Result:
        try:
            return self._run()
        except KeyboardInterrupt:
            done = f"after epoch {len(self.history.rows)} of {self.conf.epochs}"
            raise KeyboardInterrupt(f"interrupted {done}: go on with bregman resume {self.folder.path}") from None
        finally:
            for observer in self.observers:
                observer.close()

    def _run(self) -> Result:
        for observer in self.observers:
            observer.started(self.folder, self.conf, self.parts, len(self.history.rows))
        for epoch in range(len(self.history.rows) + 1, self.conf.epochs + 1):
            row = self._epoch(epoch)
            self.keeper.save(row)
            for observer in self.observers:
                observer.epoch(row)
        model = self.parts.whole_model()
        summary = summarise(self.parts, model, self.history.rows, self.keeper.best, self.folder.best)
        result = Result(self.folder, self.conf, model, self.history.rows, summary)
        if rank() == 0:
            self.folder.finish(result.summary)
        for observer in self.observers:
            observer.finished(result)
        return result

    def _epoch(self, epoch: int) -> Row:
        start = time.perf_counter()
        rates = _by_group(self.parts.optimizer, "lr")
        train_loss, train_metric = self.steps.epoch(epoch)
        held_out, task = self.parts.validation, self.parts.task
        network = self.parts.model if self.parts.form is None else self.parts.form.network
        same_buffers(network)
        loss, metric = judge(network, held_out or self.parts.test, task, self.parts.autocast, shared=True)
        if self.parts.form is not None:
            self.parts.form.write()
        self.steps.check_finite(loss, epoch)  # the last step may have been the one too many
        kind = "val" if held_out else "test"
        ranks = low_ranks(self.parts.model, self.parts.optimizer, self.parts.controls)
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            f"train_{task.metric}": train_metric,
            f"{kind}_loss": loss,
            f"{kind}_{task.metric}": metric,
            "density": density(self.parts.model),
            "layer_density": layer_densities(self.parts.model),
            **({"layer_rank": ranks} if ranks else {}),
            **(_live(self.parts.model) if self.conf.entry_times else {}),
            "J": _penalties(self.parts),
            "lr": rates,
            "lam": _by_group(self.parts.optimizer, "lam"),
            **self.flops.row(len(self.parts.train.labels)),
        }
        row["remarks"] = "; ".join(remarks(self.conf, self.parts, row, self.history.rows))
        self._advance_schedule(loss)
        return {**row, "seconds": time.perf_counter() - start}

    def _advance_schedule(self, loss: float) -> None:
        for schedule in self.parts.schedules:
            schedule.step(loss)
        scheduler = self.parts.scheduler
        if scheduler is None or self.parts.every_step:
            return
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss)
        else:
            scheduler.step()


def _watching(conf: Conf, observers: Sequence[Observer] | None) -> list[Observer]:
    if rank():
        return []  # the first process speaks for all
    watching: list[Observer] = [Terminal()] if observers is None else list(observers)
    return [*watching, *map(tracker, conf.track)]


def _live(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return how many rows and columns of each weight are not zero: units that are made, and inputs that are read."""
    layers = density_report(model).layers
    rows = {each.name: round(each.row_density * each.shape[0]) for each in layers}
    return {
        "layer_rows": rows,
        "layer_columns": {each.name: round(each.column_density * each.shape[1]) for each in layers},
    }


def _by_group(optimizer: Optimizer, key: str) -> dict[str, float]:
    return {str(number): float(group[key]) for number, group in enumerate(optimizer.param_groups) if key in group}


def _penalties(parts: Parts) -> dict[str, float | None]:
    """Return J by group, null for what is no penalty; for the dense baselines the one term of their loss."""
    if isinstance(parts.optimizer, RegularizedOptimizer):
        values = parts.optimizer.regularization()
        return {str(number): value if math.isfinite(value) else None for number, value in enumerate(values)}
    return {"0": 0.0 if parts.penalty is None else float(parts.penalty().detach())}
