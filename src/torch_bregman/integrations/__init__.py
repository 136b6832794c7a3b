"""Bregman training in other libraries' loops, by their own extension points; imported on first use.

`lightning.BregmanCallback`, `hugging_face.BregmanCallback`, and `BregmanClassifier` for scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_bregman.integrations.classifier import BregmanClassifier

__all__ = ["BregmanClassifier"]


def __getattr__(name: str) -> object:
    if name != "BregmanClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.classifier"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
