"""The training loop: epochs, evaluation, log, checkpoints; stopped anywhere, it goes on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from torch_bregman.distributed.processes import AgreedError, from_first, joined, rank, size, together, total
from torch_bregman.distributed.sharded import local
from torch_bregman.distributed.shares import Share, shares
from torch_bregman.distributed.wrapping import full_state, held_back, same_buffers
from torch_bregman.metrics import density, density_report, layer_densities
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.optim.pgd import NoStepSizeError
from torch_bregman.train.again import Launch
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
from torch_bregman.train.terminal import Terminal
from torch_bregman.train.tracking import tracker

MakeControls = Callable[[Conf, Parts], Sequence[Control]]
"""From a run's parts to what is advanced after every step."""

_CHECKED_EVERY = 50
"""Steps between two looks at the loss; each look makes a GPU wait."""


class TrainingDivergedError(AgreedError):
    """The loss is no longer a finite number; every process sees that of all."""


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
        session.restore()
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
        model = self.parts.whole_model()
        summary = summarise(self.parts, model, self.history.rows, self.best, self.folder.best)
        result = Result(self.folder, self.conf, model, self.history.rows, summary)
        if rank() == 0:
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
        same_buffers(network)
        loss, metric = judge(network, held_out or self.parts.test, task, self.parts.autocast, shared=True)
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
        parts.network.train()
        order = seed_epoch(self.conf.seed, epoch, rank())
        sums = torch.zeros(2, device=parts.device, dtype=torch.float64)
        for number, (x, y) in enumerate(parts.train.epoch(order), start=1):
            self._step(x, y, sums)
            if number % _CHECKED_EVERY == 0 or number == len(parts.train):
                self._check_finite(float(total(sums)[0]), epoch)
            self.flops.count(len(y))
            for control in parts.controls:
                advance(control, parts.form)
            if parts.every_step:
                parts.scheduler.step()
        loss, metric = (total(sums) / len(parts.train.labels)).tolist()
        return loss, metric

    def _step(self, x: Tensor, y: Tensor, sums: Tensor) -> None:
        """Take one step; add loss and metric of this process's images, as they were before it, to the sums."""
        parts = self.parts
        seen = torch.zeros_like(sums)
        if parts.form is not None:
            loss, outputs = parts.form.step(x, y, parts.task.loss)
            sums[0] += loss * len(y)
            sums[1] += parts.task.judged(outputs, y)
            return

        def closure() -> Tensor:
            parts.optimizer.zero_grad()
            seen.zero_()
            own = list(shares(x, y, rank(), size(), self.conf.scale.accumulate))
            for part in own[:-1]:
                with held_back(parts.network):
                    self._backward(part, seen, last=False)
            return self._backward(own[-1], seen, last=True)

        if self.conf.optim.name == "pgd":
            parts.optimizer.step(closure)  # pyright: ignore - torch says float and means a loss
        else:
            closure()
            if parts.scaler is None:
                parts.optimizer.step()
            else:
                parts.scaler.step(parts.optimizer)
                parts.scaler.update()
        sums += seen

    def _backward(self, part: Share, seen: Tensor, *, last: bool) -> Tensor:
        """Add a part's gradients to those there are, and its loss and metric to what was seen."""
        parts = self.parts
        with torch.autocast(parts.device.type, dtype=parts.autocast, enabled=parts.autocast is not None):
            outputs = parts.network(part.x)
            loss = parts.task.loss(outputs, part.y)
        total_loss = loss if part.weight == 1 else loss * part.weight
        if last and parts.penalty is not None:
            total_loss = total_loss + parts.penalty()
        (total_loss if parts.scaler is None else parts.scaler.scale(total_loss)).backward()
        if part.own:
            seen[0] += loss.detach() * part.own
            seen[1] += parts.task.judged(outputs.detach(), part.y)
        return total_loss.detach()

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise self._diverged(epoch, f"the loss is {loss}")

    def _is_finite(self) -> bool:
        params = list(self.parts.model.parameters())
        kept = [value for state in self.parts.optimizer.state.values() for value in state.values()]
        tensors = [each for each in (*params, *(p.grad for p in params), *kept) if isinstance(each, torch.Tensor)]
        return all(bool(torch.isfinite(local(tensor)).all()) for tensor in tensors)

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
        metric, parts = self.parts.task.metric, self.parts
        value = row.get(f"val_{metric}", row[f"train_{metric}"])
        before = size_of(self.history.rows[-1]) if self.history.rows else self._first_size
        is_best, is_kept = value > self.best[metric], passes(self.conf.keep_at, before, size_of(row))
        weights = full_state(parts.model) if is_best or is_kept or not self.conf.scale.sharded else {}
        if is_best:
            self.best = {"epoch": row["epoch"], metric: value}
            self._write(self.folder.best, {"epoch": row["epoch"], "model": weights})
        if is_kept:
            path = file_of(self.folder, row["epoch"])
            self._write(path, {"epoch": row["epoch"], "model": weights})
        if isinstance(parts.optimizer, RegularizedOptimizer):
            parts.optimizer.collect_engines()
        content = {
            "epoch": row["epoch"],
            "trained": self._trained(),
            **self._network(row["epoch"], weights),
            "scheduler": parts.scheduler.state_dict() if parts.scheduler else None,
            "schedules": {str(i): schedule.state_dict() for i, schedule in enumerate(parts.schedules)},
            "controls": {str(i): control.state_dict() for i, control in enumerate(parts.controls)},
            "scaler": parts.scaler.state_dict() if parts.scaler else None,
            "form": parts.form.state_dict() if parts.form else None,
            "best": self.best,
            "rows": [*self.history.rows, row],
        }
        self._write(self.folder.last, content)
        if rank() == 0:
            self.folder.drop_parts(keep=row["epoch"] if self.conf.scale.sharded else None)
            self.history.append(row)
        else:
            self.history.rows.append(row)

    def _network(self, epoch: int, weights: dict[str, Tensor]) -> dict[str, Any]:
        """Return model and optimizer for the checkpoint, or where their parts are, written now."""
        if not self.conf.scale.sharded:
            return {"model": weights, "optimizer": self.parts.optimizer.state_dict()}
        from torch_bregman.distributed.checkpoint import save_parts  # a second to import, which others need not wait

        folder = self.folder.parts(epoch)
        save_parts(folder, self.parts.model, self.parts.optimizer)
        return {"parts": folder.name}

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        """Write a checkpoint once for all processes, which go on when it is there."""

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, content)

        from_first(write)

    def _trained(self) -> str:
        return f"{self.conf.model.name} with {self.conf.optim.name}"

    def restore(self) -> None:
        """Take up the last checkpoint; a run stopped before its first begins anew."""
        if not from_first(self.folder.last.exists):
            from_first(lambda: self.history.restore([]))
            return
        saved = together(lambda: load_checkpoint(self.folder.last, self.parts.device))
        if saved.get("trained") != self._trained():
            raise CheckpointError(
                f"checkpoint {self.folder.last} belongs to another model or optimizer: it holds "
                f"{saved.get('trained')}, the run's configuration names {self._trained()}"
            )
        try:
            self._restore(saved)
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint {self.folder.last} does not fit the run's configuration, it belongs to another model or "
                f"optimizer: {reason[:300]}"
            ) from None

    def _restore(self, saved: dict[str, Any]) -> None:
        parts = self.parts
        if "model" in saved:
            parts.model.load_state_dict(saved["model"])
        for i, control in enumerate(parts.controls):
            control.load_state_dict(saved["controls"][str(i)])  # a frozen network has other groups
        if "model" in saved:
            parts.optimizer.load_state_dict(saved["optimizer"])
        else:
            from torch_bregman.distributed.checkpoint import load_parts

            load_parts(self.folder.path / saved["parts"], parts.model, parts.optimizer)
        if parts.scheduler:
            parts.scheduler.load_state_dict(saved["scheduler"])
        for i, schedule in enumerate(parts.schedules):
            schedule.load_state_dict(saved["schedules"][str(i)])
        if parts.scaler:
            parts.scaler.load_state_dict(saved["scaler"])
        if parts.form:
            parts.form.load_state_dict(saved["form"])
            hold(parts.controls, parts.form)
        self.flops.restore(saved["rows"])
        self.best = saved["best"]
        if rank() == 0:
            self.history.restore(saved["rows"])
        else:
            self.history.rows = list(saved["rows"])


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
