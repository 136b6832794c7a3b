"""The training loop: epochs, evaluation, log, checkpoints; stopped anywhere, it goes on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from torch_bregman.metrics import density, density_report, layer_densities
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.optim.pgd import NoStepSizeError
from torch_bregman.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from torch_bregman.train.conf import Conf
from torch_bregman.train.cycles import advance, hold
from torch_bregman.train.evaluation import judge
from torch_bregman.train.flops import FlopCount
from torch_bregman.train.history import History, Row
from torch_bregman.train.observer import Observer, Result
from torch_bregman.train.path import file_of, passes, size_of
from torch_bregman.train.ranks import low_ranks
from torch_bregman.train.remarks import remarks
from torch_bregman.train.reproducible import reproducible, seed_epoch
from torch_bregman.train.run_folder import RunFolder
from torch_bregman.train.setup import Control, Parts, set_up
from torch_bregman.train.summary import summarise
from torch_bregman.train.tensorboard import TensorBoard
from torch_bregman.train.terminal import Terminal

MakeControls = Callable[[Conf, Parts], Sequence[Control]]
"""From a run's parts to what is advanced after every step."""

_CHECKED_EVERY = 50
"""Steps between two looks at the loss; each look makes a GPU wait."""


class TrainingDivergedError(ValueError):
    """The loss is no longer a finite number."""


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
    with reproducible(conf.threads):
        parts, watching = _set_up(conf, controls), _watching(conf, observers)
        return _Session(RunFolder.create(conf), conf, parts, watching).run()


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
    folder, conf = RunFolder.open(run, out)
    with reproducible(conf.threads):
        session = _Session(folder, conf, _set_up(conf, controls), _watching(conf, observers))
        session.restore()
        return session.run()


def reopen(folder: RunFolder) -> Parts:
    """Return the parts of a run as they were after its last finished epoch.

    Raises:
        ValueError: where it never started, or its checkpoint is damaged or belongs to another model.
    """
    folder, conf = RunFolder.open(str(folder.path))
    with reproducible(conf.threads):
        session = _Session(folder, conf, set_up(conf), [])
        session.restore()
        return session.parts


def _set_up(conf: Conf, controls: MakeControls | None) -> Parts:
    parts = set_up(conf)
    parts.controls.extend(controls(conf, parts) if controls else [])
    return parts


class _Session:
    def __init__(self, folder: RunFolder, conf: Conf, parts: Parts, observers: list[Observer]) -> None:
        self.folder, self.conf, self.parts, self.observers = folder, conf, parts, observers
        self.history = History(folder.jsonl, folder.csv)
        ranks = low_ranks(parts.model, parts.optimizer) if conf.keep_at else {}
        self._first_size = size_of({"density": density(parts.model), "layer_rank": ranks})
        self.best: dict[str, float] = {"epoch": 0, parts.task.metric: -math.inf}
        self.flops = FlopCount(conf, parts)

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
            self._save(row)
            for observer in self.observers:
                observer.epoch(row)
        result = Result(
            self.folder,
            self.conf,
            self.parts.model,
            self.history.rows,
            summarise(self.parts, self.history.rows, self.best, self.folder.best),
        )
        self.folder.finish(result.summary)
        for observer in self.observers:
            observer.finished(result)
        return result

    def _epoch(self, epoch: int) -> Row:
        start = time.perf_counter()
        rates = _by_group(self.parts.optimizer, "lr")
        train_loss, train_metric = self._train_or_diverge(epoch)
        held_out, task = self.parts.validation, self.parts.task
        network = self.parts.model if self.parts.form is None else self.parts.form.network
        loss, metric = judge(network, held_out or self.parts.test, task, self.parts.autocast)
        if self.parts.form is not None:
            self.parts.form.write()
        self._check_finite(loss, epoch)  # the last step may have been the one too many
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

    def _train_or_diverge(self, epoch: int) -> tuple[float, float]:
        """Train, and take what breaks down over numbers that are not finite for what it is."""
        try:
            return self._train(epoch)
        except TrainingDivergedError:
            raise
        except (RuntimeError, ValueError) as error:
            if self.parts.form is not None:
                self.parts.form.write()
            if isinstance(error, NoStepSizeError) or not self._is_finite():
                raise self._diverged(epoch, " ".join(str(error).split())) from None
            raise

    def _train(self, epoch: int) -> tuple[float, float]:
        """Go once through the training images; return mean loss and metric over them."""
        parts = self.parts
        parts.model.train()
        order = seed_epoch(self.conf.seed, epoch)
        losses = torch.zeros((), device=parts.device, dtype=torch.float64)
        metric = torch.zeros((), device=parts.device, dtype=torch.float64)
        for number, (x, y) in enumerate(parts.train.epoch(order), start=1):
            loss, outputs = self._step(x, y)
            losses += loss * len(y)
            metric += parts.task.judged(outputs, y)
            if number % _CHECKED_EVERY == 0 or number == len(parts.train):
                self._check_finite(float(losses), epoch)
            self.flops.count(len(y))
            for control in parts.controls:
                advance(control, parts.form)
            if parts.every_step:
                parts.scheduler.step()
        count = len(parts.train.labels)
        return float(losses) / count, float(metric) / count

    def _step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; return the loss and the outputs before it."""
        parts, seen = self.parts, []
        if parts.form is not None:
            return parts.form.step(x, y, parts.task.loss)

        def closure() -> Tensor:
            parts.optimizer.zero_grad()
            with torch.autocast(parts.device.type, dtype=parts.autocast, enabled=parts.autocast is not None):
                outputs = parts.model(x)
                loss = parts.task.loss(outputs, y)
            total = loss if parts.penalty is None else loss + parts.penalty()
            (total if parts.scaler is None else parts.scaler.scale(total)).backward()
            seen.append((loss.detach(), outputs.detach()))
            return total.detach()

        if self.conf.optim.name == "pgd":
            parts.optimizer.step(closure)  # pyright: ignore - torch says float and means a loss
        else:
            closure()
            if parts.scaler is None:
                parts.optimizer.step()
            else:
                parts.scaler.step(parts.optimizer)
                parts.scaler.update()
        return seen[0]

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise self._diverged(epoch, f"the loss is {loss}")

    def _is_finite(self) -> bool:
        params = list(self.parts.model.parameters())
        kept = [value for state in self.parts.optimizer.state.values() for value in state.values()]
        tensors = [each for each in (*params, *(p.grad for p in params), *kept) if isinstance(each, torch.Tensor)]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def _diverged(self, epoch: int, reason: str) -> TrainingDivergedError:
        last = f"the checkpoint of epoch {epoch - 1} is kept in {self.folder.last}"
        kept = last if epoch > 1 else "no epoch was finished"
        rate = next(iter(_by_group(self.parts.optimizer, "lr").values()))
        return TrainingDivergedError(f"epoch {epoch} diverged ({reason}), {kept}: lower optim.lr (now {rate:g})")

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

    def _save(self, row: Row) -> None:
        """Write best.pt, then last.pt, which makes the epoch count, then the log, which can be made from last.pt."""
        metric = self.parts.task.metric
        value = row.get(f"val_{metric}", row[f"train_{metric}"])
        if value > self.best[metric]:
            self.best = {"epoch": row["epoch"], metric: value}
            save_checkpoint(self.folder.best, {"epoch": row["epoch"], "model": self.parts.model.state_dict()})
        parts, before = self.parts, size_of(self.history.rows[-1]) if self.history.rows else self._first_size
        if passes(self.conf.keep_at, before, size_of(row)):
            path = file_of(self.folder, row["epoch"])
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, {"epoch": row["epoch"], "model": parts.model.state_dict()})
        content = {
            "epoch": row["epoch"],
            "trained": self._trained(),
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scheduler": parts.scheduler.state_dict() if parts.scheduler else None,
            "schedules": {str(i): schedule.state_dict() for i, schedule in enumerate(parts.schedules)},
            "controls": {str(i): control.state_dict() for i, control in enumerate(parts.controls)},
            "scaler": parts.scaler.state_dict() if parts.scaler else None,
            "form": parts.form.state_dict() if parts.form else None,
            "best": self.best,
            "rows": [*self.history.rows, row],
        }
        save_checkpoint(self.folder.last, content)
        self.history.append(row)

    def _trained(self) -> str:
        return f"{self.conf.model.name} with {self.conf.optim.name}"

    def restore(self) -> None:
        """Take up the last checkpoint; a run stopped before its first begins anew."""
        if not self.folder.last.exists():
            self.history.restore([])
            return
        saved = load_checkpoint(self.folder.last, self.parts.device)
        if saved.get("trained") != self._trained():
            raise CheckpointError(
                f"checkpoint {self.folder.last} belongs to another model or optimizer: it holds "
                f"{saved.get('trained')}, the run's configuration names {self._trained()}"
            )
        try:
            self.parts.model.load_state_dict(saved["model"])
            for i, control in enumerate(self.parts.controls):
                control.load_state_dict(saved["controls"][str(i)])  # a frozen network has other groups
            self.parts.optimizer.load_state_dict(saved["optimizer"])
            if self.parts.scheduler:
                self.parts.scheduler.load_state_dict(saved["scheduler"])
            for i, schedule in enumerate(self.parts.schedules):
                schedule.load_state_dict(saved["schedules"][str(i)])
            if self.parts.scaler:
                self.parts.scaler.load_state_dict(saved["scaler"])
            if self.parts.form:
                self.parts.form.load_state_dict(saved["form"])
                hold(self.parts.controls, self.parts.form)
            self.flops.restore(saved["rows"])
            self.best = saved["best"]
            self.history.restore(saved["rows"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint {self.folder.last} does not fit the run's configuration, it belongs to another model or "
                f"optimizer: {reason[:300]}"
            ) from None


def _watching(conf: Conf, observers: Sequence[Observer] | None) -> list[Observer]:
    watching: list[Observer] = [Terminal()] if observers is None else list(observers)
    return [*watching, TensorBoard()] if conf.tensorboard else watching


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
