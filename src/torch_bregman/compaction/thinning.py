"""Weights of low rank as two thin layers, where that saves a fifth of the multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.compaction.recipe import Step, apply_step
from torch_bregman.layers.factors import fill_factors
from torch_bregman.views import get_view

Factors = tuple[Tensor, Tensor]
"""L (rank × m) and R (rank × n) with W = LᵀR."""

_NOISE = 3e-7
"""Singular values below this, relative to the first, are what rounding leaves; the outputs do not show them."""
_WORTH = 0.8
"""Share of the multiply-adds that two layers may need in the place of one: a second call has a cost of its own."""


def thin_out(model: nn.Module, known: Mapping[str, Factors]) -> list[Step]:
    """Replace layers of low rank in place; return the steps that did it.

    Args:
        model: already without its dead units.
        known: factors of weights that are at hand, by the name of the module; others are decomposed.
    """
    steps = []
    for name, module in dict(model.named_modules()).items():
        if _is_plain(model, module):
            found = _cheapest(module, known.get(name))
            if found is not None:
                form, left, right = found
                step = {"do": "factorise", "module": name, "form": form, "rank": len(left)}
                apply_step(model, step)
                made: Any = model.get_submodule(name)
                fill_factors(made, left, right)
                steps.append(step)
    return steps


def _is_plain(model: nn.Module, module: Any) -> bool:
    """Whether a module is a linear layer or convolution like any other, its weight its own."""
    if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) or getattr(module, "groups", 1) > 1:
        return False
    holders = [m for m in set(model.modules()) if any(p is module.weight for p in m._parameters.values())]
    return len(holders) == 1 and module.weight.numel() > 0 and module.weight.is_floating_point()


def _cheapest(module: Any, known: Factors | None) -> tuple[str, Tensor, Tensor] | None:
    """Return the form and factors with the fewest multiply-adds, None where they save less than a fifth."""
    weight = module.weight.detach()
    forms = ["linear"] if weight.ndim == 2 else ["1x1"]
    if isinstance(module, nn.Conv2d) and min(module.kernel_size) > 1 and module.padding_mode == "zeros":
        forms.append("separable")
    best, least = None, _WORTH * weight.numel()
    for form in forms:
        left, right = known if known is not None and form != "separable" else decompose(weight, _VIEWS[form])
        # the first of two separable layers runs on rows that the stride of the second leaves out
        first = right.numel() * (module.stride[0] if form == "separable" else 1)
        if left.numel() + first < least:
            best, least = (form, *_in_layout(form, left, right, weight.shape)), left.numel() + first
    return best


_VIEWS = {"linear": "rows", "1x1": "rows", "separable": "spatial"}


def decompose(weight: Tensor, view: str) -> Factors:
    """Return factors to the numerical rank, at least one row of each; both carry half of the singular values."""
    matrix = get_view(view).matrix(weight)
    U, S, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = max(int((_NOISE * S[0] < S).sum()), 1)
    root = S[:rank].sqrt()
    return (U[:, :rank] * root).mT.to(weight.dtype), (root[:, None] * Vh[:rank]).to(weight.dtype)


def _in_layout(form: str, left: Tensor, right: Tensor, shape: torch.Size) -> Factors:
    """Return factors by rank, output or input, and place in the kernel."""
    if form != "separable":
        return left, right
    rank = len(left)
    out, inputs, kh, kw = shape
    return left.reshape(rank, out, kh, 1), right.reshape(rank, inputs, 1, kw)
