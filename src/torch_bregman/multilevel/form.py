"""What every compact form offers: a step, the outputs, and the way back to model and optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from torch_bregman.optim import MultilevelLinBreg

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets to a number."""


class CompactForm(ABC):
    """Trains a model on tensors that hold its active part only.

    Model and optimizer are as the mask form would leave them after `write`, which has to come before anyone else reads
    or changes them: evaluation of the model, checkpoints, schedules. The next step takes their state up again, whatever
    was loaded into them in between. `network` evaluates without `write`.

    Args:
        model: what is trained.
        optimizer: of its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: MultilevelLinBreg) -> None:
        self.model, self.optimizer = model, optimizer
        self.network = _Network(self)
        self.masks: dict[int, Tensor] = {}

    def step(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Take one step of the optimizer; return the loss and the outputs before it.

        Args:
            x: a batch of inputs.
            y: what `loss` compares the outputs with.
            loss: of outputs and y, a tensor without dimensions.
        """
        self._take()
        fine = self.optimizer.fine
        self.optimizer.zero_grad()
        outputs = self._forward(x, fine)
        value = loss(outputs, y)
        value.backward()
        self._update(fine)
        return value.detach(), outputs.detach()

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs of the active network; the modules are in the mode they are in."""
        self._take()
        return self._forward(x, False)

    def freeze(self, masks: dict[int, Tensor]) -> None:
        """Go on with supports that are frozen for good, as `Consolidation` leaves them; `write` comes first.

        Args:
            masks: by the `id` of the weight.
        """
        self.masks = masks

    @abstractmethod
    def _take(self) -> None:
        """Take the state up from model and optimizer, where `write` has given it back."""

    @abstractmethod
    def _forward(self, x: Tensor, fine: bool) -> Tensor:
        """Return the outputs; before a fine step, so that the full gradient can be seen."""

    @abstractmethod
    def _update(self, fine: bool) -> None:
        """Move everything by the gradients at hand, and count the step."""

    @abstractmethod
    def settle(self) -> None:
        """Bring the dual variables in the optimizer up to date, for a controller that reads levels."""

    @abstractmethod
    def write(self) -> None:
        """Give weights and state back to model and optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: what was measured at the start, for a run to go on bit for bit."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""

    @abstractmethod
    def awake(self) -> dict[str, int]:
        """Return how many entries of each weight take part in a coarse step, by its name."""


class _Network(nn.Module):
    """The active network as a module; shares the model's modules, and is in their mode."""

    def __init__(self, form: CompactForm) -> None:
        super().__init__()
        self._form: Any = [form]
        self.model = form.model

    def forward(self, x: Tensor) -> Tensor:
        """Return what the model would return."""
        return self._form[0].outputs(x)


def group_index(optimizer: MultilevelLinBreg, param: Tensor) -> int:
    """Return in which group a parameter is, −1 for none."""
    groups = optimizer.param_groups
    return next((i for i, group in enumerate(groups) if any(param is each for each in group["params"])), -1)
