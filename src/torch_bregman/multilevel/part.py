"""The active part of a parameter or buffer: cut out, trained, put back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Cut = tuple[int, Tensor]
"""A dimension and the rising indices that stay."""


class Part:
    """What stays of a tensor, with its dual and its momentum.

    Args:
        full: the parameter or buffer.
        cuts: the dimensions that lose something.
        dual: v of the whole tensor, None where it is the tensor itself.
        buffer: momentum of the whole tensor, or None.
    """

    def __init__(self, full: Tensor, cuts: Sequence[Cut], dual: Tensor | None, buffer: Tensor | None) -> None:
        self.full, self.cuts = full.detach(), tuple(cuts)
        self.full_dual, self.full_buffer = dual, buffer
        self.values = self._cut(self.full)
        self.dual = self.values if dual is None else self._cut(dual)
        self.buffer = None if buffer is None else self._cut(buffer)
        self.still: Tensor | None = None

    def _cut(self, tensor: Tensor) -> Tensor:
        layout, part = _layout(tensor), _select(tensor, self.cuts)
        fits = bool(self.cuts) and layout == torch.contiguous_format
        return part if fits else part.clone(memory_format=layout)

    def hold(self, mask: Tensor) -> None:
        """Keep still what is off a mask of the whole tensor, for good."""
        still = self._cut(mask)
        self.still = None if bool(still.all()) else still.to(self.dual.dtype)

    def _put(self, full: Tensor, part: Tensor) -> None:
        if not self.cuts:
            full.copy_(part)
            return
        (dim, kept), *rest = self.cuts
        for inner, indices in rest:
            part = full.index_select(dim, kept).index_copy_(inner, indices, part)
        full.index_copy_(dim, kept, part)

    def kept(self, dim: int, values: Tensor) -> Tensor:
        """Return of one value for each index along a dimension those that stay."""
        return next((values[indices] for own, indices in self.cuts if own == dim), values)

    def outside(self, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σv², Σvb and Σb² of each slice that stays along a dimension, over what other dimensions lose of it."""
        assert self.full_dual is not None
        slices = self.dual.shape[dim]
        lost = [(own, _others(kept, self.full.shape[own])) for own, kept in self.cuts if own != dim]
        nothing = self.dual.new_zeros(slices)
        if not lost:
            return nothing, nothing, nothing
        mine = [cut for cut in self.cuts if cut[0] == dim]
        v = _select(self.full_dual, [*lost, *mine]).movedim(dim, 0).flatten(1)
        if self.full_buffer is None:
            return v.square().sum(1), nothing, nothing
        b = _select(self.full_buffer, [*lost, *mine]).movedim(dim, 0).flatten(1)
        return v.square().sum(1), (v * b).sum(1), b.square().sum(1)

    def put_back(self) -> None:
        """Write dual and momentum, or the tensor itself, where they were cut out."""
        self._put(self.full if self.full_dual is None else self.full_dual, self.dual)
        if self.buffer is not None:
            if self.full_buffer is None:
                self.full_buffer = torch.zeros_like(self.full)
            self._put(self.full_buffer, self.buffer)

    def spread(self, grad: Tensor, rows: Tensor | None) -> Tensor:
        """Return the gradient of the whole tensor, 0 where nothing is known.

        Args:
            grad: of the part.
            rows: of the rows that stay, over all of their entries, or None.
        """
        if not self.cuts:
            return grad
        whole = torch.zeros_like(self.full)
        if rows is not None:
            kept = next((indices for dim, indices in self.cuts if dim == 0), None)
            whole = rows if kept is None else whole.index_copy_(0, kept, rows)
        self._put(whole, grad)
        return whole

    def scale_into(self, dim: int, factors: Tensor) -> None:
        """Set the slices of the full weight that stay along a dimension to v times a factor each."""
        assert self.full_dual is not None
        shape = [-1 if d == dim else 1 for d in range(self.full.ndim)]
        mine = [cut for cut in self.cuts if cut[0] == dim]
        scaled = _select(self.full_dual, mine) * factors.view(shape)
        if mine:
            self.full.index_copy_(dim, mine[0][1], scaled)
        else:
            self.full.copy_(scaled)


def _layout(tensor: Tensor) -> torch.memory_format:
    """Return the order of a tensor in memory; by its strides, for one channel is contiguous in either order."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    beside = last is not None and tensor.stride(1) == 1 and tensor.is_contiguous(memory_format=last)
    return last if last is not None and beside else torch.contiguous_format


def _select(tensor: Tensor, cuts: Sequence[Cut]) -> Tensor:
    for dim, kept in cuts:
        tensor = tensor.index_select(dim, kept)
    return tensor


def _others(kept: Tensor, length: int) -> Tensor:
    mask = torch.ones(length, dtype=torch.bool, device=kept.device)
    mask[kept] = False
    return mask.nonzero().view(-1)
