"""The random map of the reference code, as what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from torch_bregman.regularizers.base import Regularizer, write


@dataclass(frozen=True)
class SoftBernoulli(Regularizer):
    """A seeded random map x → sign(x)·b with b ~ Bernoulli((1 + tanh(|x| − sλ)) / 2), entry by entry.

    It stands where a proximal map would, but belongs to no penalty: there is no J, no subgradient, no dual norm, and a
    step with a zero gradient draws anew. It is here because the research code of the JMLR paper has it.

    Args:
        lam: λ ≥ 0, default 1.
        seed: of the map's own generator, default 0. Its state travels in checkpoints.

    References:
        `reg_soft_bernoulli` in the research code of Bungert, Roith, Tenbrinck, Burger 2022.

    Example:
        >>> import torch
        >>> SoftBernoulli(lam=1.0, seed=0).prox(torch.tensor([9.0, -9.0]))
        tensor([ 1., -1.])
    """

    seed: int = 0
    name: ClassVar[str] = "soft_bernoulli"
    homogeneous: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    _generator: torch.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_generator", torch.Generator().manual_seed(self.seed))

    def value(self, x: Tensor, *, lam: float | None = None) -> NoReturn:
        """Raise TypeError: there is no J."""
        raise TypeError("SoftBernoulli is a random map without a penalty J: it has no value")

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return sign(x)·b, b drawn anew at every call."""
        odds = torch.tanh(x.abs() - step * self.strength(lam)).add_(1).div_(2)
        coins = torch.rand(x.shape, generator=self._generator).to(x.device) < odds
        return write(torch.where(odds.isnan(), odds, torch.sign(x) * coins), out)  # sign(nan) is 0

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> NoReturn:
        """Raise TypeError: there is no J."""
        raise TypeError("SoftBernoulli is a random map without a penalty J: it has no subgradient")

    def dual_norm(self, x: Tensor) -> NoReturn:
        """Raise TypeError: there is no J."""
        raise TypeError("SoftBernoulli is a random map without a penalty J: it has no dual norm")

    def inverse_mirror(self, theta: Tensor, delta: float = 1.0, *, lam: float | None = None) -> Tensor:
        """Return θ/δ + λ·sign(θ), the start the reference code gives this map; no point that maps back to θ."""
        return torch.sign(theta).mul_(self.strength(lam)).add_(theta, alpha=1 / delta)

    def state(self) -> dict[str, Tensor]:
        """Return the state of the generator."""
        return {"generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Set the state of the generator."""
        self._generator.set_state(state["generator"].cpu())

    def __deepcopy__(self, memo: dict[int, object]) -> SoftBernoulli:
        twin = SoftBernoulli(self.lam, self.seed)
        twin.load_state(self.state())
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        return _revive, (self.lam, self.seed, self.state())


def _revive(lam: float, seed: int, state: dict[str, Tensor]) -> SoftBernoulli:
    twin = SoftBernoulli(lam, seed)
    twin.load_state(state)
    return twin
