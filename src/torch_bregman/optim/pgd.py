"""Full-batch proximal gradient descent, with acceleration, restart and backtracking."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.optim.acceleration import next_momentum
from torch_bregman.optim.base import Group, Params, RegularizedOptimizer, at_least
from torch_bregman.optim.gradients import matching
from torch_bregman.regularizers import Regularizer

_MOST_BACKTRACKS = 60


class NoStepSizeError(RuntimeError):
    """Backtracking found no step size that lowers the objective."""


class PGD(RegularizedOptimizer):
    """Proximal gradient descent on F = f + J: x ← prox_{τJ}(y − τ∇f(y)).

    y = x without acceleration, else y = x + μ_k (x − x_before) with Nesterov's sequence (FISTA), which starts anew when
    F rises. Backtracking shrinks τ until f(x) ≤ f(y) + ⟨∇f(y), x − y⟩ + ‖x − y‖²/(2τ), so that τ ≤ 1/L is found, not
    guessed. For full batches: the closure must evaluate the same f every time.

    Args:
        params: parameters or groups, e.g. from `param_groups`.
        lr: largest τ tried, ≥ 0, default 1.
        regularizer: J of the groups that bring none of their own; default none.
        accelerated: FISTA momentum with restart, default on.
        backtracking: factor in (0, 1) by which τ shrinks, default 0.5; 1 keeps τ as it is.

    Raises:
        ValueError: for a number out of range, or a step without a closure.
        NoStepSizeError: where no τ makes f finite and small enough; the weights are those before the step.

    References:
        Beck, Teboulle 2009; O'Donoghue, Candès 2015 (function restart).

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = tb.PGD([weight], lr=1.0, regularizer=tb.L1(0.5))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (weight - torch.tensor([1.0, 0.1])).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(30):
        ...     loss = optimizer.step(closure)
        >>> weight
        Parameter containing:
        tensor([0.7500, 0.0000], requires_grad=True)
    """

    like_param: ClassVar[frozenset[str]] = frozenset({"previous"})

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        *,
        regularizer: Regularizer | None = None,
        accelerated: bool = True,
        backtracking: float = 0.5,
    ) -> None:
        defaults = {"lr": lr, "accelerated": accelerated, "backtracking": backtracking}
        super().__init__(params, defaults, regularizer)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        at_least("backtracking", group["backtracking"], 0, above=True)
        if group["backtracking"] > 1:
            raise ValueError(f"backtracking must lie in (0, 1], got {group['backtracking']!r}: 1 switches it off")
        for key, start in (("t", 1.0), ("look_ahead", 0.0), ("objective", math.inf), ("shrink", 1.0)):
            group.setdefault(key, start)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: clears the gradients, evaluates f on the full batch, calls backward and returns f. It is called at
                y and once for every τ tried.

        Returns:
            f(y).
        """
        if not any(float(group["lr"]) for group in self.param_groups):
            return self._stand_still(closure)
        if closure is None:
            raise ValueError("PGD evaluates the loss more than once a step: call step(closure)")
        start = [param.clone() for param in self._params()]
        try:
            return self._advance(closure, start)
        except BaseException:
            _restore(self._params(), start)
            raise

    def _stand_still(self, closure: Callable[[], float] | None) -> float | None:
        # torch's distributed checkpoints step like this, without a closure, to learn what the state will hold
        loss = None if closure is None else _evaluate(closure)
        for param in self._params():
            if param.grad is not None:
                self.state[param].setdefault("previous", param.clone())
        return loss

    def _advance(self, closure: Callable[[], float], start: list[Tensor]) -> float:
        t, momentum = self._shared("t"), self._shared("look_ahead")
        loss, after = self._proximal_step(closure, momentum)
        if momentum and not after + self._total_penalty() <= self._shared("objective"):
            _restore(self._params(), start)
            t = 1.0
            loss, after = self._proximal_step(closure, 0.0)
        for param, before in zip(self._params(), start, strict=True):
            if param.grad is not None:
                self.state[param]["previous"] = before
        t, momentum = next_momentum(t) if self._shared("accelerated") else (1.0, 0.0)
        self._share("t", t)
        self._share("look_ahead", momentum)
        self._share("objective", after + self._total_penalty())
        return loss

    def _proximal_step(self, closure: Callable[[], float], momentum: float) -> tuple[float, float]:
        """Move from x to prox(y − τ∇f(y)); return f(y) and f there."""
        if momentum:
            for param in self._params():
                if "previous" in self.state[param]:
                    param.add_(param - self.state[param]["previous"], alpha=momentum)
        loss = _evaluate(closure)
        moving = [
            (group, param, param.clone(), matching(param.grad, param).clone())
            for group in self.param_groups
            if float(group["lr"])
            for param in group["params"]
            if param.grad is not None
        ]
        for _ in range(_MOST_BACKTRACKS):
            bound = loss
            for group, param, y, grad in moving:
                bound += _try(group, param, y, grad)
            for group in {id(move[0]): move[0] for move in moving if move[0]["regularizer"].joint}.values():
                bound += _try_joint(group, moving)
            after = _evaluate(closure)
            if after <= bound + 1e-12 * abs(bound) or (self._shared("backtracking") == 1 and math.isfinite(after)):
                return loss, after
            self._share("shrink", self._shared("shrink") * self._shared("backtracking"))
        raise NoStepSizeError(
            f"PGD found no step size below lr that lowers the loss {loss:.4g}: is the closure full-batch?"
        )

    def _params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def _total_penalty(self) -> float:
        return sum(self.regularization())

    def _shared(self, key: str) -> Any:
        return self.param_groups[0][key]

    def _share(self, key: str, value: float) -> None:
        for group in self.param_groups:
            group[key] = value


def _try(group: Group, param: Tensor, y: Tensor, grad: Tensor) -> float:
    """Set x = prox_{τJ}(y − τg); return ⟨g, x − y⟩ + ‖x − y‖²/(2τ)."""
    if group["regularizer"].joint:
        return 0.0
    step = float(group["lr"]) * group["shrink"]
    group["regularizer"].prox(y.add(grad, alpha=-step), step, lam=group["lam"], out=param)
    return _model(param, y, grad, step)


def _try_joint(group: Group, moving: list[tuple[Group, Tensor, Tensor, Tensor]]) -> float:
    """Do the same for all parameters that a regulariser takes together."""
    step = float(group["lr"]) * group["shrink"]
    own = {id(param): (y, grad) for member, param, y, grad in moving if member is group}
    if len(own) < len(group["params"]):
        raise ValueError("PGD needs gradients of all parameters of a joint group: train none of them, or all")
    points = [y.add(grad, alpha=-step) for y, grad in (own[id(param)] for param in group["params"])]
    group["regularizer"].prox_all(points, step, lam=group["lam"], outs=group["params"])
    return sum(_model(param, *own[id(param)], step) for param in group["params"])


def _model(param: Tensor, y: Tensor, grad: Tensor, step: float) -> float:
    move = (param - y).double()
    return float((grad.double() * move).sum() + move.square().sum() / (2 * step))


def _evaluate(closure: Callable[[], float]) -> float:
    with torch.enable_grad():
        loss = closure()
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def _restore(params: list[Tensor], values: list[Tensor]) -> None:
    for param, value in zip(params, values, strict=True):
        param.copy_(value)
