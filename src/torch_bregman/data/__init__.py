"""Data sets as tensors in memory: readers, sources, an embedded sample, batches by index, augmentation.

What stands here is imported on first use, so that the catalogue of sets can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_bregman.data.augment import Compose, Flip, Noise, Shift, black
    from torch_bregman.data.batches import Batches
    from torch_bregman.data.commands import SetStatus, add, get, list_sets
    from torch_bregman.data.datasets import DataSet, Split, holdout, load, normalize
    from torch_bregman.data.errors import DataError
    from torch_bregman.data.idx import read_idx

__all__ = [
    "Batches",
    "Compose",
    "DataError",
    "DataSet",
    "Flip",
    "Noise",
    "SetStatus",
    "Shift",
    "Split",
    "add",
    "black",
    "get",
    "holdout",
    "list_sets",
    "load",
    "normalize",
    "read_idx",
]

_MODULES = {
    "augment": ("Compose", "Flip", "Noise", "Shift", "black"),
    "batches": ("Batches",),
    "commands": ("SetStatus", "add", "get", "list_sets"),
    "datasets": ("DataSet", "Split", "holdout", "load", "normalize"),
    "errors": ("DataError",),
    "idx": ("read_idx",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
