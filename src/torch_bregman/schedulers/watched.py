"""The weights that share one λ: their levels, read off the dual variables, against the budget of each target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_bregman.optim import MirrorOptimizer, RegularizedOptimizer
from torch_bregman.regularizers import L1, ElasticNet, NonNegativeL1, NoRegularizer, Nuclear, Regularizer
from torch_bregman.schedulers.quantile import Crossing, Rated, crossing, merged, spent
from torch_bregman.schedulers.size import Size, counted, joint_groups
from torch_bregman.views import Elements, Filters, Kernels, Rows

Group = dict[str, Any]
_EXACT = 1 << 19
"""Up to that many weights all levels are looked at, above it those of some rows of each weight."""
_SAMPLED, _LEAST, _ROWS = 1 << 16, 1 << 11, 64
"""Entries that a sample has of all weights, and entries and rows that it has of each, at least."""


class Watched:
    """Weights under one λ, or under λ's in the proportion they started with, and what they may cost.

    Args:
        optimizer: where the duals are.
        indices: of groups with a regulariser each, steered together.
        sizes: the targets; the tightest decides.
        beside: further weights that count to the whole but are not steered.

    Raises:
        ValueError: where a regulariser makes nothing of the kind sleep, or what is not steered is too large by itself.
    """

    def __init__(
        self,
        optimizer: RegularizedOptimizer,
        indices: Sequence[int],
        sizes: Sequence[Size],
        beside: Sequence[Tensor] = (),
    ) -> None:
        self.optimizer, self.indices, self.sizes = optimizer, tuple(indices), tuple(sizes)
        largest = max((float(group["lam"]) for group in self.groups), default=0.0)
        self.shares = [float(group["lam"]) / largest if largest else 1.0 for group in self.groups]
        members = list(self.members())
        if not members:
            raise ValueError("a target needs weights of 2 or more dimensions under a regularizer, found none")
        for _, group, param in members:
            if not isinstance(group["regularizer"], Nuclear) and not group["regularizer"].joint:
                group["regularizer"].levels(param.detach())  # says which regularisers let nothing sleep
        self._costs = [size.costs([(group, param) for _, group, param in members], beside) for size in self.sizes]
        self.wholes = [self._whole(size) + sum(size.beside(param) for param in beside) for size in self.sizes]
        self.budgets()
        self._refuse_too_little()
        self._guesses = [0.0] * len(self.sizes)
        count = sum(param.numel() for _, _, param in members)
        self._thinning = count / _SAMPLED if count > _EXACT else 1.0

    @property
    def groups(self) -> list[Group]:
        """The groups as they are now: `load_state_dict` of an optimizer makes new ones."""
        return [self.optimizer.param_groups[index] for index in self.indices]

    def members(self) -> Iterable[tuple[float, Group, Tensor]]:
        """Return share of λ, group and weight of all that is steered."""
        for share, group in zip(self.shares, self.groups, strict=True):
            if share:
                yield from ((share, group, param) for param in counted(group))

    def _whole(self, size: Size) -> float:
        members = [(group, param) for _, group, param in self.members()]
        alone = [size.whole(param, group["regularizer"]) for group, param in members if not group["regularizer"].joint]
        joint = [size.whole_joint(group["regularizer"], group["params"]) for group in joint_groups(members)]
        return sum(alone) + sum(joint)

    def _refuse_too_little(self) -> None:
        """Refuse targets that leave less than one level to each weight: the network would be cut in two."""
        alone = [(group["regularizer"], param) for _, group, param in self.members() if not group["regularizer"].joint]
        for size, costs, whole in zip(self.sizes, self._costs, self.wholes, strict=True):
            least = costs.always + sum(size.least(regularizer, param) for regularizer, param in alone)
            if size.budget(whole) < least:
                raise ValueError(
                    f"a target of {size.name} {size.goal:g} cannot be met: it is {size.budget(whole):,.10g} of "
                    f"{whole:,.10g}, and the least that keeps every weight alive is {least:,.10g}: raise it"
                )

    def budgets(self, factor: float = 1.0) -> list[float]:
        """Return what the steered weights may cost, for each target.

        Args:
            factor: times the goals, up to the whole.
        """
        allowed = []
        for size, costs, whole in zip(self.sizes, self._costs, self.wholes, strict=True):
            wanted = min(size.budget(whole) * factor, whole)
            if wanted <= costs.always and costs.always:
                raise ValueError(
                    f"a target of {size.name} {size.goal:g} cannot be met: weights without a regularizer alone have "
                    f"{costs.always:g}; raise it above that, or give them a regularizer"
                )
            allowed.append(wanted - costs.always)
        return allowed

    @property
    def frozen(self) -> bool:
        """Whether the groups have lost their regulariser to a consolidation."""
        return all(isinstance(group["regularizer"], NoRegularizer) for group in self.groups)

    @property
    def lam(self) -> float:
        """The λ in force, of the group with the largest."""
        return max(float(g["lam"]) / share for g, share in zip(self.groups, self.shares, strict=True) if share)

    def set_lam(self, lam: float) -> None:
        """Set λ, and leave the duals alone: the weights answer at the next step."""
        for group, share in zip(self.groups, self.shares, strict=True):
            group["lam"] = lam * share

    def lam_wanted(self, factor: float = 1.0, turn: int | None = None) -> float:
        """Return the λ at which what is awake meets the budgets.

        Args:
            factor: times the goals.
            turn: of the sample, which takes other rows at every turn; None for all levels.
        """
        self._guesses = [self._crossing(i, budget, turn).middle for i, budget in enumerate(self.budgets(factor))]
        return max(self._guesses)

    def gap(self, factor: float = 1.0, turn: int | None = None) -> float:
        """Return by which share what is awake exceeds the budget, or falls short of it (negative)."""
        lam, gaps = self.lam, []
        for i, budget in enumerate(self.budgets(factor)):
            gaps.append(spent(self.rated(i, turn, awake=True), lam) / budget - 1)
        return max(gaps)

    def _crossing(self, number: int, budget: float, turn: int | None) -> Crossing:
        """Find the crossing among what is awake where that is enough to know it, for low ranks are cheap to know."""
        lam = self.lam
        if any(isinstance(group["regularizer"], Nuclear) for group in self.groups):
            awake = self.rated(number, turn, awake=True)
            if spent(awake, lam) > budget:
                return crossing(awake, budget, lam)
        return crossing(self.rated(number, turn), budget, self._guesses[number] or lam)

    def rated(self, number: int, turn: int | None = None, *, awake: bool = False, firsts: bool = False) -> list[Rated]:
        """Return levels and costs of all weights, under one λ.

        Args:
            number: which target.
            turn: of the sample, None for all levels.
            awake: whether singular directions that sleep may be left out.
            firsts: whether the highest level of each weight is raised above all that are the first of none.
        """
        found = [self._rate(self.sizes[number], *member, turn, awake) for member in self.members()]
        if firsts:
            found = _with_firsts_above(found)
        found = self._costs[number].charge(found)
        return found if turn is None or self._thinning == 1 else merged(found)

    def _rate(self, size: Size, share: float, group: Group, param: Tensor, turn: int | None, awake: bool) -> Rated:
        regularizer = group["regularizer"]
        if regularizer.joint:
            if param is not group["params"][0]:
                return Rated(param.detach().new_zeros(0), 0.0)  # all is said with the first
            rated = size.rate_joint(regularizer, duals(self.optimizer, group), group["params"])
            return rated._replace(levels=rated.levels / share)
        if awake and isinstance(regularizer, Nuclear):
            scale = float(group.get("delta", 1.0)) * regularizer.weight(param)
            levels = self.optimizer.spectrum(param) / scale + float(group["lam"])
            return Rated(levels / share, size.directions(len(levels), regularizer, param).to(levels.device))
        v = dual(self.optimizer, group, param)
        part = v
        if turn is not None and self._thinning > 1 and size.sampled:
            part = _sample(v, regularizer, size, self._thinning, turn)
        levels, cost = size.rate(regularizer, part, param)
        return Rated(levels if share == 1 else levels / share, cost * (v.numel() / part.numel()))


def _with_firsts_above(rated: list[Rated]) -> list[Rated]:
    peaks = [float(each.levels.max()) for each in rated if len(each.levels)]
    raised = []
    for each in rated:
        levels = each.levels.clone()
        if len(levels):
            levels[levels.argmax()] += 2 * max(peaks)
        raised.append(each._replace(levels=levels))
    return raised


def dual(optimizer: RegularizedOptimizer, group: Group, param: Tensor) -> Tensor:
    """Return the dual variable of a weight, the weight itself where there is none."""
    state = optimizer.state.get(param, {})
    if "subgrad" in state:
        return state["subgrad"]
    if isinstance(optimizer, MirrorOptimizer):
        return group["regularizer"].inverse_mirror(param.detach().float(), group["delta"], lam=group["lam"])
    return param.detach()


def duals(optimizer: RegularizedOptimizer, group: Group) -> list[Tensor]:
    """Return the dual variables of all weights of a group that shares units, the weights where there are none."""
    params, states = group["params"], [optimizer.state.get(param, {}) for param in group["params"]]
    if all("subgrad" in state for state in states):
        return [state["subgrad"] for state in states]
    if not isinstance(optimizer, MirrorOptimizer):
        return [param.detach() for param in params]
    joined = group["regularizer"].joined([param.shape for param in params])
    start = torch.cat([param.detach().float().reshape(-1) for param in params])
    return joined.split(joined.inverse_mirror(start, group["delta"], lam=group["lam"]))


def steered(optimizer: RegularizedOptimizer, groups: Sequence[int] | None) -> tuple[list[int], list[Tensor]]:
    """Return the indices of the groups with a regulariser, and the weights of all others.

    Args:
        optimizer: any of this library.
        groups: indices of those to steer; what is not among them does not count. Default all, and everything counts.

    Raises:
        ValueError: where there is nothing to steer, or layers hold their duals themselves.
    """
    indices = range(len(optimizer.param_groups)) if groups is None else groups
    chosen = {index: optimizer.param_groups[index] for index in indices}
    if any(group.get("factored") for group in chosen.values()):
        raise ValueError(
            "layers in factors keep their duals themselves, and no target steers them: train dense weights by LinBreg "
            "or AdaBreg with Nuclear, or set lam by hand"
        )
    found = [index for index, group in chosen.items() if not isinstance(group["regularizer"], NoRegularizer)]
    if not found:
        raise ValueError("a target needs a group with a regularizer, e.g. L1(0.1): the optimizer has none")
    others = [group for index, group in chosen.items() if index not in found]
    return found, [param for group in others for param in group["params"] if param.ndim >= 2]


def _sample(v: Tensor, regularizer: Regularizer, size: Size, thinning: float, turn: int) -> Tensor:
    """Return every so many entries of a dual variable, or rows where groups lie within them; others at each turn."""
    every = int(min(thinning, v.numel() / _LEAST))
    if isinstance(regularizer, (L1, NonNegativeL1, ElasticNet)) and size.name != "units":
        every |= 1  # odd, so as to come through all columns of a weight with a power of two of them
        return v.view(-1)[turn % every :: every] if every > 1 and v.is_contiguous() else v
    every = min(every, v.shape[0] // _ROWS)
    return v[turn % every :: every] if every > 1 and _has_rows(regularizer, size) else v


def _has_rows(regularizer: Regularizer, size: Size) -> bool:
    """Return whether some rows of a weight are some of its groups, whole."""
    views = [getattr(regularizer, "view", None), getattr(size, "view", None) if size.name == "units" else None]
    return not isinstance(regularizer, Nuclear) and all(
        view is None or str(view) in {each.name for each in (Elements, Rows, Filters, Kernels)} for view in views
    )
