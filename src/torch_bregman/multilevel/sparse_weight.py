"""A weight under ℓ1 in compact form: values, dual and momentum on the support; the dual of the rest sleeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bregman.multilevel.descent import descend
from torch_bregman.multilevel.native.matrix import matrix_type
from torch_bregman.optim import MultilevelLinBreg
from torch_bregman.optim.multilevel import sleeping_step


class SparseWeight:
    """One weight of a linear layer while it is compact.

    All state is taken from the optimizer and given back by `write`, to the last bit.

    Args:
        param: the dense weight, of no use until `write`.
        optimizer: that has it.
        index: of its group.
        mask: the support where it is frozen for good and there is no regulariser any more, else None.
        compiled: whether its products are taken by a C program.
    """

    def __init__(
        self,
        param: Tensor,
        optimizer: MultilevelLinBreg,
        index: int,
        mask: Tensor | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self._matrix_type = matrix_type(param.dtype, compiled)
        self.param, self.optimizer, self._index = param, optimizer, index
        self.frozen = mask is not None
        state = optimizer.state[param]
        if mask is None:
            mask = optimizer.support(param, self.group)
            del state["awake"]
        self._dense = None if self.frozen else state["subgrad"]
        self._lam = state.get("lam", 0.0)
        self._flat = mask.view(-1).nonzero().view(-1)
        buffer = state.pop("momentum_buffer", None)
        self._buffer = None if buffer is None else buffer.view(-1).index_select(0, self._flat)
        self._build(param.detach().view(-1).index_select(0, self._flat))

    def _build(self, values: Tensor) -> None:
        """Make the matrix of values, and the dual of the entries beside it."""
        shape = self.param.shape
        self.matrix = self._matrix_type(self._flat, values, (shape[0], shape[1]))
        self._dual = values if self._dense is None else self._dense.view(-1).index_select(0, self._flat)
        self._grad: Tensor | None = None

    @property
    def group(self) -> dict[str, Any]:
        """The group of the weight as it is now."""
        return self.optimizer.param_groups[self._index]

    @property
    def entries(self) -> int:
        """Number of entries on the support."""
        return len(self._flat)

    @property
    def density(self) -> float:
        """Their share."""
        return self.entries / max(self.param.numel(), 1)

    def see(self, dy: Tensor, x: Tensor) -> None:
        """Take the gradient on the support, in the backward pass of a coarse step.

        Args:
            dy: out × batch.
            x: in × batch.
        """
        self._grad = self.matrix.gradient(dy, x)

    def see_all(self, dy: Tensor, x: Tensor) -> None:
        """Do so in a fine step, and take v ← v − τ(1 − dampening)/(1 − μ)·∂y xᵀ; v on the support is set afterwards."""
        self.see(dy, x)
        if self._dense is not None:
            self._dense.addmm_(dy, x.t(), alpha=-sleeping_step(self.group))

    def step(self, fine: bool) -> None:
        """Take a step on the support by the gradient seen; after a fine one choose it anew.

        Args:
            fine: whether the full gradient was seen.
        """
        group, grad = self.group, self._grad
        if grad is None or not float(group["lr"]):
            return
        self._buffer = descend(self._dual, self.matrix.values, grad, self._buffer, group)
        if self._dense is not None:
            self._lam = group["lam"]
            if fine:
                self._choose(group)
            else:
                group["regularizer"].mirror(self._dual, group["delta"], lam=self._lam, out=self.matrix.values)

    def _choose(self, group: dict[str, Any]) -> None:
        """Take the new support from v, and momentum over to it."""
        assert self._dense is not None
        flat_dense, before, buffer = self._dense.view(-1), self._flat, self._buffer
        flat_dense.index_copy_(0, before, self._dual)
        self._flat = self._matrix_type.above(flat_dense, float(group["lam"]))
        if buffer is not None:
            self._buffer = carried(before, buffer, self._flat, flat_dense)
        dual = flat_dense.index_select(0, self._flat)
        values = group["regularizer"].mirror(dual, group["delta"], lam=group["lam"])
        group["support_lam"] = group["lam"]
        self._build(values)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the dense dual up to date, for whoever reads levels."""
        if self._dense is not None:
            self._dense.view(-1).index_copy_(0, self._flat, self._dual)

    @torch.no_grad()
    def write(self) -> None:
        """Give weight and state back; this object is of no use afterwards."""
        self.settle()
        state, param = self.optimizer.state[self.param], self.param
        param.zero_().view(-1).index_copy_(0, self._flat, self.matrix.values)
        if self._buffer is not None:
            state["momentum_buffer"] = torch.zeros_like(param)
            state["momentum_buffer"].view(-1).index_copy_(0, self._flat, self._buffer)
        if not self.frozen:
            state["awake"] = torch.zeros_like(param, dtype=torch.bool)
            state["awake"].view(-1).index_fill_(0, self._flat, True)
            self.optimizer.written(param, {**self.group, "lam": self._lam})


def carried(before: Tensor, values: Tensor, after: Tensor, room: Tensor) -> Tensor:
    """Return values at new positions: those known at the old ones, else 0.

    Args:
        before: positions.
        values: there.
        after: positions.
        room: memory over all positions, given back as it was; a search costs eight times as much.

    Example:
        >>> room = torch.arange(10.0)
        >>> carried(torch.tensor([1, 4, 6]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 4, 6, 9]), room).tolist()
        [0.0, 2.0, 3.0, 0.0]
        >>> torch.equal(room, torch.arange(10.0))
        True
    """
    kept = [(places, room.index_select(0, places)) for places in (before, after)]
    room.index_fill_(0, after, 0.0).index_copy_(0, before, values)
    found = room.index_select(0, after)
    for places, own in kept:
        room.index_copy_(0, places, own)
    return found
