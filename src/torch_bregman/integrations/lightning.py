"""Lightning: a callback that logs density and rank, and advances schedules and controllers."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("lightning is not installed: pip install 'torch-bregman[integrations]'") from error

from torch_bregman.integrations.advancing import Advancing, Make, sizes, unwrapped


class BregmanCallback(Callback):
    """Logs `density`, `rank` and `lam` once an epoch; advances schedules, whose state goes into Lightning's checkpoint.

    `configure_optimizers` of the module returns the optimizer as ever, e.g. `tb.LinBreg(tb.param_groups(self, …))`.

    Args:
        every_step: from the optimizer to what is advanced after every step, such as `LamByQuantile`.
        every_epoch: from the optimizer to what is advanced after every epoch, such as `LamSchedule`.

    Raises:
        ImportError: where lightning is missing.

    A run is not gone on with from a checkpoint made after a `Consolidation` has frozen the network: Lightning restores
    the optimizer first.

    Example:
        >>> import torch_bregman as tb
        >>> callback = BregmanCallback(every_epoch=lambda optimizer: [
        ...     tb.schedulers.LamSchedule(optimizer, tb.schedulers.linear(1.0, 0.5, steps=10))])
    """

    def __init__(self, every_step: Make | None = None, every_epoch: Make | None = None) -> None:
        super().__init__()
        self._advancing = Advancing(every_step, every_epoch)
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the schedules."""
        self._advancing.begin(unwrapped(trainer.optimizers[0]))
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Advance what goes by steps, unless gradients are still being added up."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._advancing.advance("step")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and advance what goes by epochs; a plateau is judged by `val_loss`, or `train_loss`."""
        seen = trainer.callback_metrics
        metric = seen.get("val_loss", seen.get("train_loss"))
        pl_module.log_dict(sizes(pl_module, unwrapped(trainer.optimizers[0])), rank_zero_only=trainer.world_size > 1)
        self._advancing.advance("epoch", None if metric is None else float(metric))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the schedules."""
        return self._advancing.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of the schedules."""
        self._advancing.load_state_dict(state_dict)
