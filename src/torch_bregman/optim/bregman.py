"""The Bregman version of any optimizer: it moves the dual variables, θ is their image."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from torch_bregman.optim.base import RegularizedOptimizer
from torch_bregman.optim.dual_step import decay_into_dual
from torch_bregman.optim.gradients import spared
from torch_bregman.optim.mirror import Batch, MirrorOptimizer
from torch_bregman.regularizers import Regularizer

_OWN_KEYS = frozenset({"params", "param_names", "regularizer", "lam", "delta", "weight_decay"})
_REFUSED = {
    "ASGD": "it averages weights, and pulls what it moves towards zero",
    "SparseAdam": "it takes sparse gradients only",
}


class Bregman(MirrorOptimizer):
    """Runs any `torch.optim.Optimizer` on the dual variables, then maps back: θ ← prox_{δJ}(δv).

    The base never sees the weights: it is given the duals with their gradients, and its learning rate and other
    numbers live in the groups of this optimizer, where schedulers find them. Its own weight decay would act on v, the
    memory of sleeping weights, so it is converted: v ← v − τ·wd·θ before the step.

    Args:
        base: a fresh optimizer over the parameters, e.g. `torch.optim.RMSprop(tb.param_groups(...), lr=1e-3)`.
        regularizer: J of the groups that bring none of their own; default none.
        delta: δ > 0, default 1.

    Raises:
        ValueError: for a base that has already taken steps, needs a closure (LBFGS evaluates the model between its own
            moves), or cannot act on dual variables.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022, for the idea of moving v by a preconditioned gradient.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = tb.Bregman(torch.optim.RMSprop([weight], lr=0.1), regularizer=tb.L1(0.15))
        >>> for _ in range(3):
        ...     weight.grad = torch.tensor([-5.0, 0.0])
        ...     optimizer.step()
        >>> weight.detach() > 0
        tensor([ True, False])
    """

    def __init__(self, base: Optimizer, *, regularizer: Regularizer | None = None, delta: float = 1.0) -> None:
        _check_base(base)
        self.base = base
        groups = [dict(group) for group in base.param_groups]
        for group in base.param_groups:
            group["params"] = []
        super().__init__(groups, {"weight_decay": 0.0, **base.defaults, "delta": delta}, regularizer)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base}

    def _step(self) -> None:
        batches = self._batches()
        found = [(dual, dual.grad) for batch in batches for dual in batch.duals]
        self._hand_over_numbers()
        try:
            for batch in batches:
                decay_into_dual(batch)
                self._lend(batch)
            self.base.step()
        finally:
            self._take_back(batches)
            for dual, grad in found:
                dual.grad = grad
        for batch in batches:
            self._map(batch)

    def _hand_over_numbers(self) -> None:
        """Give the groups of the base the numbers in force, but no weight decay."""
        while len(self.base.param_groups) < len(self.param_groups):
            self.base.param_groups.append({**self.base.defaults, "params": []})
        for own, group in zip(self.param_groups, self.base.param_groups, strict=True):
            group.update({key: value for key, value in own.items() if key not in _OWN_KEYS})
            if "weight_decay" in group:
                group["weight_decay"] = 0.0

    def _lend(self, batch: Batch) -> None:
        """Give the base the duals, their gradients and its state."""
        group = next(g for own, g in zip(self.param_groups, self.base.param_groups, strict=True) if own is batch.group)
        group["params"] = batch.duals
        options = {key: group.get(key) for key in ("nesterov", "foreach", "fused")}
        grads, made = spared(batch.grads, **options), self.base.state
        for param, dual, grad, state in zip(batch.params, batch.duals, grads, batch.states, strict=True):
            dual.grad = grad
            inherited = {key: value for key, value in state.items() if key not in ("subgrad", "lam")}
            lent = inherited or _started_for(dual, made.pop(param, {}))
            if lent:
                made[dual] = lent

    def _take_back(self, batches: list[Batch]) -> None:
        """Keep all state here, so that copies and checkpoints hold it."""
        for batch in batches:
            for dual, state in zip(batch.duals, batch.states, strict=True):
                state.update(self.base.state.pop(dual, {}))
        for group in self.base.param_groups:
            group["params"] = []


def _check_base(base: Optimizer) -> None:
    kind = type(base).__name__
    if not isinstance(base, Optimizer):
        raise ValueError(f"Bregman needs an optimizer such as torch.optim.RMSprop(...), got {base!r}")
    if isinstance(base, RegularizedOptimizer):
        raise ValueError(f"Bregman cannot wrap {kind}, which has a regulariser already: use it as it is")
    if kind in _REFUSED:
        raise ValueError(f"Bregman cannot run {kind} on dual variables: {_REFUSED[kind]}; use RMSprop, Adam, SGD, …")
    closure = inspect.signature(type(base).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"Bregman cannot run {kind}, which evaluates the model between moves of its own: "
            "use PGD for full-batch training, or a base that takes gradients as they are"
        )
    if any(_has_stepped(state) for state in base.state.values()):
        raise ValueError(f"Bregman needs a fresh optimizer, this {kind} has taken steps: build a new one")


def _has_stepped(state: dict[str, Any]) -> bool:
    # Adagrad makes its state when it is built, and counts the steps it has taken
    return "step" not in state or float(state["step"]) > 0


def _started_for(dual: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Return state that the base has made for a parameter, made to fit its dual."""
    return {key: value if key == "step" else value.to(dual) for key, value in state.items()}
