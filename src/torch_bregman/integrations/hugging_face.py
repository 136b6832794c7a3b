"""The Hugging Face Trainer: a callback that logs density and rank, and advances schedules and controllers."""

from __future__ import annotations

from typing import Any

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("transformers is not installed: pip install 'torch-bregman[integrations]'") from error

from torch_bregman.integrations.advancing import Advancing, Make, sizes, unwrapped


class BregmanCallback(TrainerCallback):
    """Adds `density`, `rank` and `lam` to what the Trainer logs, and advances schedules.

    The optimizer is given to the Trainer as ever: `Trainer(…, optimizers=(optimizer, None))`, where None leaves the
    learning rate to the Trainer. The state of the schedules is not in the Trainer's checkpoint.

    Args:
        every_step: from the optimizer to what is advanced after every step, such as `LamByQuantile`.
        every_epoch: from the optimizer to what is advanced after every epoch, such as `LamSchedule`.

    Raises:
        ImportError: where transformers is missing.

    Example:
        >>> import torch_bregman as tb
        >>> callback = BregmanCallback(every_epoch=lambda optimizer: [
        ...     tb.schedulers.LamSchedule(optimizer, tb.schedulers.linear(1.0, 0.5, steps=10))])
    """

    def __init__(self, every_step: Make | None = None, every_epoch: Make | None = None) -> None:
        self._advancing = Advancing(every_step, every_epoch)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the schedules."""
        self._advancing.begin(unwrapped(kwargs["optimizer"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance what goes by steps."""
        self._advancing.advance("step")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Advance what goes by epochs; a plateau is judged by the loss logged last."""
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        self._advancing.advance("epoch", losses[-1] if losses else None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the sizes."""
        found = sizes(kwargs["model"], unwrapped(kwargs["optimizer"]))
        if logs is not None:
            logs.update(found)
        if state.log_history:
            state.log_history[-1].update(found)
