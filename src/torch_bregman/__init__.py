"""Train networks that start almost empty, grow only what the data asks for, and come out small.

Everything here is imported on first use, so that the command line answers before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_bregman import (
        compaction,
        data,
        graph,
        layers,
        metrics,
        models,
        multilevel,
        optim,
        regularizers,
        schedulers,
        train,
        views,
    )
    from torch_bregman.compaction import compact, export_onnx, export_program, load_compact, save_compact
    from torch_bregman.groups import param_groups
    from torch_bregman.init import low_rank_, sparsify_
    from torch_bregman.metrics import density
    from torch_bregman.optim import PGD, AdaBreg, Bregman, FactoredLinBreg, LinBreg, MultilevelLinBreg, ProxSGD
    from torch_bregman.regularizers import (
        L1,
        DynamicRankNuclear,
        DynamicRankNuclearRegularizer,
        ElasticNet,
        GroupL2,
        NonNegativeL1,
        NoRegularizer,
        Nuclear,
        Regularizer,
        SoftBernoulli,
        SparseGroup,
        UnitL2,
    )
    from torch_bregman.schedulers import suggest_lam
    from torch_bregman.train import Conf, fit, resume
    from torch_bregman.unit_groups import incoming_groups, outgoing_groups, start_units_

__version__ = "0.1.0"

__all__ = [
    "L1",
    "PGD",
    "AdaBreg",
    "Bregman",
    "Conf",
    "DynamicRankNuclear",
    "DynamicRankNuclearRegularizer",
    "ElasticNet",
    "FactoredLinBreg",
    "GroupL2",
    "LinBreg",
    "MultilevelLinBreg",
    "NoRegularizer",
    "NonNegativeL1",
    "Nuclear",
    "ProxSGD",
    "Regularizer",
    "SoftBernoulli",
    "SparseGroup",
    "UnitL2",
    "__version__",
    "compact",
    "compaction",
    "data",
    "density",
    "export_onnx",
    "export_program",
    "fit",
    "graph",
    "incoming_groups",
    "layers",
    "load_compact",
    "low_rank_",
    "metrics",
    "models",
    "multilevel",
    "optim",
    "outgoing_groups",
    "param_groups",
    "regularizers",
    "resume",
    "save_compact",
    "schedulers",
    "sparsify_",
    "start_units_",
    "suggest_lam",
    "train",
    "views",
]

_HOME = {
    "compaction": ("compact", "export_onnx", "export_program", "load_compact", "save_compact"),
    "groups": ("param_groups",),
    "init": ("low_rank_", "sparsify_"),
    "metrics": ("density",),
    "optim": ("PGD", "AdaBreg", "Bregman", "FactoredLinBreg", "LinBreg", "MultilevelLinBreg", "ProxSGD"),
    "regularizers": (
        "DynamicRankNuclear",
        "DynamicRankNuclearRegularizer",
        "ElasticNet",
        "GroupL2",
        "L1",
        "NoRegularizer",
        "NonNegativeL1",
        "Nuclear",
        "Regularizer",
        "SoftBernoulli",
        "SparseGroup",
        "UnitL2",
    ),
    "schedulers": ("suggest_lam",),
    "train": ("Conf", "fit", "resume"),
    "unit_groups": ("incoming_groups", "outgoing_groups", "start_units_"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
_SUBMODULES = (
    *("compaction", "data", "graph", "layers", "metrics", "models", "multilevel", "optim", "regularizers"),
    *("schedulers", "train", "views"),
)


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
