"""The steps of an epoch: forward, backward, optimizer, and what is advanced after each."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from torch_bregman.distributed.processes import AgreedError, rank, size, total
from torch_bregman.distributed.sharded import local
from torch_bregman.distributed.shares import Share, shares
from torch_bregman.distributed.wrapping import held_back
from torch_bregman.optim.pgd import NoStepSizeError
from torch_bregman.train.conf import Conf
from torch_bregman.train.cycles import advance
from torch_bregman.train.flops import FlopCount
from torch_bregman.train.reproducible import seed_epoch
from torch_bregman.train.setup import Parts

_CHECKED_EVERY = 50
"""Steps between two looks at the loss; each look makes a GPU wait."""


class TrainingDivergedError(AgreedError):
    """The loss is no longer a finite number; every process sees that of all."""


class Steps:
    """Trains the parts of a run, an epoch at a time.

    Args:
        conf: the run.
        parts: made of it.
        flops: told of every step.
        last: checkpoint that an error names, for it is kept.
    """

    def __init__(self, conf: Conf, parts: Parts, flops: FlopCount, last: Path) -> None:
        self._conf, self._parts, self._flops, self._last = conf, parts, flops, last

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Go once through the training images; return mean loss and metric over them.

        Args:
            epoch: from 1.

        Raises:
            TrainingDivergedError: also for what breaks down over numbers that are not finite.
        """
        try:
            return self._train(epoch)
        except TrainingDivergedError:
            raise
        except (RuntimeError, ValueError) as error:
            if self._parts.form is not None:
                self._parts.form.write()
            if isinstance(error, NoStepSizeError) or not self._is_finite():
                raise self._diverged(epoch, " ".join(str(error).split())) from None
            raise

    def _train(self, epoch: int) -> tuple[float, float]:
        parts = self._parts
        parts.network.train()
        order = seed_epoch(self._conf.seed, epoch, rank())
        sums = torch.zeros(2, device=parts.device, dtype=torch.float64)
        for number, (x, y) in enumerate(parts.train.epoch(order), start=1):
            self._step(x, y, sums)
            if number % _CHECKED_EVERY == 0 or number == len(parts.train):
                self.check_finite(float(total(sums)[0]), epoch)
            self._flops.count(len(y))
            for control in parts.controls:
                advance(control, parts.form)
            if parts.every_step:
                parts.scheduler.step()
        loss, metric = (total(sums) / len(parts.train.labels)).tolist()
        return loss, metric

    def _step(self, x: Tensor, y: Tensor, sums: Tensor) -> None:
        """Take one step; add loss and metric of this process's images, as they were before it, to the sums."""
        parts = self._parts
        seen = torch.zeros_like(sums)
        if parts.form is not None:
            loss, outputs = parts.form.step(x, y, parts.task.loss)
            sums[0] += loss * len(y)
            sums[1] += parts.task.judged(outputs, y)
            return

        def closure() -> Tensor:
            parts.optimizer.zero_grad()
            seen.zero_()
            own = list(shares(x, y, rank(), size(), self._conf.scale.accumulate))
            for part in own[:-1]:
                with held_back(parts.network):
                    self._backward(part, seen, last=False)
            return self._backward(own[-1], seen, last=True)

        if self._conf.optim.name == "pgd":
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
        parts = self._parts
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

    def check_finite(self, loss: float, epoch: int) -> None:
        """Raise TrainingDivergedError where a loss is not finite."""
        if not math.isfinite(loss):
            raise self._diverged(epoch, f"the loss is {loss}")

    def _is_finite(self) -> bool:
        params = list(self._parts.model.parameters())
        kept = [value for state in self._parts.optimizer.state.values() for value in state.values()]
        tensors = [each for each in (*params, *(p.grad for p in params), *kept) if isinstance(each, torch.Tensor)]
        return all(bool(torch.isfinite(local(tensor)).all()) for tensor in tensors)

    def _diverged(self, epoch: int, reason: str) -> TrainingDivergedError:
        last = f"the checkpoint of epoch {epoch - 1} is kept in {self._last}"
        kept = last if epoch > 1 else "no epoch was finished"
        rate = float(self._parts.optimizer.param_groups[0]["lr"])
        return TrainingDivergedError(f"epoch {epoch} diverged ({reason}), {kept}: lower optim.lr (now {rate:g})")
