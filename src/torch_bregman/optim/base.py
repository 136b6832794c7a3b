"""What all optimizers here share: a regulariser in every group, checked arguments, checkpoints of plain values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_bregman.distributed.sharded import gathered, is_sharded
from torch_bregman.optim.low_rank import exact_factors, pack
from torch_bregman.optim.shared_low_rank import Call, Processes, collect_engines
from torch_bregman.regularizers import NoRegularizer, Nuclear, Regularizer, check_lam

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Group = dict[str, Any]
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class RegularizedOptimizer(Optimizer, ABC):
    """An optimizer whose groups carry a regulariser (`group["regularizer"]`) and its strength (`group["lam"]`).

    λ is a plain number beside lr, so that every scheduler finds it; the regulariser is immutable and passed λ.

    Args:
        params: parameters, named parameters or groups, as for any torch optimizer; a group may bring its own
            `regularizer` and `lam`.
        defaults: the numbers every group has.
        regularizer: for the groups that bring none, default none at all.
    """

    like_param: ClassVar[frozenset[str]] = frozenset({"momentum_buffer"})
    """Keys of the state that hold tensors of the parameter's shape."""

    def __init__(self, params: Params, defaults: dict[str, Any], regularizer: Regularizer | None) -> None:
        if regularizer is not None and not isinstance(regularizer, Regularizer):
            raise ValueError(f"regularizer must be a Regularizer such as L1(0.1), got {regularizer!r}")
        self._seen: dict[int, int] = {}
        self._processes: Processes | None = None
        super().__init__(params, {**defaults, "regularizer": regularizer or NoRegularizer()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._seen = {}  # versions of the weights as last written; nothing is known after loading or copying
        self._processes = getattr(self, "_processes", None)  # kept when a checkpoint is loaded, left behind by copies

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, as in torch; checks its parameters, regulariser and numbers.

        Raises:
            ValueError: for complex parameters, a λ that is negative or not finite, or a wrong hyperparameter.
        """
        group = {**self.defaults, **param_group}
        if not isinstance(group["regularizer"], Regularizer):
            raise ValueError(
                f"a group's regularizer must be a Regularizer such as L1(0.1), got {group['regularizer']!r}"
            )
        group.setdefault("lam", group["regularizer"].lam)
        check_lam(group["lam"])
        self._check_group(group)
        super().add_param_group(group)
        if group["regularizer"].joint:
            self._check_joint(self.param_groups[-1])
        for param in self.param_groups[-1]["params"]:
            if param.is_complex():
                self.param_groups.pop()
                raise ValueError(
                    f"{type(self).__name__} takes real parameters, got {param.dtype}: "
                    "optimise torch.view_as_real(parameter) instead"
                )

    def _check_joint(self, group: Group) -> None:
        """Raise ValueError where the parameters of a group are not those its regulariser takes together."""
        try:
            group["regularizer"].check(group["params"])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: Group) -> None:
        """Raise ValueError where a hyperparameter of the group is out of range."""
        at_least("lr", group["lr"], 0)
        if group.get("foreach") and group.get("fused"):
            raise ValueError("foreach=True and fused=True exclude each other: leave one of them unset")

    def share_thresholds(self, group: ProcessGroup | None = None) -> None:
        """Let the processes of a group deal out the singular value thresholdings among them.

        For weights of which every process has the same copy, as under DDP: each thresholds its share and sends thin
        factors to the others. Weights cut into DTensors are dealt out over their mesh without this call.

        Args:
            group: of processes, all of which call this; default all there are.

        Raises:
            ValueError: where this process belongs to no group.
        """
        self._processes = Processes.of(group)

    def collect_engines(self) -> None:
        """Give every process the memory of all engines before one of them calls `state_dict`; all call it.

        Where processes share the thresholds, each follows its own weights only. A memory that is lost costs time.
        """
        low = [(group["regularizer"], param) for group in self.param_groups for param in group["params"]]
        low = [(regularizer, param) for regularizer, param in low if isinstance(regularizer, Nuclear)]
        if low and (self._processes or any(is_sharded(param) for _, param in low)):
            group = self._processes.group if self._processes else None
            collect_engines([each for each, _ in low], [self.state[param] for _, param in low], group)

    def _is_shared(self, call: Call) -> bool:
        return self._processes is not None or any(map(is_sharded, call.outs))

    @torch.no_grad()
    def regularization(self) -> list[float]:
        """Return J of each group at the current weights, with the λ in force; nan where there is no J.

        Example:
            >>> import torch, torch_bregman as tb
            >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
            >>> tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5)).regularization()
            [1.5]
        """
        return [self._penalty(group) for group in self.param_groups]

    def _penalty(self, group: Group) -> float:
        regularizer, lam = group["regularizer"], group["lam"]
        if not regularizer.deterministic:
            return math.nan
        if isinstance(regularizer, Nuclear):
            norms = ((regularizer.weight(param), self.spectrum(param).sum()) for param in group["params"])
            return lam * float(sum(weight * norm for weight, norm in norms))
        if regularizer.joint:
            return float(regularizer.value_all([param.detach() for param in group["params"]], lam=lam))
        return float(sum(gathered(regularizer.value(param.detach(), lam=lam)) for param in group["params"]))

    @torch.no_grad()
    def factors(self, param: Tensor) -> tuple[Tensor, Tensor]:
        """Return thin factors L (r × m) and R (r × n) with W = LᵀR, W the weight as its regulariser's matrix.

        Under a nuclear norm they are those of the last step, at no cost; else they come from a decomposition.

        Raises:
            ValueError: for a parameter that is not in this optimizer.

        Example:
            >>> import torch, torch_bregman as tb
            >>> weight = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0, 0.0])))
            >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.Nuclear(0.5))
            >>> left, right = optimizer.factors(weight)
            >>> left.shape, torch.allclose(left.mT @ right, weight)
            (torch.Size([2, 3]), True)
        """
        group = next((g for g in self.param_groups if any(param is p for p in g["params"])), None)
        if group is None:
            raise ValueError(f"a tensor of shape {tuple(param.shape)} is no parameter of this optimizer")
        state = self.state.get(param, {})
        if "left" in state and self._seen.get(id(param)) == param._version:
            return state["left"], state["right"]
        return exact_factors(group["regularizer"], param)

    def spectrum(self, param: Tensor) -> Tensor:
        """Return the singular values of a weight that are not zero, falling, from its factors."""
        left, right = self.factors(param)
        norms = torch.linalg.vector_norm(left, dim=-1) * torch.linalg.vector_norm(right, dim=-1)
        return norms.sort(descending=True).values

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, numbers, strings, None and dicts: it loads under `weights_only=True`."""
        packed = super().state_dict()
        packed["state"] = {index: pack(state) for index, state in packed["state"].items()}
        for group in packed["param_groups"]:
            regularizer = group["regularizer"]
            state = regularizer.state()
            group["regularizer"] = {**regularizer.spec(), **({"state": state} if state else {})}
        return packed

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; tensors are copied and keep their dtype.

        Options that the checkpoint does not know stay as they are.

        Raises:
            ValueError: where the checkpoint was made with other regularisers, groups or shapes of parameters.
        """
        before, saved = self.param_groups, state_dict["param_groups"]
        self._check_checkpoint(state_dict)
        plain = [{key: value for key, value in group.items() if key != "regularizer"} for group in saved]
        states = {i: {k: v for k, v in state.items() if k != "engine"} for i, state in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "param_groups": plain, "state": states})
        for group, own, packed in zip(self.param_groups, before, saved, strict=True):
            for key, value in own.items():
                group.setdefault(key, value)
            group["regularizer"].load_state(packed["regularizer"].get("state", {}))
        self._copy_state(state_dict)

    def _check_checkpoint(self, state_dict: dict[str, Any]) -> None:
        saved, own = state_dict["param_groups"], self.param_groups
        if len(saved) != len(own):
            raise ValueError(f"the checkpoint has {len(saved)} parameter groups, this optimizer {len(own)}")
        for number, (theirs, ours) in enumerate(zip(saved, own, strict=True)):
            if "regularizer" not in theirs:
                raise ValueError(
                    f"group {number} of the checkpoint has no regularizer: it was saved by an optimizer of another "
                    "library; load the model's weights alone and start the optimizer anew"
                )
            spec = {key: value for key, value in theirs["regularizer"].items() if key != "state"}
            if spec != ours["regularizer"].spec():
                raise ValueError(
                    f"group {number} of the checkpoint was trained with {spec}, this optimizer has "
                    f"{ours['regularizer'].spec()}: build it with the same regularizer"
                )
            if len(theirs["params"]) != len(ours["params"]):
                raise ValueError(
                    f"group {number} of the checkpoint has {len(theirs['params'])} parameters, "
                    f"this optimizer {len(ours['params'])}: build it from the same model"
                )
            for index, param in zip(theirs["params"], ours["params"], strict=True):
                self._check_shapes(state_dict["state"].get(index, {}), param)

    def _check_shapes(self, state: dict[str, Any], param: Tensor) -> None:
        for key in self.like_param & state.keys():
            if state[key] is not None and state[key].shape != param.shape:
                raise ValueError(
                    f"the checkpoint holds {key!r} of shape {tuple(state[key].shape)} for a parameter of shape "
                    f"{tuple(param.shape)}: it belongs to another model"
                )

    def _copy_state(self, state_dict: dict[str, Any]) -> None:
        # torch aliases the loaded tensors and casts them to the parameter's dtype; a dual of a half-precision
        # parameter must stay float32. What has the parameter's shape must lie in memory as the parameter does
        for theirs, ours in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, param in zip(theirs["params"], ours["params"], strict=True):
                saved = state_dict["state"].get(index, {})
                if not saved:
                    continue
                own = self.state[param]
                if "engine" in saved:
                    own["engine"] = ours["regularizer"].new_engine()
                    own["engine"].load_state(saved["engine"])
                for key, value in saved.items():
                    factor = key in ("left", "right")  # may happen to have the shape of the weight
                    if isinstance(value, Tensor) and param.ndim and value.shape == param.shape and not factor:
                        own[key] = torch.empty_like(param, dtype=value.dtype).copy_(value.detach())
                    elif isinstance(value, Tensor):
                        own[key] = value.detach().to(device=own[key].device, copy=True)


class GradientOptimizer(RegularizedOptimizer):
    """A regularised optimizer that takes one gradient a step."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: evaluates the model anew and returns the loss; called with gradients enabled.

        Returns:
            The loss of the closure, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step()
        self._finish()
        return loss

    @abstractmethod
    def _step(self) -> None:
        """Move all parameters that have a gradient."""

    def _finish(self) -> None:
        """Do what can only be done for all parameters together."""


def at_least(name: str, value: float | Tensor, least: float, *, above: bool = False) -> None:
    """Raise ValueError where a hyperparameter is below its least value, or not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number) or number < least or (above and number == least):
        raise ValueError(f"{name} must be a finite number {'>' if above else '>='} {least}, got {value!r}")


def check_momentum(group: Group) -> None:
    """Raise ValueError for momentum, dampening and nesterov that do not go together."""
    at_least("momentum", group["momentum"], 0)
    if group["momentum"] >= 1:
        raise ValueError(f"momentum must lie in [0, 1), got {group['momentum']!r}")
    at_least("dampening", group["dampening"], 0)
    if group["dampening"] > 1:
        raise ValueError(f"dampening must lie in [0, 1], got {group['dampening']!r}")
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ValueError(
            f"nesterov needs momentum > 0 and dampening = 0, got momentum {group['momentum']!r} and dampening "
            f"{group['dampening']!r}: set momentum=0.9, dampening=0, or nesterov=False"
        )


def check_betas(group: Group) -> None:
    """Raise ValueError for decay rates outside [0, 1)."""
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1) such as (0.9, 0.999), got {betas!r}")
    for number, beta in enumerate(betas, start=1):
        if not 0 <= float(beta) < 1:
            raise ValueError(f"beta{number} must lie in [0, 1), got {beta!r}")
