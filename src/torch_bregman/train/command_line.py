"""From arguments and YAML to a checked `Conf`. Does not need torch."""

from __future__ import annotations

import re
import typing
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from torch_bregman.train.checked import spell
from torch_bregman.train.conf import Conf
from torch_bregman.train.yaml_file import read_mapping

_RULES = "other regularisers by module type (Conv2d) or by a pattern of parameter names (features.*)."


def add_conf(parser: ArgumentParser) -> None:
    """Add `--config FILE` and one flag for every field of `Conf`."""
    parser.add_argument("--config", type=str, help="a YAML file with any of the fields below; flags go before it")
    parser.add_class_arguments(Conf, nested_key=None, skip={"rules"})
    # jsonargparse would take the values of a rule for those of a subclass, and say so in its messages
    parser.add_argument("--rules", type=dict[str, Any], default={}, help=_RULES)
    # by default these depend on other fields, and `Conf` fills them in
    parser.set_defaults({"optim.lr": None, "model.hidden": None})


def build_conf(parsed: Namespace) -> Conf:
    """Return the checked configuration of arguments that were parsed with `defaults=False`.

    Raises:
        ValueError: for an unknown field, a wrong value, or a file that is no YAML mapping.
    """
    flags = parsed.as_dict()
    path = flags.pop("config", None)
    if path is None:
        return Conf.from_dict(flags)
    content = read_mapping(path)
    try:
        return Conf.from_dict(_merged(content, flags))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_conf(arguments: Sequence[str]) -> Conf:
    """Return the configuration that command-line arguments describe.

    Raises:
        ValueError: for an unknown field, a wrong value, or a file that is no YAML mapping.

    Example:
        >>> parse_conf(["--epochs", "3", "--optim.name", "adabreg", "--regularizer.lam", "1e-1"]).optim.lr
        0.001
    """
    parser = ArgumentParser(exit_on_error=False)
    add_conf(parser)
    try:
        return build_conf(parser.parse_args(list(arguments), defaults=False))
    except ArgumentError as error:
        raise ValueError(explain(error)) from None


def explain(error: Exception) -> str:
    """Return in one line, and in the words of `Conf`, what the parser found wrong; other errors as they are.

    Example:
        >>> explain(ArgumentError(None, 'Parser key "epochs": Expected a <class int>. Got value: x'))
        'epochs must be a whole number, got x'
    """
    text = " ".join(str(error).split())
    if not isinstance(error, ArgumentError):
        return text
    if (found := _WRONG_VALUE.match(text)) and (hint := _fields().get(found["key"])) is not None:
        return f"{found['key']} must be {spell(hint)}" + (f", got {found['value']}" if found["value"] else "")
    if found := _UNKNOWN.search(text):
        close = get_close_matches(found["key"], _fields(), n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"unknown field {found['key']}: {meant}bregman train --help lists them all"
    return text


_GOT = r"(?:Got|Given) value: (?P<value>(?:(?!Given value:).)*)"
_WRONG_VALUE = re.compile(rf'Parser key "(?P<key>[\w.]+)":.*?(?:{_GOT})?$')
_UNKNOWN = re.compile(r"[Uu]nrecognized arguments: -*(?P<key>[\w.-]+)")


def _merged(content: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a file with those given as flags in their place."""
    parts = {name for name, hint in typing.get_type_hints(Conf).items() if is_dataclass(hint)}
    merged = dict(content)
    for key, value in flags.items():
        inside = key in parts and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if inside else value
    return merged


def _fields(kind: Any = Conf, prefix: str = "") -> dict[str, Any]:
    """Return the type of every field under its dotted name."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        found |= {prefix + name: hint} | (_fields(hint, f"{prefix}{name}.") if is_dataclass(hint) else {})
    return found
