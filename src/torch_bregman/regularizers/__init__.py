"""What is penalised: one norm a file, on any view of a weight.

A regulariser is one file and one row of the table below; every contract test then runs on it by itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch_bregman.regularizers.base import Regularizer, check_lam
from torch_bregman.regularizers.dynamic_rank import DynamicRankNuclear, DynamicRankNuclearRegularizer
from torch_bregman.regularizers.elastic_net import ElasticNet
from torch_bregman.regularizers.group_l2 import GroupL2
from torch_bregman.regularizers.l1 import L1
from torch_bregman.regularizers.none import NoRegularizer
from torch_bregman.regularizers.nonnegative_l1 import NonNegativeL1
from torch_bregman.regularizers.nuclear import Nuclear
from torch_bregman.regularizers.slices import Slices, get_slices
from torch_bregman.regularizers.soft_bernoulli import SoftBernoulli
from torch_bregman.regularizers.sparse_group import SparseGroup
from torch_bregman.regularizers.unit_l2 import UnitL2

REGULARIZERS: dict[str, type[Regularizer]] = {
    kind.name: kind
    for kind in (
        NoRegularizer,
        L1,
        NonNegativeL1,
        ElasticNet,
        GroupL2,
        SparseGroup,
        UnitL2,
        Nuclear,
        DynamicRankNuclear,
        SoftBernoulli,
    )
}


def from_spec(spec: dict[str, Any], lam: float) -> Regularizer:
    """Return the regulariser that `Regularizer.spec` described, with strength λ.

    Raises:
        ValueError: for a name that is not in the table, or an option that its regulariser does not have.

    Example:
        >>> from_spec({"name": "group_l2", "view": "kernels", "weighted": True}, lam=0.1)
        GroupL2(lam=0.1, view=Kernels(), weighted=True)
    """
    options = dict(spec)
    name = options.pop("name", None)
    if name not in REGULARIZERS:
        raise ValueError(f"regularizer {name!r} is unknown: use one of {', '.join(REGULARIZERS)}")
    known = [f.name for f in dataclasses.fields(REGULARIZERS[name]) if f.init and f.name != "lam"]
    for option in options:
        if option not in known:
            remedy = f"use {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"regularizer {name!r} has no option {option!r}: {remedy}")
    return REGULARIZERS[name](lam, **options)


__all__ = [
    "L1",
    "REGULARIZERS",
    "DynamicRankNuclear",
    "DynamicRankNuclearRegularizer",
    "ElasticNet",
    "GroupL2",
    "NoRegularizer",
    "NonNegativeL1",
    "Nuclear",
    "Regularizer",
    "Slices",
    "SoftBernoulli",
    "SparseGroup",
    "UnitL2",
    "check_lam",
    "from_spec",
    "get_slices",
]
