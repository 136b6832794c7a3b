"""The user's cache of data sets: where it is, and how files get into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import spellings

CACHE_VARIABLE = "TORCH_BREGMAN_CACHE"


def cache_folder(name: str) -> Path:
    """Where the cache keeps a data set; the folder need not exist.

    Args:
        name: of the set.

    Returns:
        A folder in what the environment variable ``TORCH_BREGMAN_CACHE`` names, else in the system's place
        for the user's caches.

    Example:
        >>> cache_folder("mnist").name
        'mnist'
    """
    root = os.environ.get(CACHE_VARIABLE)
    if not root:
        import pooch  # only here and to download: a set in a folder needs neither

        root = pooch.os_cache("torch-bregman")
    return Path(root).expanduser() / name


def install(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put files into a folder, each wholly or not at all, in place of all other spellings of its name.

    Args:
        folder: made if need be.
        contents: decompressed bytes by standard name.

    Raises:
        DataError: the folder cannot be written to.

    Example:
        >>> folder = Path(tempfile.mkdtemp()) / "new"
        >>> install(folder, {"test_batch.bin": b"abc"})
        >>> (folder / "test_batch.bin").read_bytes()
        b'abc'
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # beside the target, for a replacement is atomic within one file system only
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as temporary:
            for name, content in contents.items():
                (Path(temporary) / name).write_bytes(content)
            for name in contents:
                (Path(temporary) / name).replace(folder / name)
                _remove_others(folder, name)
    except OSError as error:
        remedy = f"make room, or name another folder by {CACHE_VARIABLE}"
        raise DataError(f"{folder}: cannot be written to: {error.strerror or error}: {remedy}") from error


def _remove_others(folder: Path, name: str) -> None:
    for spelling in spellings(name)[1:]:
        (folder / spelling).unlink(missing_ok=True)
