"""Train networks that start almost empty, grow only what the data asks for, and come out small.

Everything here is loaded when it is first used, so that the command line answers before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "torch_bregman.optim": ["PGD", "AdaBreg", "Bregman", "LinBreg", "ProxSGD"],
    "torch_bregman.regularizers": [
        "ElasticNet",
        "GroupL2",
        "L1",
        "NoRegularizer",
        "NonNegativeL1",
        "Nuclear",
        "Regularizer",
        "SoftBernoulli",
        "SparseGroup",
    ],
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ["optim", "regularizers", "views"]

__all__ = ["__version__", *_WHERE, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
