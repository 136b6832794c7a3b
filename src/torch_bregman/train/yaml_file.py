"""Configurations as YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as the number it is to everyone but YAML 1.1."""


class _Dumper(yaml.SafeDumper):
    """Puts a text that reads like such a number in quotes."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Return the fields that a YAML file holds.

    Raises:
        ValueError: for a file that cannot be read, or is no YAML mapping; it names the file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "conf.yaml"
        >>> _ = path.write_text("optim: {lr: 1e-3}")
        >>> read_mapping(path)
        {'optim': {'lr': 0.001}}
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold fields such as 'epochs: 3', got {content!r}")
    return content


def to_text(fields: dict[str, Any]) -> str:
    """Return fields as YAML that `read_mapping` reads back.

    Example:
        >>> print(to_text({"name": "1e-3", "optim": {"lr": 0.001}}), end="")
        name: '1e-3'
        optim:
          lr: 0.001
    """
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
