"""The training loop: epochs, evaluation, log, checkpoints; stopped anywhere, it goes on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler

from torch_bregman.metrics import density, layer_densities
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from torch_bregman.train.conf import Conf
from torch_bregman.train.evaluation import evaluate
from torch_bregman.train.history import History, Row
from torch_bregman.train.observer import Observer, Result
from torch_bregman.train.run_folder import RunFolder
from torch_bregman.train.setup import Parts, set_up
from torch_bregman.train.tensorboard import TensorBoard
from torch_bregman.train.terminal import Terminal

_CHECKED_EVERY = 50
"""Steps between two looks at the loss; each look makes a GPU wait."""


class TrainingDivergedError(ValueError):
    """The loss is no longer a finite number."""


def fit(conf: Conf, observers: Sequence[Observer] | None = None) -> Result:
    """Train the network that a configuration describes, in a new folder `out/name`.

    Args:
        conf: the run.
        observers: told of every epoch; default one that prints to the terminal.

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
    with _settings(conf):
        parts = set_up(conf)
        return _Session(RunFolder.create(conf), conf, parts, observers).run()


def resume(run: str, out: str = "runs", observers: Sequence[Observer] | None = None) -> Result:
    """Go on with a run that was stopped: it ends bit for bit as if it never had been.

    Args:
        run: its folder, or its name in `out`.
        out: the folder of all runs.
        observers: told of every epoch to come; default one that prints to the terminal.

    Raises:
        ValueError: where there is no such run, or its checkpoint is damaged or belongs to another model.
    """
    folder, conf = RunFolder.open(run, out)
    with _settings(conf):
        session = _Session(folder, conf, set_up(conf), observers)
        session.restore()
        return session.run()


class _Session:
    def __init__(self, folder: RunFolder, conf: Conf, parts: Parts, observers: Sequence[Observer] | None) -> None:
        self.folder, self.conf, self.parts = folder, conf, parts
        self.observers = [Terminal()] if observers is None else list(observers)
        self.observers += [TensorBoard()] if conf.tensorboard else []
        self.history = History(folder.jsonl, folder.csv)
        self.best: dict[str, float] = {"epoch": 0, "accuracy": -1.0}

    def run(self) -> Result:
        try:
            return self._run()
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
        result = Result(self.folder, self.conf, self.parts.model, self.history.rows, self._summary())
        self.folder.finish(result.summary)
        for observer in self.observers:
            observer.finished(result)
        return result

    def _epoch(self, epoch: int) -> Row:
        start = time.perf_counter()
        rates = _by_group(self.parts.optimizer, "lr")
        train_loss, train_accuracy = self._train(epoch)
        held_out = self.parts.validation
        score = evaluate(self.parts.model, held_out or self.parts.test, self.parts.autocast)
        kind = "val" if held_out else "test"
        self._advance_schedule(score.loss)
        return {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            f"{kind}_loss": score.loss,
            f"{kind}_accuracy": score.accuracy,
            "density": density(self.parts.model),
            "layer_density": layer_densities(self.parts.model),
            "J": _penalties(self.parts),
            "lr": rates,
            "lam": _by_group(self.parts.optimizer, "lam"),
            "seconds": time.perf_counter() - start,
        }

    def _train(self, epoch: int) -> tuple[float, float]:
        """Go once through the training images; return mean loss and accuracy over them."""
        parts = self.parts
        parts.model.train()
        order = _seed_epoch(self.conf.seed, epoch)
        losses = torch.zeros((), device=parts.device, dtype=torch.float64)
        correct = torch.zeros((), device=parts.device, dtype=torch.int64)
        for number, (x, y) in enumerate(parts.train.epoch(order), start=1):
            loss, logits = self._step(x, y)
            losses += loss * len(y)
            correct += (logits.argmax(1) == y).sum()
            if number % _CHECKED_EVERY == 0 or number == len(parts.train):
                self._check_finite(float(losses), epoch)
            if self.conf.schedule.name and self.conf.schedule.every == "step":
                parts.scheduler.step()
        count = len(parts.train.labels)
        return float(losses) / count, float(correct) / count

    def _step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; return the loss and the logits before it."""
        parts, seen = self.parts, []

        def closure() -> Tensor:
            parts.optimizer.zero_grad()
            with torch.autocast(parts.device.type, dtype=parts.autocast, enabled=parts.autocast is not None):
                logits = parts.model(x)
                loss = cross_entropy(logits, y)
            total = loss if parts.penalty is None else loss + parts.penalty()
            (total if parts.scaler is None else parts.scaler.scale(total)).backward()
            seen.append((loss.detach(), logits.detach()))
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

    def _check_finite(self, losses: float, epoch: int) -> None:
        if not math.isfinite(losses):
            kept = (
                f"the checkpoint of epoch {epoch - 1} is kept in {self.folder.last}"
                if epoch > 1
                else ("no epoch was finished")
            )
            rate = next(iter(_by_group(self.parts.optimizer, "lr").values()))
            raise TrainingDivergedError(f"the loss is {losses} in epoch {epoch}, {kept}: lower optim.lr (now {rate:g})")

    def _advance_schedule(self, loss: float) -> None:
        scheduler = self.parts.scheduler
        if scheduler is None or self.conf.schedule.every == "step":
            return
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss)
        else:
            scheduler.step()

    def _save(self, row: Row) -> None:
        """Write best.pt, then last.pt, which makes the epoch count, then the log, which can be made from last.pt."""
        accuracy = row.get("val_accuracy", row["train_accuracy"])
        if accuracy > self.best["accuracy"]:
            self.best = {"epoch": row["epoch"], "accuracy": accuracy}
            save_checkpoint(self.folder.best, {"epoch": row["epoch"], "model": self.parts.model.state_dict()})
        parts = self.parts
        content = {
            "epoch": row["epoch"],
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scheduler": parts.scheduler.state_dict() if parts.scheduler else None,
            "scaler": parts.scaler.state_dict() if parts.scaler else None,
            "best": self.best,
            "rows": [*self.history.rows, row],
        }
        save_checkpoint(self.folder.last, content)
        self.history.append(row)

    def restore(self) -> None:
        """Take up the last checkpoint; a run stopped before its first begins anew."""
        if not self.folder.last.exists():
            self.history.restore([])
            return
        saved = load_checkpoint(self.folder.last, self.parts.device)
        try:
            self.parts.model.load_state_dict(saved["model"])
            self.parts.optimizer.load_state_dict(saved["optimizer"])
            if self.parts.scheduler:
                self.parts.scheduler.load_state_dict(saved["scheduler"])
            if self.parts.scaler:
                self.parts.scaler.load_state_dict(saved["scaler"])
            self.best = saved["best"]
            self.history.restore(saved["rows"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint {self.folder.last} does not fit the run's configuration, it belongs to another model or "
                f"optimizer: {reason[:300]}"
            ) from None

    def _summary(self) -> dict[str, Any]:
        parts, rows = self.parts, self.history.rows
        last = evaluate(parts.model, parts.test, parts.autocast)
        weights = [p for p in parts.model.parameters() if p.ndim > 1]
        summary = {
            "epochs": len(rows),
            "test_accuracy": last.accuracy,
            "test_loss": last.loss,
            "density": density(parts.model),
            "weights": sum(p.numel() for p in weights),
            "weights_left": sum(int(p.count_nonzero()) for p in weights),
            "seconds": sum(row["seconds"] for row in rows),
            "data": parts.source,
        }
        return {**summary, **self._of_best()} if parts.validation else summary

    def _of_best(self) -> dict[str, Any]:
        """Return the test accuracy of the epoch that did best on the images held out."""
        model = self.parts.model
        final = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(load_checkpoint(self.folder.best, self.parts.device)["model"])
        score = evaluate(model, self.parts.test, self.parts.autocast)
        best = {
            "best_epoch": self.best["epoch"],
            "best_val_accuracy": self.best["accuracy"],
            "best_test_accuracy": score.accuracy,
            "best_density": density(model),
        }
        model.load_state_dict(final)
        return best


def _settings(conf: Conf) -> ExitStack:
    """Set threads and determinism for one run; the process is afterwards as it was."""
    stack = ExitStack()
    stack.enter_context(torch.random.fork_rng())
    if conf.threads is not None:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(conf.threads)
    cudnn = torch.backends.cudnn
    stack.enter_context(cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True))
    return stack


def _seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Seed dropout and return the generator of order and augmentation: both depend on seed and epoch alone."""
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def _by_group(optimizer: torch.optim.Optimizer, key: str) -> dict[str, float]:
    return {str(number): float(group[key]) for number, group in enumerate(optimizer.param_groups) if key in group}


def _penalties(parts: Parts) -> dict[str, float | None]:
    """Return J by group, null for what is no penalty; for the dense baselines the one term of their loss."""
    if isinstance(parts.optimizer, RegularizedOptimizer):
        values = parts.optimizer.regularization()
        return {str(number): value if math.isfinite(value) else None for number, value in enumerate(values)}
    return {"0": 0.0 if parts.penalty is None else float(parts.penalty().detach())}
