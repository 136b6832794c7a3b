"""What the arguments of all models have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def check_positive(name: str, number: int, least: int = 1) -> None:
    """Raise ValueError where a number is no integer of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {number!r}")


def check_options(name: str, function: Callable[..., Any], options: Iterable[str]) -> None:
    """Raise ValueError for an option that the function of a model does not take."""
    known = inspect.signature(function).parameters
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"model {name!r} takes {', '.join(known)}: it has no option {unknown[0]!r}")
