"""Dataclasses that check the types of their fields, also when they are built in code."""

from __future__ import annotations

import types
import typing
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin


class Checked:
    """A dataclass whose fields are checked against their annotations when it is built.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point(Checked):
        ...     x: int = 0
        >>> Point(x="a")
        Traceback (most recent call last):
        ValueError: x must be int, got 'a'
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                raise ValueError(f"{field.name} must be {_spell(hints[field.name])}, got {value!r}")
        self.check()

    def check(self) -> None:
        """Raise ValueError where values are out of range or do not go together."""


def _fits(value: Any, hint: Any) -> bool:
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if kind is tuple:
        return isinstance(value, (tuple, list)) and len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
