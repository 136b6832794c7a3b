"""A weight of fixed rank that is trained by its two factors, while the model goes on with the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import Nuclear
from torch_bregman.schedulers.watched import Group, dual
from torch_bregman.views import get_view

State = dict[str, Any]
_MOMENTUM = "momentum_buffer"


class Factors:
    """W = LᵀR with L (r × m) and R (r × n) trained in place of W, of which they are given the gradient.

    ∂L = R·Gᵀ and ∂R = L·G, with G the gradient of W, which is taken apart as soon as it is there.

    Args:
        param: W.
        regularizer: says how W becomes a matrix.
        left: L.
        right: R.
    """

    def __init__(self, param: Tensor, regularizer: Nuclear, left: Tensor, right: Tensor) -> None:
        self.param, self.view = param, get_view(regularizer.view)
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)

    @classmethod
    def of_rank(cls, rank: int, param: Tensor, optimizer: RegularizedOptimizer, group: Group) -> Factors:
        """Return balanced factors of a weight, cut to a rank, or of the image of its dual under a smaller λ."""
        left, right = optimizer.factors(param)
        if len(left) < rank:
            v, regularizer = dual(optimizer, group, param), group["regularizer"]
            levels = regularizer.levels(v)
            lam = float(levels[rank]) if rank < len(levels) else 0.0
            regularizer.mirror(v, float(group.get("delta", 1.0)), lam=lam, out=param)
            left, right = optimizer.factors(param)
        return cls(param, group["regularizer"], *_balanced(left, right, rank))

    @property
    def pays(self) -> bool:
        """Whether the factors are fewer numbers than the weight."""
        return self.left.numel() + self.right.numel() < self.param.numel()

    @torch.no_grad()
    def write(self) -> None:
        """Set W = LᵀR."""
        self.param.copy_(self.view.restore(self.left.mT @ self.right, self.param))

    def take_over(self, optimizer: RegularizedOptimizer, group: Group) -> None:
        """Stand in the group in place of W, with its momentum under SGD, and have the gradient of W from now on."""
        params, state = group["params"], optimizer.state.pop(self.param, {})
        place = next(i for i, each in enumerate(params) if each is self.param)
        params[place : place + 1] = [self.left, self.right]
        if "param_names" in group:
            name = group["param_names"][place]
            group["param_names"][place : place + 1] = [f"{name}.left", f"{name}.right"]
        carried = self._carried(self.left, state), self._carried(self.right, state)
        for each, own in zip((self.left, self.right), carried, strict=True):
            if own:
                optimizer.state[each].update(own)
        self.param.grad = None  # `zero_grad` no longer reaches it
        self.param.register_post_accumulate_grad_hook(self._take_apart)

    @torch.no_grad()
    def _carried(self, factor: Tensor, state: State) -> State:
        """Return the state of a factor: the momentum of SGD, from that of W as the gradient of the factor from W's.

        Second moments are not known from those of W, whose entries move together: (Σ l_i g_i)² is up to m times
        Σ l_i² g_i². Taken for such, they let Adam's first steps be so long that they kill units; it starts anew.
        """
        known = {key for key, value in state.items() if isinstance(value, Tensor)} - {"subgrad", "left", "right"}
        if known != {_MOMENTUM}:
            return {}
        matrix = self.view.matrix(state[_MOMENTUM])
        grad = self.right @ matrix.mT if factor is self.left else self.left @ matrix
        return {_MOMENTUM: grad.contiguous()}

    @torch.no_grad()
    def _take_apart(self, param: Tensor) -> None:
        assert param.grad is not None
        G = self.view.matrix(param.grad)
        for factor, grad in ((self.left, (self.right @ G.mT).contiguous()), (self.right, self.left @ G)):
            factor.grad = grad if factor.grad is None else factor.grad.add_(grad)
        param.grad = None

    def state(self) -> State:
        """Return the factors."""
        return {"left": self.left.detach(), "right": self.right.detach()}


def _balanced(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the leading directions, each with the same length in both factors."""
    a, b = torch.linalg.vector_norm(left, dim=1), torch.linalg.vector_norm(right, dim=1)
    leading = (a * b).argsort(descending=True)[:rank]
    ratio = (b[leading] / a[leading]).sqrt().unsqueeze(1)
    return (left[leading] * ratio).contiguous(), (right[leading] / ratio).contiguous()
