"""What a run keeps after every epoch, and how it takes it up again, bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_bregman.distributed.processes import from_first, rank, together
from torch_bregman.distributed.wrapping import full_state
from torch_bregman.metrics import density
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from torch_bregman.train.conf import Conf
from torch_bregman.train.cycles import hold
from torch_bregman.train.flops import FlopCount
from torch_bregman.train.history import History, Row
from torch_bregman.train.path import file_of, passes, size_of
from torch_bregman.train.ranks import low_ranks
from torch_bregman.train.run_folder import RunFolder
from torch_bregman.train.setup import Parts


class Keeper:
    """Keeps log and checkpoints of a run.

    Args:
        folder: of the run.
        conf: the run.
        parts: made of it.
        flops: whose count is a part of the log.
    """

    def __init__(self, folder: RunFolder, conf: Conf, parts: Parts, flops: FlopCount) -> None:
        self._folder, self._conf, self._parts, self._flops = folder, conf, parts, flops
        self.history = History(folder.jsonl, folder.csv)
        ranks = low_ranks(parts.model, parts.optimizer) if conf.keep_at else {}
        self._first_size = size_of({"density": density(parts.model), "layer_rank": ranks})
        self.best: dict[str, float] = {"epoch": 0, parts.task.metric: -math.inf}

    def save(self, row: Row) -> None:
        """Write best.pt, then last.pt, which makes the epoch count, then the log, which can be made from last.pt."""
        metric, parts = self._parts.task.metric, self._parts
        value = row.get(f"val_{metric}", row[f"train_{metric}"])
        before = size_of(self.history.rows[-1]) if self.history.rows else self._first_size
        is_best, is_kept = value > self.best[metric], passes(self._conf.keep_at, before, size_of(row))
        weights = full_state(parts.model) if is_best or is_kept or not self._conf.scale.sharded else {}
        if is_best:
            self.best = {"epoch": row["epoch"], metric: value}
            self._write(self._folder.best, {"epoch": row["epoch"], "model": weights})
        if is_kept:
            path = file_of(self._folder, row["epoch"])
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
        self._write(self._folder.last, content)
        if rank() == 0:
            self._folder.drop_parts(keep=row["epoch"] if self._conf.scale.sharded else None)
            self.history.append(row)
        else:
            self.history.rows.append(row)

    def _network(self, epoch: int, weights: dict[str, Tensor]) -> dict[str, Any]:
        """Return model and optimizer for the checkpoint, or where their parts are, written now."""
        if not self._conf.scale.sharded:
            return {"model": weights, "optimizer": self._parts.optimizer.state_dict()}
        from torch_bregman.distributed.checkpoint import save_parts  # a second to import, which others need not wait

        folder = self._folder.parts(epoch)
        save_parts(folder, self._parts.model, self._parts.optimizer)
        return {"parts": folder.name}

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        """Write a checkpoint once for all processes, which go on when it is there."""

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, content)

        from_first(write)

    def _trained(self) -> str:
        return f"{self._conf.model.name} with {self._conf.optim.name}"

    def restore(self) -> None:
        """Take up the last checkpoint; a run stopped before its first begins anew."""
        if not from_first(self._folder.last.exists):
            from_first(lambda: self.history.restore([]))
            return
        saved = together(lambda: load_checkpoint(self._folder.last, self._parts.device))
        if saved.get("trained") != self._trained():
            raise CheckpointError(
                f"checkpoint {self._folder.last} belongs to another model or optimizer: it holds "
                f"{saved.get('trained')}, the run's configuration names {self._trained()}"
            )
        try:
            self._restore(saved)
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint {self._folder.last} does not fit the run's configuration, it belongs to another model or "
                f"optimizer: {reason[:300]}"
            ) from None

    def _restore(self, saved: dict[str, Any]) -> None:
        parts = self._parts
        if "model" in saved:
            parts.model.load_state_dict(saved["model"])
        for i, control in enumerate(parts.controls):
            control.load_state_dict(saved["controls"][str(i)])  # a frozen network has other groups
        if "model" in saved:
            parts.optimizer.load_state_dict(saved["optimizer"])
        else:
            from torch_bregman.distributed.checkpoint import load_parts

            load_parts(self._folder.path / saved["parts"], parts.model, parts.optimizer)
        if parts.scheduler:
            parts.scheduler.load_state_dict(saved["scheduler"])
        for i, schedule in enumerate(parts.schedules):
            schedule.load_state_dict(saved["schedules"][str(i)])
        if parts.scaler:
            parts.scaler.load_state_dict(saved["scaler"])
        if parts.form:
            parts.form.load_state_dict(saved["form"])
            hold(parts.controls, parts.form)
        self._flops.restore(saved["rows"])
        self.best = saved["best"]
        if rank() == 0:
            self.history.restore(saved["rows"])
        else:
            self.history.rows = list(saved["rows"])
