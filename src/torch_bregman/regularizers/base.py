"""What every regulariser offers: value, proximal map, subgradient, dual norm, and the mirror map made of them."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.views import View


@dataclass(frozen=True)
class Regularizer(ABC):
    """A convex penalty J = λ·J₁ with J ≥ 0 and J(0) = 0; immutable, so that any number of tensors may share it.

    λ is where the strength starts. Optimizers keep the λ in force in `group["lam"]` and pass it in, so every method
    takes an optional `lam` that replaces the regulariser's own.

    Args:
        lam: λ ≥ 0, finite.

    Raises:
        ValueError: for a λ that is negative or not finite.
    """

    lam: float = 1.0
    name: ClassVar[str]
    homogeneous: ClassVar[bool] = True
    """Whether J(c·x) = c·J(x) for c > 0, so that prox_{δJ}(δv) = δ·prox_J(v)."""

    convex: ClassVar[bool] = True
    """Whether J is convex; false under a rank cap."""
    deterministic: ClassVar[bool] = True
    """Whether the same input always gives the same result; false for random maps only."""

    @property
    def joint(self) -> bool:
        """Whether all tensors of an optimizer's group are one argument, as in `UnitL2`."""
        return False

    def __post_init__(self) -> None:
        check_lam(self.lam)

    @abstractmethod
    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return J(x), a tensor without dimensions; differentiable, so that it can serve as a penalty in a loss."""

    @abstractmethod
    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return prox_{step·J}(x) = argmin_y ½‖y − x‖² + step·J(y), of the shape of `x`.

        Args:
            x: floating point, any shape.
            step: how much of J, ≥ 0.
            lam: λ in force, default the regulariser's own.
            out: where to write the result; may be `x` itself.
        """

    @abstractmethod
    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return an element of ∂J(x), of the shape of `x`: the one of least norm where J is a norm (0 at 0)."""

    @abstractmethod
    def dual_norm(self, x: Tensor) -> Tensor:
        """Return J₁°(x) = inf {t > 0 : x/t ∈ ∂J₁(0)}, a tensor without dimensions; λ plays no part.

        A weight sleeping at θ = 0 stays asleep while J₁°(v) ≤ λ.
        """

    def levels(self, v: Tensor) -> Tensor:
        """Return for all that sleeps and wakes by itself the λ up to which it is awake, were v the dual variable.

        The largest is J₁°(v). A controller finds in them the λ that leaves as much awake as it wants.

        Args:
            v: dual variable, any shape.

        Returns:
            Levels ≥ 0: of entries in the shape of `v`, of groups in the split shape with every inner dimension of
            length 1, of singular directions as a vector.

        Raises:
            ValueError: where nothing ever sleeps.

        Example:
            >>> import torch
            >>> from torch_bregman.regularizers import GroupL2
            >>> GroupL2(view="rows", weighted=False).levels(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
            tensor([[5.],
                    [0.]])
        """
        raise ValueError(f"under {self.name} nothing sleeps and wakes by λ: use l1, group_l2, sparse_group or nuclear")

    def spread(self, levels: Tensor, like: Tensor) -> Tensor:
        """Return what was found for `levels`, entry by entry in the shape of `like`."""
        return levels.reshape(like.shape)

    def mirror(self, v: Tensor, delta: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return the mirror map θ = prox_{δJ}(δv), the primal point of the dual variable v (Bungert et al., JMLR 2022).

        Args:
            v: dual variable, any shape.
            delta: δ > 0.
            lam: λ in force, default the regulariser's own.
            out: where to write θ; may be `v` itself.
        """
        if not self.homogeneous:
            return self.prox(v if delta == 1 else v * delta, delta, lam=lam, out=out)
        theta = self.prox(v, 1.0, lam=lam, out=out)
        return theta if delta == 1 else theta.mul_(delta)

    def inverse_mirror(self, theta: Tensor, delta: float = 1.0, *, lam: float | None = None) -> Tensor:
        """Return v = θ/δ + p with p ∈ ∂J(θ), a dual variable that the mirror map takes to θ.

        Raises:
            ValueError: where θ lies outside the domain of J.
        """
        self.check_domain(theta)
        return self.subgradient(theta, lam=lam).add_(theta, alpha=1 / delta)

    def check_domain(self, x: Tensor) -> None:
        """Raise ValueError where J(x) = ∞."""

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen a boolean mask of entries to all entries whose proximal map depends on a marked one."""
        return mask

    def first_activation(self, gradient: Tensor, lr: float, *, lam: float | None = None) -> float:
        """Return after how many plain steps θ = 0 wakes when the gradient stays: ⌊λ/(τ·J₁°(−g))⌋ + 1, or inf.

        Args:
            gradient: g at θ = 0.
            lr: τ ≥ 0; with momentum μ and no dampening pass τ/(1 − μ).
            lam: λ in force, default the regulariser's own.

        Raises:
            ValueError: for a negative τ, or a gradient with nan.

        Example:
            >>> import torch
            >>> from torch_bregman.regularizers import L1
            >>> L1(lam=1.0).first_activation(torch.tensor([0.3, -0.5]), lr=0.1)
            21.0
        """
        if not lr >= 0:
            raise ValueError(f"lr must be >= 0, got {lr!r}: with momentum pass lr / (1 - momentum)")
        norm = float(self.dual_norm(-gradient))
        if math.isnan(norm):
            raise ValueError("first_activation got a gradient with nan: lower lr or clip gradients")
        pace = lr * norm if lr else 0.0
        steps = self.strength(lam) / pace if pace else math.inf
        return steps if math.isinf(steps) else math.floor(steps) + 1.0

    def strength(self, lam: float | None) -> float:
        """Return the λ in force."""
        if lam is None:
            return self.lam
        check_lam(lam)
        return lam

    def spec(self) -> dict[str, Any]:
        """Return the regulariser as plain values, without λ; `from_spec` undoes it."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init and f.name != "lam"}
        plain = {key: str(value) if isinstance(value, View) else value for key, value in fields.items()}
        return {"name": self.name, **plain}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside `spec` for the same run to go on; empty for true penalties."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""


def check_lam(lam: float) -> None:
    """Raise ValueError where λ is no usable strength."""
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f"lam must be a finite number >= 0, got {lam!r}: 0 switches the regulariser off")


def check_ratio(name: str, ratio: float) -> None:
    """Raise ValueError where a mixing ratio lies outside [0, 1]."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {ratio!r}: 1 is the l1 norm alone, 0 leaves it out")


def write(result: Tensor, out: Tensor | None) -> Tensor:
    """Return the result, in `out` where there is one."""
    return result if out is None else out.copy_(result)


def largest(x: Tensor) -> Tensor:
    """Return the largest entry, 0 for an empty tensor."""
    return x.amax() if x.numel() else torch.zeros((), dtype=x.dtype, device=x.device)


def at_least_float(x: Tensor) -> Tensor:
    """Return halves as float32, anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
