"""Classes and arguments that a configuration names freely."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def lookup(module: Any, name: str, parent: type[Any], field: str) -> type[Any]:
    """Return the class of that name in a module.

    Raises:
        ValueError: where there is none that derives from `parent`; it names the field.
    """
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, parent)):
        raise ValueError(f"{field} must name a class in {module.__name__}, got {name!r}")
    return kind


def call(kind: Callable[..., Any], what: str, *args: Any, **options: Any) -> Any:
    """Return what a class or function makes of options.

    Raises:
        ValueError: where it cannot take them, whatever it raises itself; `what` begins the message.

    Example:
        >>> call(int, "a number", "12", base=[])
        Traceback (most recent call last):
        ValueError: a number cannot take the options {'base': []}: 'list' object cannot be interpreted as an integer
    """
    try:
        return kind(*args, **options)
    except ValueError:
        raise  # says itself what is wrong
    except Exception as error:  # a constructor given the wrong thing breaks in one of many ways
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} cannot take the options {options}: {reason}") from None
