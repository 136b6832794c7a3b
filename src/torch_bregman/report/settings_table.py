"""Runs or variants as lines of a table: numbers first, then every setting, those that differ before the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_bregman.report.html_parts import Cell


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names.

    Example:
        >>> flat_settings({"epochs": 3, "optim": {"lr": 0.1}, "rules": {}})
        {'epochs': 3, 'optim.lr': 0.1, 'rules': '–'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat_settings(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = "–" if value is None or value in ({}, []) else value
    return found


def with_settings(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], settings: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[Cell]]]:
    """Return a table with a column for every setting.

    Args:
        header: of the columns there are.
        rows: their cells.
        settings: of each row, nested.
    """
    flat = [flat_settings(each) for each in settings]
    names = list(dict.fromkeys(name for each in flat for name in each))
    differ = [name for name in names if len({str(each.get(name, "–")) for each in flat}) > 1]
    order = [*differ, *(name for name in names if name not in differ)]
    cells = [[*row, *(_cell(each.get(name, "–")) for name in order)] for row, each in zip(rows, flat, strict=True)]
    return [*header, *order], cells


def _cell(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Cell({True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value))
    return Cell(f"{value:g}", float(value))
