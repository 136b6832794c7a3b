"""How a weight is seen: as a set of groups, each of which lives or dies as one.

A view splits the dimensions of a tensor (never copying, in any memory format) and says which of them run *within* a
group. From this follow the group norms, and the matrix with one group a row that the nuclear norm works on.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bregman.distributed.sharded import with_whole_pieces


class View(ABC):
    """A partition of the entries of a tensor into groups of equal size.

    A tensor without dimensions counts as 1 × 1, a vector of n entries as n × 1. In weights of linear and convolutional
    layers the first dimension is the output, the second the input, the others are spatial.

    Example:
        >>> import torch
        >>> weight = torch.arange(6.0).reshape(2, 3)
        >>> get_view("columns").matrix(weight)
        tensor([[0., 3.],
                [1., 4.],
                [2., 5.]])
    """

    name: ClassVar[str]

    def split(self, x: Tensor) -> Tensor:
        """Return `x`, its dimensions split where a group runs over a part of one; always a view of `x`."""
        return x

    @abstractmethod
    def inner(self, ndim: int) -> tuple[int, ...]:
        """Return the dimensions of a split tensor of `ndim` dimensions that run within a group."""

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError where a tensor of this shape has no such groups."""

    def groups(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return the split tensor and the dimensions that run within a group.

        Raises:
            ValueError: where the shape does not have such groups.
        """
        self.check(x.shape)
        split = self.split(_at_least_matrix(x))
        return split, self.inner(split.ndim)

    def matrix(self, x: Tensor) -> Tensor:
        """Return `x` as a matrix (groups × entries of a group); a copy only where the layout asks for one."""
        split, inner = self.groups(x)
        outer = _others(split.ndim, inner)
        rows = math.prod(split.shape[d] for d in outer)
        columns = math.prod(split.shape[d] for d in inner)
        return split.permute(*outer, *inner).reshape(rows, columns)

    def restore(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Undo `matrix`: return the entries of `matrix` in the shape of `like`."""
        split, inner = self.groups(like)
        order = _others(split.ndim, inner) + inner
        back = [order.index(d) for d in range(split.ndim)]
        return matrix.reshape([split.shape[d] for d in order]).permute(back).reshape(like.shape)

    def size(self, x: Tensor) -> int:
        """Return the number of entries of a group."""
        split, inner = self.groups(x)
        return math.prod(split.shape[d] for d in inner)

    def live(self, x: Tensor) -> Tensor:
        """Return which groups hold a non-zero, in the split shape with every inner dimension of length 1."""
        split, inner = self.groups(x)
        return (split != 0).any(dim=inner, keepdim=True) if inner else split != 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Elements(View):
    """Every entry is a group of its own."""

    name: ClassVar[str] = "elements"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """No dimension runs within a single entry."""
        return ()


@dataclass(frozen=True)
class Rows(View):
    """All that belongs to one output: a row of a linear weight, a filter of a convolution, one entry of a bias."""

    name: ClassVar[str] = "rows"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """All but the first dimension."""
        return tuple(range(1, ndim))


@dataclass(frozen=True)
class Columns(View):
    """All that belongs to one input: a column of a linear weight, the slice a convolution reads of one channel."""

    name: ClassVar[str] = "columns"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """All but the second dimension."""
        return (0, *range(2, ndim))


@dataclass(frozen=True)
class Filters(View):
    """The filters of a convolution: rows, but refused for weights that have no spatial dimensions."""

    name: ClassVar[str] = "filters"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """All but the first dimension."""
        return tuple(range(1, ndim))

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError for weights without spatial dimensions."""
        _need_spatial(self.name, shape, "rows")


@dataclass(frozen=True)
class Kernels(View):
    """The kernels of a convolution, one for each pair of output and input channel."""

    name: ClassVar[str] = "kernels"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """The spatial dimensions."""
        return tuple(range(2, ndim))

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError for weights without spatial dimensions."""
        _need_spatial(self.name, shape, "elements")


@dataclass(frozen=True)
class Spatial(View):
    """A convolution as the matrix (out·k) × (in·k), whose low rank means separable filters; for the nuclear norm."""

    name: ClassVar[str] = "spatial"

    def inner(self, ndim: int) -> tuple[int, ...]:
        """The input channel and the last spatial dimension."""
        return (1, 3)

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError for all but weights of 2-D convolutions."""
        if len(shape) != 4:
            raise ValueError(
                f"view 'spatial' needs a weight with 4 dimensions (out, in, k, k), got shape {tuple(shape)}: use 'rows'"
            )


@dataclass(frozen=True)
class Heads(View):
    """The heads of attention: `count` equal bundles of consecutive rows.

    Args:
        count: number of heads, at least 1; must divide the first dimension.

    Example:
        >>> import torch
        >>> Heads(2).matrix(torch.arange(8.0).reshape(4, 2))
        tensor([[0., 1., 2., 3.],
                [4., 5., 6., 7.]])
    """

    count: int
    name: ClassVar[str] = "heads"

    def __post_init__(self) -> None:
        _need_positive("heads", self.count)

    def split(self, x: Tensor) -> Tensor:
        """Split the rows into heads."""
        x = with_whole_pieces(x, 0, x.shape[0] // self.count)
        return x.unflatten(0, (self.count, x.shape[0] // self.count))

    def inner(self, ndim: int) -> tuple[int, ...]:
        """All but the number of the head."""
        return tuple(range(1, ndim))

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError where the heads do not divide the rows."""
        _need_multiple(self, "rows", shape[0] if shape else 1, self.count)

    def __str__(self) -> str:
        return f"heads({self.count})"


@dataclass(frozen=True)
class Blocks(View):
    """Rectangular blocks of `rows` outputs × `columns` inputs, with all their spatial entries.

    Args:
        rows: height of a block, at least 1; must divide the first dimension.
        columns: width of a block, at least 1; must divide the second dimension.

    Example:
        >>> import torch
        >>> Blocks(2, 1).matrix(torch.arange(4.0).reshape(2, 2))
        tensor([[0., 2.],
                [1., 3.]])
    """

    rows: int
    columns: int
    name: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        _need_positive("block rows", self.rows)
        _need_positive("block columns", self.columns)

    def split(self, x: Tensor) -> Tensor:
        """Split rows and columns into blocks."""
        x = with_whole_pieces(with_whole_pieces(x, 0, self.rows), 1, self.columns)
        x = x.unflatten(1, (x.shape[1] // self.columns, self.columns))
        return x.unflatten(0, (x.shape[0] // self.rows, self.rows))

    def inner(self, ndim: int) -> tuple[int, ...]:
        """The entries of a block."""
        return (1, 3, *range(4, ndim))

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError where the blocks do not tile the weight."""
        _need_multiple(self, "rows", shape[0] if shape else 1, self.rows)
        _need_multiple(self, "columns", shape[1] if len(shape) > 1 else 1, self.columns)

    def __str__(self) -> str:
        return f"blocks({self.rows}, {self.columns})"


_VIEWS: dict[str, type[Any]] = {
    view.name: view for view in (Elements, Rows, Columns, Filters, Kernels, Spatial, Heads, Blocks)
}
_SPELLED = "elements, rows, columns, filters, kernels, spatial, heads(n), blocks(r, c)"


def get_view(view: str | View) -> View:
    """Return the view of that name; a `View` is returned as it is.

    Args:
        view: one of elements, rows, columns, filters, kernels, spatial, heads(n), blocks(r, c).

    Raises:
        ValueError: for another name, or wrong numbers in the brackets.

    Example:
        >>> get_view("blocks(4, 2)")
        Blocks(rows=4, columns=2)
    """
    if isinstance(view, View):
        return view
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*(\d+(?:\s*,\s*\d+)*)?\s*\))?\s*", str(view))
    if match is None or match[1] not in _VIEWS:
        raise ValueError(f"view {view!r} is unknown: use one of {_SPELLED}")
    try:
        return _VIEWS[match[1]](*(int(n) for n in match[2].split(",")) if match[2] else ())
    except TypeError:
        raise ValueError(f"view {view!r} has the wrong number of arguments: use one of {_SPELLED}") from None


def _at_least_matrix(x: Tensor) -> Tensor:
    return x if x.ndim > 1 else x.unsqueeze(-1) if x.ndim else x.unsqueeze(0).unsqueeze(0)


def _others(ndim: int, inner: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d for d in range(ndim) if d not in inner)


def _need_spatial(name: str, shape: torch.Size, instead: str) -> None:
    if len(shape) < 3:
        raise ValueError(
            f"view {name!r} needs a convolution's weight with 3 or more dimensions (out, in, k, …), "
            f"got shape {tuple(shape)}: use {instead!r} for linear weights"
        )


def _need_positive(what: str, number: int) -> None:
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, got {number!r}")


def _need_multiple(view: View, what: str, length: int, part: int) -> None:
    if length % part:
        raise ValueError(f"view '{view}' does not fit a weight with {length} {what}: {part} must divide {length}")
