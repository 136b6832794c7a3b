"""Dataclasses that check the types of their fields, also when they are built in code."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin


@dataclass
class Checked:
    """A dataclass whose fields are checked against their annotations when it is built.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point(Checked):
        ...     x: int = 0
        >>> Point(x="a")
        Traceback (most recent call last):
        ValueError: x must be a whole number, got 'a'
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                raise ValueError(f"{field.name} must be {spell(hints[field.name])}, got {value!r}")
        self.check()

    def check(self) -> None:
        """Raise ValueError where values are out of range or do not go together."""


def spell(hint: Any) -> str:
    """Return a type in the words of someone who writes a configuration.

    Example:
        >>> spell(list[int] | None)
        'a list of whole numbers or null'
    """
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return "one of " + ", ".join(map(str, parts))
    if kind in (Union, types.UnionType):
        return " or ".join(map(spell, parts))
    if kind in (list, tuple):
        few = "a list" if kind is list else f"{len(parts)} values, a list"
        return f"{few} of {spell(parts[0]).removeprefix('a ')}s"
    if kind is dict:
        return "a mapping such as " + ("{key: value}" if parts[1] is Any else "{key: {field: value}}")
    if isinstance(hint, type) and issubclass(hint, Checked):
        return "a mapping such as {field: value}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "null"}


def refuse_idle(section: str, conf: Any, takes: set[str], what: str) -> None:
    """Raise ValueError where a field was set that has no effect."""
    for each in fields(conf):
        default = each.default_factory() if callable(each.default_factory) else each.default
        value = getattr(conf, each.name)
        if each.name not in takes and value != default:
            raise ValueError(f"{section}.{each.name} has no effect with {what}, got {value!r}: leave it out")


def within(name: str, value: float, least: float, most: float, hint: str) -> None:
    """Raise ValueError for a number that is not in [least, most], with the name of its field and a hint."""
    if not least <= value <= most:
        top = "" if math.isinf(most) else f" and <= {most}"
        raise ValueError(f"{name} must be a number >= {least}{top}, got {value!r}: {hint}")


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
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if kind is tuple:
        return isinstance(value, (tuple, list)) and len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
