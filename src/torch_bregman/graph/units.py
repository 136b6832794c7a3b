"""What a trace finds: which unit every index of every weight belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Role: TypeAlias = Literal["makes", "carries", "reads"]
"""Whether a dimension of a tensor makes units, passes them on (normalisation, biases), or reads them."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One dimension of a parameter or buffer.

    Args:
        name: of the tensor.
        dim: which dimension.
        role: what it does to units.
        units: the unit of each index, -1 where there is none that may be removed.
    """

    name: str
    dim: int
    role: Role
    units: Tensor


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """Who makes, carries and reads each unit of a model.

    A unit is all that must be removed together: a hidden unit, a channel (with all it is added to), a group of a
    grouped convolution, an attention head. Where everything that reads it is zero it is off, whatever its bias or
    normalisation.

    Args:
        axes: every dimension that units run along.
        constants: for every weight that reads units, the value that each of its inputs always has; nan where it
            depends on the input of the model, or cannot be folded into a bias.
        pinned: why what is left out of `axes` may not be removed, by the name of the tensor that makes it.
        normalised: weights with nothing but a batch normalisation behind them, and the name of its running mean.
    """

    axes: tuple[Axis, ...]
    constants: dict[str, Tensor]
    pinned: dict[str, str]
    normalised: dict[str, str]

    def readers(self) -> list[Axis]:
        """Return the axes that read units."""
        return [axis for axis in self.axes if axis.role == "reads"]

    def makers(self) -> list[Axis]:
        """Return the axes that make or carry units."""
        return [axis for axis in self.axes if axis.role != "reads"]

    def units(self) -> list[int]:
        """Return all units that may be removed, in the order in which they are made."""
        return sorted({unit for axis in self.axes for unit in axis.units.tolist() if unit >= 0})
