"""The end of training: support and ranks are frozen, the regulariser is dropped, what is left trains on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_bregman.optim import PGD, RegularizedOptimizer
from torch_bregman.regularizers import NoRegularizer, Nuclear
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.factors import Factors
from torch_bregman.schedulers.size import Size
from torch_bregman.schedulers.size_control import Scope, watched
from torch_bregman.schedulers.support import Support, awake, kept_entries
from torch_bregman.schedulers.watched import Group

_OF_THE_DUAL = ("subgrad", "lam", "awake", "engine", "left", "right")


class Consolidation(Schedule):
    """Freezes what is awake after so many steps, drops the regulariser and trains on; call `step` after each step.

    The proximal map makes all weights smaller than the data asks for; once it is known which are needed, they are
    better off without it. At the freeze the highest levels are kept that the targets allow, under ℓ1 exactly K weights,
    and all else is 0 from then on: its gradient is masked, and the momentum, otherwise carried, is 0 there. The groups
    go on with λ = 0 and no regulariser, which makes LinBreg SGD, AdaBreg Adam, and `Bregman` its base.

    A weight under a nuclear norm goes on as two factors of the rank found, W = LᵀR, which are trained in its place: the
    model keeps W, written after each step, the optimizer holds L and R, with the momentum of LinBreg, while AdaBreg
    starts its moments anew there. Where the factors would be no smaller than W, it goes on dense.

    Masks and factors are in the `state_dict`, to be loaded *before* the optimizer's. Gradients are taken care of by
    hooks on the parameters, which copies of the model do not have.

    Args:
        optimizer: any of this library; not PGD for low rank.
        sizes: the targets to meet; with none, all that is awake is kept.
        at: step of the freeze, at least 1; default never: call `freeze`.
        groups: indices of the groups, as in `SizeControl`.
        scope: "global" or "group", as in `SizeControl`.

    Raises:
        ValueError: for targets that cannot be met, or a number out of range.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 2.0], [1.0, 0.0]]))
        >>> optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
        >>> end = tb.schedulers.Consolidation(optimizer, tb.schedulers.Density(0.5), at=1)
        >>> (0.5 * weight.square().sum()).backward()
        >>> optimizer.step()
        >>> end.step()
        >>> weight.detach(), optimizer.param_groups[0]["lam"]
        (tensor([[2.7000, 1.8000],
                [0.0000, 0.0000]]), 0.0)
    """

    saved: ClassVar[tuple[str, ...]] = ("steps", "lam")

    def __init__(
        self,
        optimizer: RegularizedOptimizer,
        *sizes: Size,
        at: int | None = None,
        groups: Sequence[int] | None = None,
        scope: Scope = "global",
    ) -> None:
        super().__init__(optimizer)
        if at is not None and (isinstance(at, bool) or not isinstance(at, int) or at < 1):
            raise ValueError(f"at must be a whole number of steps >= 1, got {at!r}")
        self.at, self.lam = at, math.nan
        self.frozen: list[Support | Factors] = []
        self._watched = watched(optimizer, sizes, groups, scope)
        self._members = [
            (index, param)
            for each in self._watched
            for index in each.indices
            for param in optimizer.param_groups[index]["params"]
            if any(param is member for *_, member in each.members())
        ]
        if isinstance(optimizer, PGD) and any(isinstance(g["regularizer"], Nuclear) for g in self._groups()):
            raise ValueError("PGD does not go on with factors: use LinBreg, AdaBreg or ProxSGD for low rank")

    @property
    def done(self) -> bool:
        """Whether the freeze is over."""
        return bool(self.frozen)

    @property
    def due(self) -> bool:
        """Whether the next call of `step` freezes."""
        return self.steps + 1 == self.at

    def _act(self, metric: float | None) -> None:
        if self.steps == self.at:
            self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Freeze what is awake now; a second time does nothing."""
        if self.done:
            return
        self.lam = self._watched[0].lam
        found = [kept for each in self._watched for kept in (kept_entries(each) if each.sizes else awake(each))]
        for (index, param), kept in zip(self._members, found, strict=True):
            group = self.optimizer.param_groups[index]
            if isinstance(kept, Tensor):
                support = Support(param, kept)
                support.clear(self.optimizer, group)
                self.frozen.append(support)
            else:
                self.frozen.append(Factors.of_rank(kept, param, self.optimizer, group))
        self._go_on()

    def _go_on(self) -> None:
        """Drop the regularisers, and give optimizer and gradients to what was frozen."""
        for frozen, (index, _) in zip(self.frozen, self._members, strict=True):
            if isinstance(frozen, Support):
                frozen.hold()
            elif frozen.pays:
                frozen.take_over(self.optimizer, self.optimizer.param_groups[index])
        for group in self._groups():
            group["regularizer"], group["lam"] = NoRegularizer(), 0.0
            for param in group["params"]:
                for key in _OF_THE_DUAL:
                    self.optimizer.state.get(param, {}).pop(key, None)
        self.optimizer.register_step_post_hook(self._write)
        self._write(self.optimizer)

    def _groups(self) -> list[Group]:
        return [self.optimizer.param_groups[index] for index in dict.fromkeys(index for index, _ in self._members)]

    def _write(self, optimizer: Optimizer, *_: Any) -> None:
        for frozen in self.frozen:
            if isinstance(frozen, Factors) and frozen.pays:
                frozen.write()

    def kept(self) -> tuple[int, int]:
        """Return how many weights the masks let be, and how many of them are not zero."""
        supports = [each for each in self.frozen if isinstance(each, Support)]
        return sum(int(each.mask.sum()) for each in supports), sum(int((each.param != 0).sum()) for each in supports)

    def factors(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Return L and R of each weight that goes on in factors, by the `id` of the weight."""
        found = [each for each in self.frozen if isinstance(each, Factors) and each.pays]
        return {id(each.param): (each.left.detach(), each.right.detach()) for each in found}

    def state_dict(self) -> dict[str, Any]:
        """Return numbers, masks and factors."""
        return {**super().state_dict(), "frozen": {str(i): each.state() for i, each in enumerate(self.frozen)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, before the optimizer loads its own; the optimizer must be as at the start.

        Raises:
            ValueError: for one that is frozen already, or masks of other weights.
        """
        if self.done:
            raise ValueError("a consolidation that is frozen takes up no other: build model and optimizer anew")
        super().load_state_dict(state_dict)
        saved = state_dict["frozen"]
        if not saved:
            return
        if len(saved) != len(self._members):
            raise ValueError(f"the checkpoint has {len(saved)} frozen weights, this optimizer {len(self._members)}")
        groups = self.optimizer.param_groups
        self.frozen = [_restored(saved[str(i)], groups[index], param) for i, (index, param) in enumerate(self._members)]
        self._go_on()


def _restored(saved: dict[str, Any], group: Group, param: Tensor) -> Support | Factors:
    if "mask" in saved:
        if saved["mask"].shape != param.shape:
            raise ValueError(
                f"the checkpoint has a mask of shape {tuple(saved['mask'].shape)} for {tuple(param.shape)}"
            )
        return Support(param, saved["mask"].to(device=param.device, copy=True))
    left, right = (saved[key].to(device=param.device, copy=True) for key in ("left", "right"))
    return Factors(param, group["regularizer"], left, right)
