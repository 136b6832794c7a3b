"""Mirror descent: the dual variable v takes the step, θ = prox_{δJ}(δv) follows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from torch_bregman.optim.base import GradientOptimizer, Group, Params, at_least
from torch_bregman.optim.gradients import is_dense, matching, stands_still
from torch_bregman.optim.joint import frozen, joint_residual, reconcile_joint, rescale_joint, start_joint
from torch_bregman.optim.low_rank import forget, image, threshold_into
from torch_bregman.optim.rescaling import rescaled, rounding
from torch_bregman.optim.shared_low_rank import Call, threshold_shared
from torch_bregman.regularizers import NoRegularizer, Nuclear, Regularizer, check_lam

_ENGINE_ERROR = 4e-3
_HALVES = frozenset({torch.float16, torch.bfloat16})


class Batch(NamedTuple):
    """Some parameters of one group that have a gradient, with all that a step needs."""

    group: Group
    params: list[Tensor]
    duals: list[Tensor]
    grads: list[Tensor]
    states: list[dict[str, Any]]


class MirrorOptimizer(GradientOptimizer):
    """Moves the dual variables v ∈ ∂J_δ(θ), then maps them back: θ = prox_{δJ}(δv).

    A dual variable is started at the first step with a gradient, as v = θ/δ + λp with p ∈ ∂J₁(θ), so that θ stays what
    it is. It is float32 for half-precision parameters.

    A step with lr = 0 moves neither v nor θ, not even by a rounding error, and leaves a changed λ for the next step.

    Weights changed behind the optimizer's back (`load_state_dict`, surgery; not edits through `.data`, which torch
    hides) are noticed at the next step: where θ no longer is the image of v, v is started anew, with one warning.
    """

    like_param: ClassVar[frozenset[str]] = GradientOptimizer.like_param | {"subgrad"}

    def __init__(self, params: Params, defaults: dict[str, Any], regularizer: Regularizer | None) -> None:
        self._shared: list[tuple[Call, Batch]] = []
        super().__init__(params, defaults, regularizer)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._shared = []

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        at_least("delta", group["delta"], 0, above=True)
        at_least("weight_decay", group["weight_decay"], 0)

    def _batches(self, size: float = math.inf) -> list[Batch]:
        """Return the parameters that have a gradient, duals up to date: groups, or about `size` CPU entries each."""
        batches, restarted, seen = [], 0, self._seen
        for group in self.param_groups:
            batch, plain, entries = Batch(group, [], [], [], []), _is_plain(group), 0
            joint = group["regularizer"].joint
            if joint:
                restarted += self._update_joint(group)
            for param in group["params"]:
                grad = param.grad
                if grad is None:
                    continue
                state = self.state[param]
                if plain and param.dtype not in _HALVES and is_dense(param):
                    dual = param  # θ = v: nothing has to be kept or mapped
                else:
                    if not joint and ("subgrad" not in state or seen.get(id(param)) != param._version):
                        restarted += self._update_dual(param, group, state)
                    dual = state["subgrad"]
                batch.params.append(param)
                batch.duals.append(dual)
                batch.grads.append(matching(grad, dual))
                batch.states.append(state)
                entries += dual.numel() if dual.is_cpu else 0
                if entries >= size and not joint:
                    batches.append(batch)
                    batch, entries = Batch(group, [], [], [], []), 0
            if batch.params:
                batches.append(batch)
        self._note_restarts(restarted)
        return batches

    @staticmethod
    def _note_restarts(count: int) -> None:
        if count:
            warnings.warn(
                f"weights were changed outside of the optimizer: the dual variable of {count} entries was started "
                "anew at the weights found, so the memory of their past gradients is lost",
                stacklevel=7,
            )

    def _update_dual(self, param: Tensor, group: Group, state: dict[str, Any]) -> int:
        """Start v where there is none, or anew where θ is not its image; return for how many entries anew."""
        if "subgrad" not in state:
            self._start(param, group, state)
        elif group["regularizer"].deterministic:
            return self._reconcile(param, group, state)
        return 0

    def _update_joint(self, group: Group) -> int:
        """Do the same for a group whose parameters are one argument of the regulariser, once one of them moves."""
        params = group["params"]
        if all(param.grad is None for param in params):
            return 0
        states = [self.state[param] for param in params]
        known = all(self._seen.get(id(param)) == param._version for param in params)
        anew = all("subgrad" not in state for state in states)
        started = start_joint(group, states)
        return reconcile_joint(group, states) if (started and not anew) or not (started or known) else 0

    def _start(self, param: Tensor, group: Group, state: dict[str, Any]) -> None:
        dual = self._dual_of(param, group)
        # every tensor of the state lies in memory as the parameter does, without gaps
        state["subgrad"] = torch.empty_like(param, dtype=dual.dtype).copy_(dual)
        state["lam"] = group["lam"]

    def _dual_of(self, param: Tensor, group: Group) -> Tensor:
        return group["regularizer"].inverse_mirror(_at_least_float(param), group["delta"], lam=group["lam"])

    def _reconcile(self, param: Tensor, group: Group, state: dict[str, Any]) -> int:
        """Start v anew where θ is not its image; return for how many entries."""
        changed = self._deviation(param, group, state) > 0
        count = int(changed.sum())
        if count:
            changed = group["regularizer"].coupled(changed)
            state["subgrad"].copy_(torch.where(changed, self._dual_of(param, group), state["subgrad"]))
            state["lam"] = group["lam"]
            forget(state)
        return count

    def _deviation(self, param: Tensor, group: Group, state: dict[str, Any]) -> Tensor:
        """Return by how much |θ − prox_{δJ}(δv)| exceeds what rounding explains."""
        v, delta = state["subgrad"], group["delta"]
        expected, error = self._image(param, group, state)
        allowed = 2 * torch.finfo(param.dtype).eps * expected.abs() + delta * rounding(v) + error
        return (param.detach() - expected).abs() - allowed

    def _image(self, param: Tensor, group: Group, state: dict[str, Any]) -> tuple[Tensor, float]:
        """Return the image of v, and how far from it θ may be: engines for low rank are not exact."""
        regularizer, v = group["regularizer"], state["subgrad"]
        if isinstance(regularizer, Nuclear):
            written = image(regularizer, state, v)
            if written is not None:
                return written, 0.0
            exact = regularizer.mirror(v, group["delta"], lam=state["lam"])
            return exact, _ENGINE_ERROR * float(exact.norm())
        return frozen(regularizer.mirror(v, group["delta"], lam=state["lam"]), state), 0.0

    def _map(self, batch: Batch) -> None:
        """Set every θ to the image of its dual."""
        group = batch.group
        if stands_still(group["lr"]):
            return
        regularizer, delta, lam = group["regularizer"], group["delta"], group["lam"]
        if isinstance(regularizer, Nuclear):
            call = Call(regularizer, batch.duals, lam, delta, batch.params, batch.states)
            if self._is_shared(call):
                self._shared.append((call, batch))  # until all are known, and can be dealt out
                return
            threshold_into(*call)
        elif regularizer.joint:
            batch = self._whole(group)
            regularizer.mirror_all(batch.duals, delta, lam=lam, outs=batch.params)
        else:
            mirror = regularizer.mirror
            for param, dual in zip(batch.params, batch.duals, strict=True):
                if dual is not param:
                    mirror(dual, delta, lam=lam, out=param)
        self._note(batch)

    def _finish(self) -> None:
        """Threshold what many processes share the work of."""
        if self._shared:
            shared, self._shared = self._shared, []
            threshold_shared([call for call, _ in shared], self._processes)
            for _, batch in shared:
                self._note(batch)

    def _whole(self, group: Group) -> Batch:
        """Return all parameters of a joint group: those without a gradient follow the norm they share."""
        states = [self.state[param] for param in group["params"]]
        return Batch(group, group["params"], [state["subgrad"] for state in states], [], states)

    def _note(self, batch: Batch) -> None:
        """Keep with which λ the parameters were mapped, and in which version that left them."""
        lam, seen = batch.group["lam"], self._seen
        for param, dual, state in zip(batch.params, batch.duals, batch.states, strict=True):
            if dual is not param:
                state["lam"] = lam
                seen[id(param)] = param._version

    @torch.no_grad()
    def set_lam(self, lam: float, group: int | Group | None = None) -> None:
        """Change λ without moving a weight: v ← θ/δ + (λ_new/λ_old)·(v − θ/δ).

        The dual variable is rescaled so that θ stays its image and the sleeping weights keep their memory. From
        λ_old = 0, or one so small that v has no digits left to remember with, it starts afresh. A controller that
        steers λ by the density it sees sets `group["lam"]` instead: then θ answers at the next step.

        Args:
            lam: the new λ ≥ 0.
            group: index of the group, or the group itself; default all groups.

        Raises:
            ValueError: for a λ that is negative or not finite.

        Example:
            >>> import torch, torch_bregman as tb
            >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
            >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
            >>> weight.grad = torch.tensor([0.0, 1.0])
            >>> optimizer.step()
            >>> optimizer.set_lam(0.25)
            >>> optimizer.state[weight]["subgrad"]
            tensor([ 1.2500, -0.0500])
        """
        if group is None:
            groups = self.param_groups
        else:
            groups = [self.param_groups[group]] if isinstance(group, int) else [group]
        check_lam(lam)
        for member in groups:
            if member["regularizer"].joint:
                if states := self._joint_states(member):
                    rescale_joint(member, states, lam)
                member["lam"] = lam
                continue
            for param in member["params"]:
                if "subgrad" in self.state.get(param, {}):
                    self._rescale(param, member, lam)
            member["lam"] = lam

    def _joint_states(self, group: Group) -> list[dict[str, Any]]:
        """Return the states of a joint group that has begun; empty before."""
        states = [self.state.get(param, {}) for param in group["params"]]
        return states if all("subgrad" in state for state in states) else []

    def _rescale(self, param: Tensor, group: Group, lam: float) -> None:
        state, regularizer = self.state[param], group["regularizer"]
        v, old = state["subgrad"], state["lam"]
        theta = _at_least_float(param)
        if param.dtype in _HALVES and regularizer.deterministic:
            theta = regularizer.mirror(v, group["delta"], lam=old)  # what the half has lost would be amplified
        v.copy_(rescaled(v, theta, group, old, lam))
        state["lam"] = lam

    @torch.no_grad()
    def mirror_residual(self) -> float:
        """Return max |θ − prox_{δJ}(δv)| / (δ max |v|) over all parameters that have a dual variable.

        It is zero to rounding exactly when v ∈ ∂J_δ(θ) everywhere; larger after weights were changed by other hands.

        Example:
            >>> import torch, torch_bregman as tb
            >>> weight = torch.nn.Parameter(torch.randn(5))
            >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
            >>> weight.grad = torch.randn(5)
            >>> optimizer.step()
            >>> optimizer.mirror_residual() < 1e-6
            True
        """
        joint = [group for group in self.param_groups if group["regularizer"].joint]
        found = [joint_residual(group, states) for group in joint if (states := self._joint_states(group))]
        return max([*found, *(self._residual(group, param) for group, param in self._with_dual())], default=0.0)

    def _with_dual(self) -> Iterator[tuple[Group, Tensor]]:
        for group in self.param_groups:
            if group["regularizer"].joint:
                continue
            for param in group["params"]:
                known = "subgrad" in self.state.get(param, {})
                if known and param.numel() and group["regularizer"].deterministic:
                    yield group, param

    def _residual(self, group: Group, param: Tensor) -> float:
        state = self.state[param]
        exact = frozen(group["regularizer"].mirror(state["subgrad"], group["delta"], lam=state["lam"]), state)
        scale = group["delta"] * state["subgrad"].abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
        return float((param.detach() - exact).abs().amax() / scale)


def _at_least_float(param: Tensor) -> Tensor:
    theta = param.detach()
    return theta.float() if theta.dtype in _HALVES else theta


def _is_plain(group: Group) -> bool:
    """Whether the mirror map is the identity, so that a parameter in full precision is its own dual."""
    return type(group["regularizer"]) is NoRegularizer and group["delta"] == 1
