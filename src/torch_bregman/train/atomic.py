"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def replace_file(path: Path, write: Callable[[BinaryIO], Any], *, shared: bool = False) -> None:
    """Write a file so that at any moment either the old or the new one is there, whole.

    Args:
        path: the file.
        write: writes the content.
        shared: whether other processes may write the same file at the same time.
    """
    partial = path.with_name(path.name + (f".{os.getpid()}.partial" if shared else ".partial"))
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
