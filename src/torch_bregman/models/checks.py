"""What the arguments of all models have in common."""

from __future__ import annotations


def check_positive(name: str, number: int, least: int = 1) -> None:
    """Raise ValueError where a number is no integer of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {number!r}")
