"""Linearised Bregman iterations for models with layers in low-rank factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.layers.low_rank import LowRankLinear
from torch_bregman.optim.base import Group, Params
from torch_bregman.optim.linbreg import LinBreg
from torch_bregman.regularizers import Nuclear, Regularizer


class FactoredLinBreg(LinBreg):
    """Trains a model whose low-rank layers move their dual in the backward pass, and all its other parameters.

    For each `LowRankLinear`: v ← v − τ ∂yᵀx within `backward()`, and W ← δ·SVT_λ(v) in `step()`, in factors: what
    `LinBreg` with `Nuclear` does without momentum. The other parameters take LinBreg steps, without a regulariser those
    of SGD.

    The layers have groups of their own, one for each pair of λ and δ, with `"factored": True`, no parameters, and lr
    and λ for schedulers to set; the lr in force when `backward()` runs is the one that counts. What the layers are
    (v, factors, the memory of the engine) is in the model's `state_dict`, the numbers are in this optimizer's.
    Gradients of several backward passes add up before a step, but `zero_grad` takes nothing back: see `LowRankLinear`.

    Args:
        model: with at least one `LowRankLinear`, see `layers.to_factored`.
        lr: τ ≥ 0 of all groups, default 0.1.
        params: what to train beside the low-rank layers, parameters or groups, e.g. from `param_groups`, whose groups
            may bring momentum and all else of `LinBreg`; default all parameters that require a gradient.
        regularizer: J of those groups that bring none of their own; default none.

    Raises:
        ValueError: for a model without low-rank layers, or a number out of range.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022; Cai, Candès, Shen 2010.

    Example:
        >>> import torch_bregman as tb
        >>> model = tb.low_rank_(tb.models.mlp([784, 200, 80, 10]), rank=5)
        >>> tb.layers.to_factored(model, lam=0.5, refresh=10)
        Sequential(
          (flatten): Flatten(start_dim=1, end_dim=-1)
          (fc1): LowRankLinear(in_features=784, out_features=200, bias=True, rank=5, lam=0.5, refresh=10)
          (act1): ReLU()
          (fc2): LowRankLinear(in_features=200, out_features=80, bias=True, rank=5, lam=0.5, refresh=10)
          (act2): ReLU()
          (fc3): Linear(in_features=80, out_features=10, bias=True)
        )
        >>> optimizer = tb.FactoredLinBreg(model, lr=0.1)
        >>> loss = nn.functional.cross_entropy(model(torch.randn(16, 784)), torch.arange(16) % 10)
        >>> loss.backward()
        >>> optimizer.step()
        >>> [(group["lr"], group.get("factored", False)) for group in optimizer.param_groups]
        [(0.1, False), (0.1, True)]
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor = 0.1,
        *,
        params: Params | None = None,
        regularizer: Regularizer | None = None,
    ) -> None:
        layers = [module for module in model.modules() if isinstance(module, LowRankLinear)]
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no LowRankLinear: make some by layers.to_factored, or use LinBreg"
            )
        self._driven: list[tuple[LowRankLinear, int]] = []
        groups = _plain_groups(model, params)
        numbers = list(dict.fromkeys((layer.lam, layer.delta) for layer in layers))
        named = {"param_names": []} if any(_named(group) for group in groups) else {}
        factored = [
            {"params": [], **named, "factored": True, "regularizer": Nuclear(lam), "lam": lam, "delta": delta}
            for lam, delta in numbers
        ]
        super().__init__([*groups, *factored], lr, regularizer=regularizer)
        self._driven = [(layer, len(groups) + numbers.index((layer.lam, layer.delta))) for layer in layers]
        self._connect()

    def _connect(self) -> None:
        """Let the layers read lr, λ and δ in their groups."""
        for layer, index in self._driven:
            layer.options = self.param_groups[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_driven": self._driven}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._connect()

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        if not group.get("factored"):
            return
        if not group["lam"] > 0:
            raise ValueError(f"lam of low-rank layers must be > 0, got {group['lam']!r}: for dense ones, from_factored")
        _check_plain(group)

    def _step(self) -> None:
        for group in self.param_groups:
            if "factored" in group:
                _check_plain(group)  # schedulers that cycle momentum set it in every group
        super()._step()
        for layer, _ in self._driven:
            layer.step()

    @torch.no_grad()
    def regularization(self) -> list[float]:
        """Return J of each group at the current weights, with the λ in force; nan where there is no J."""
        values = super().regularization()
        for layer, index in self._driven:
            values[index] += layer.lam * layer.nuclear_norm()
        return values

    @torch.no_grad()
    def set_lam(self, lam: float, group: int | Group | None = None) -> None:
        """Change λ without moving a weight: v ← θ/δ + (λ_new/λ_old)·(v − θ/δ).

        Args:
            lam: the new λ ≥ 0; above 0 for groups of low-rank layers.
            group: index of the group, or the group itself; default all groups.

        Raises:
            ValueError: for a λ out of range.
        """
        chosen = self.param_groups[group] if isinstance(group, int) else group
        for layer, index in self._driven:
            if chosen is None or chosen is self.param_groups[index]:
                layer.rescale(lam)
        super().set_lam(lam, group)

    @torch.no_grad()
    def mirror_residual(self) -> float:
        """Return max |θ − prox_{δJ}(δv)| / (δ max |v|) over all that has a dual variable, by exact decompositions."""
        return max(super().mirror_residual(), *(layer.mirror_residual() for layer, _ in self._driven))


def _check_plain(group: Group) -> None:
    for name in ("momentum", "weight_decay", "accelerated", "maximize"):
        if group[name]:
            raise ValueError(
                f"low-rank layers take plain steps, got {name} {group[name]!r}: leave it at 0 (in schedulers "
                "cycle_momentum=False), or train dense weights by LinBreg with Nuclear"
            )


def _plain_groups(model: nn.Module, params: Params | None) -> list[Any]:
    given: list[Any] = list(params) if params is not None else [p for p in model.parameters() if p.requires_grad]
    return given if not given or isinstance(given[0], dict) else [{"params": given}]


def _named(group: dict[str, Any]) -> bool:
    params = group["params"]
    return "param_names" in group or (isinstance(params, list) and any(isinstance(param, tuple) for param in params))
