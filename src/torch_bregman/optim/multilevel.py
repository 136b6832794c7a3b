"""Multilevel linearised Bregman iterations: between full steps the support is frozen."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from torch_bregman.optim.base import Group, Params, at_least
from torch_bregman.optim.gradients import stands_still
from torch_bregman.optim.joint import reconcile_joint, start_joint
from torch_bregman.optim.linbreg import LinBreg
from torch_bregman.optim.mirror import Batch
from torch_bregman.optim.support import clip_woken, supports
from torch_bregman.regularizers import NoRegularizer, Nuclear, Regularizer


class MultilevelLinBreg(LinBreg):
    """LinBreg in cycles of m coarse steps on a frozen support and one fine step with the full gradient.

    With S the support (entries, or groups, that are awake):

    - coarse: v_S ← v_S − τ·d_S, θ_S ← prox_{δJ}(δv)_S; v off the support stays as it is. An entry of S may become 0
      and come back.
    - fine: the same on S; off it v ← v − τ(1 − dampening)/(1 − μ)·g, the pace that momentum would come to. Then
      S = {θ ≠ 0}. What wakes starts without momentum; a group that wakes starts no longer than `clip`·λ√n.

    Here this is done by masks, in any training loop and on any model: θ is right everywhere, and nothing but the steps
    themselves could be cheaper. `multilevel.compact_form` trains the same on tensors that hold the support only.

    λ must be smaller than for LinBreg, for v off the support moves once in m + 1 steps. Weights without a regulariser
    take a step of SGD every time. With m = 0 this is `LinBreg`.

    Args:
        params, lr, regularizer, momentum, dampening, nesterov, delta, weight_decay, maximize, foreach, fused: as for
            `LinBreg`.
        m: coarse steps in a cycle, ≥ 0, default 25; the same for all groups.
        clip: > 1, default 1.1; for norms of groups only.

    Raises:
        ValueError: for a number out of range; where m is above 0, for `accelerated`, `compiled`, or a regulariser
            without a support.

    References:
        Lunk, Scott, Bungert 2026 (arXiv 2602.03535).

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
        >>> optimizer = tb.MultilevelLinBreg([weight], lr=0.5, regularizer=tb.L1(0.4), m=1)
        >>> for _ in range(2):
        ...     weight.grad = torch.tensor([0.2, -1.0])
        ...     optimizer.step()
        ...     print(weight.detach())
        tensor([0.9000, 0.0000])
        tensor([0.8000, 0.1000])
    """

    like_param: ClassVar[frozenset[str]] = LinBreg.like_param | {"awake"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        *,
        regularizer: Regularizer | None = None,
        m: int = 25,
        clip: float = 1.1,
        **options: Any,
    ) -> None:
        self._cycle = {"m": m, "clip": clip, "phase": 0}
        super().__init__(params, lr, regularizer=regularizer, **options)
        self.defaults.update(self._cycle)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._cycle = {key: self.defaults[key] for key in ("m", "clip", "phase")}

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, as in torch; checks its parameters, regulariser and numbers.

        Raises:
            ValueError: for complex parameters, a λ that is negative or not finite, or a wrong hyperparameter.
        """
        group = {**self._cycle, **param_group}
        if self.param_groups:
            first = self.param_groups[0]
            if group["m"] != first["m"]:
                raise ValueError(f"m must be the same for all groups, got {group['m']!r} beside {first['m']!r}")
            group["phase"] = first["phase"]
        super().add_param_group(group)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        m = group["m"]
        if isinstance(m, bool) or not isinstance(m, int) or m < 0:
            raise ValueError(f"m must be a whole number >= 0, got {m!r}: 25 coarse steps are a good start")
        at_least("clip", group["clip"], 1, above=True)
        if not m:
            return
        for name in ("accelerated", "compiled"):
            if group[name]:
                raise ValueError(f"{name}=True does not go with m {m}: leave it out, or use LinBreg")
        regularizer = group["regularizer"]
        if isinstance(regularizer, Nuclear) or not regularizer.deterministic:
            raise ValueError(
                f"under {regularizer.name} no entries or groups are asleep that coarse steps could leave out, "
                f"got m {m}: use LinBreg"
            )

    @property
    def m(self) -> int:
        """Coarse steps in a cycle."""
        return self.param_groups[0]["m"]

    def set_m(self, m: int) -> None:
        """Change the coarse steps of a cycle, also of the one that is under way.

        Args:
            m: ≥ 1; where there were none before, weights have no supports.

        Raises:
            ValueError: for another number, or an optimizer with m = 0.
        """
        if isinstance(m, bool) or not isinstance(m, int) or m < 1 or not self.m:
            raise ValueError(f"m must change from a whole number >= 1 to another, got {self.m!r} and {m!r}")
        for group in self.param_groups:
            group["m"] = m

    @property
    def phase(self) -> int:
        """How many steps of the cycle are done, from 0 to m."""
        return self.param_groups[0]["phase"]

    @property
    def fine(self) -> bool:
        """Whether the next step takes the full gradient: the last one of a cycle does."""
        return self.phase >= self.m

    def advance(self) -> None:
        """Count a step."""
        phase = 0 if self.fine else self.phase + 1
        for group in self.param_groups:
            group["phase"] = phase

    def support(self, param: Tensor, group: Group) -> Tensor:
        """Return the mask of what is awake of a weight, its dual started, or anew where other hands have changed it.

        Args:
            param: in a group with a regulariser for each weight by itself.
            group: that group.
        """
        state = self.state[param]
        if "subgrad" not in state or self._seen.get(id(param)) != param._version:
            restarted = self._update_dual(param, group, state)
            self._note_restarts(restarted)
        if "awake" not in state:
            _choose(Batch(group, [param], [state["subgrad"]], [], [state]))
        return state["awake"]

    def supports_of(self, group: Group) -> list[Tensor]:
        """Return `support` of all weights of a group, also of one whose weights are one argument of a norm."""
        if not group["regularizer"].joint:
            return [self.support(param, group) for param in group["params"]]
        states = [self.state[param] for param in group["params"]]
        anew = all("subgrad" not in state for state in states)
        known = all(self._seen.get(id(param)) == param._version for param in group["params"])
        started = start_joint(group, states)
        if (started and not anew) or not (started or known):
            restarted = reconcile_joint(group, states)
            self._note_restarts(restarted)
            for state in states if restarted else []:
                state.pop("awake", None)
        if any("awake" not in state for state in states):
            _choose(Batch(group, group["params"], [state["subgrad"] for state in states], [], states))
        return [state["awake"] for state in states]

    def written(self, param: Tensor, group: Group) -> None:
        """Take a weight that was written from its dual as it is."""
        state = self.state[param]
        self._note(Batch(group, [param], [state["subgrad"]], [], [state]))

    def _step(self) -> None:
        super()._step()
        self.advance()

    def _prepare(self, batches: list[Batch]) -> None:
        super()._prepare(batches)
        for batch in batches:
            if freezes(batch.group) and any("awake" not in state for state in batch.states):
                _choose(self._all_of(batch))

    def _all_of(self, batch: Batch) -> Batch:
        return self._whole(batch.group) if batch.group["regularizer"].joint else batch

    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        if freezes(batch.group):
            own = [grad * state["awake"] for grad, state in zip(batch.grads, batch.states, strict=True)]
            if self.fine:
                step = sleeping_step(batch.group)
                for dual, grad, mine in zip(batch.duals, batch.grads, own, strict=True):
                    dual.add_(grad - mine, alpha=-step)
            batch = batch._replace(grads=own)
        super()._move(batch, foreach, fused)

    def _map(self, batch: Batch) -> None:
        group = batch.group
        if not freezes(group) or stands_still(group["lr"]):
            super()._map(batch)
        elif self.fine:
            whole = self._all_of(batch)
            awake = [state["awake"] for state in whole.states]
            clip_woken(group["regularizer"], whole.duals, awake, group["lam"], group["clip"])
            super()._map(batch)
            _choose(whole)
        else:
            super()._map(batch)
            if group["lam"] != group["support_lam"]:  # a controller has moved it: what sleeps goes on sleeping
                whole = self._all_of(batch)
                for param, state in zip(whole.params, whole.states, strict=True):
                    param.mul_(state["awake"])
                self._note(whole)

    def _reconcile(self, param: Tensor, group: Group, state: dict[str, Any]) -> int:
        count = super()._reconcile(param, group, state)
        if count:
            state.pop("awake", None)
        return count

    def _update_joint(self, group: Group) -> int:
        count = super()._update_joint(group)
        if count:
            for param in group["params"]:
                self.state[param].pop("awake", None)
        return count


def freezes(group: Group) -> bool:
    """Return whether coarse steps leave something out in a group."""
    return group["m"] > 0 and not isinstance(group["regularizer"], NoRegularizer)


def sleeping_step(group: Group) -> float:
    """Return the step of v off the support, with its sign: τ(1 − dampening)/(1 − μ)."""
    step = float(group["lr"]) * (1 - group["dampening"]) / (1 - group["momentum"])
    return -step if group["maximize"] else step


def _choose(batch: Batch) -> None:
    """Take what is not zero for the support; what has left it loses its momentum."""
    group = batch.group
    group["support_lam"] = group["lam"]
    masks = supports(group["regularizer"], batch.params)
    for mask, state in zip(masks, batch.states, strict=True):
        state["awake"] = mask.contiguous()  # of groups it may be an expanded view
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(mask)
