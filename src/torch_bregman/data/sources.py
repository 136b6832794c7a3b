"""Where a data set comes from: the user's folder and nothing else, or the first usual place that has it.

The usual places, in order: what the environment variable ``TORCH_BREGMAN_DATA`` names, the user's cache,
where torchvision and Debian leave it, a download into the cache. What the package carries needs none of
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from torch_bregman.data.cache import cache_folder
from torch_bregman.data.catalog import SetInfo, lookup
from torch_bregman.data.download import Downloader, fetch
from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import RawSet, missing_files, read_folder

DATA_VARIABLE = "TORCH_BREGMAN_DATA"


@dataclass(frozen=True)
class Place:
    """A folder in which a set may lie.

    Args:
        folder: which.
        label: what kind of place it is, for messages.
        shared: whether it may just as well hold another set of the same file names; what is there is then
            passed over, not an error, unless it is the published one.

    Example:
        >>> str(Place(Path("data/MNIST/raw"), "folder"))
        'folder data/MNIST/raw'
    """

    folder: Path
    label: str
    shared: bool = False

    def __str__(self) -> str:
        return f"{self.label} {self.folder}"


def places(info: SetInfo) -> Iterator[Place]:
    """Where a set is looked for before it is downloaded.

    Args:
        info: the set.

    Yields:
        Places, in order of preference.

    Raises:
        DataError: ``TORCH_BREGMAN_DATA`` names something that is not a folder.

    Example:
        >>> [place.label for place in places(lookup("mnist"))][-2:]
        ['cache', 'folder']
    """
    named = os.environ.get(DATA_VARIABLE)
    if named:
        root = Path(named).expanduser()
        if not root.is_dir():
            raise DataError(f"{DATA_VARIABLE} names {named!r}, which is no folder: correct or unset it")
        yield Place(root / info.name, DATA_VARIABLE)
        yield Place(root, DATA_VARIABLE, shared=True)
    yield Place(cache_folder(info.name), "cache")
    for folder in info.folders:
        yield Place(Path(folder), "folder")


def read_set(
    name: str,
    directory: str | os.PathLike[str] | None = None,
    download: bool = True,
    downloader: Downloader | None = None,
) -> RawSet:
    """Read a data set from wherever it is.

    Args:
        name: of the set, see `torch_bregman.data.catalog`.
        directory: the folder with its files, then the only place looked in; own data of the same format is
            welcome.
        download: whether to download it where no place has it.
        downloader: brings an address into a file; None for pooch's.

    Returns:
        The set.

    Raises:
        DataError: unknown name; nothing found; a file missing, malformed or not the published one.

    Example:
        >>> read_set("sample").source
        'embedded sample'
    """
    info = lookup(name)
    if directory is not None:
        return _read_directory(info, Path(directory).expanduser())
    if info.embedded:
        with as_file(files("torch_bregman.data") / "sample") as folder:
            return read_folder(info, folder, verify=True, source=f"embedded {info.name}")
    found, tried = _search(info)
    if found is not None:
        return found
    if not download:
        looked = "; ".join(tried)
        raise DataError(
            f"{name}: not found ({looked}): allow the download, `bregman data add {name} PATH`, or --data.dir"
        )
    folder = cache_folder(name)
    fetch(info, folder, downloader)
    return read_folder(info, folder, verify=True, source=f"downloaded to {folder}")


def _read_directory(info: SetInfo, folder: Path) -> RawSet:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: name the one with {info.files[0].name} and the other files")
    return read_folder(info, folder, verify=False, source=f"directory {folder}")


def _search(info: SetInfo) -> tuple[RawSet | None, list[str]]:
    """The set from the first place that has it, and why the places before it would not do."""
    tried = []
    for place in places(info):
        if missing := missing_files(info, place.folder):
            tried.append(f"{place} lacks {missing[0]}" if place.folder.is_dir() else f"no {place}")
            continue
        found = read_folder(info, place.folder, verify=not place.shared, source=str(place))
        if found.genuine or not place.shared:
            return found, tried
        tried.append(f"{place} holds other data than {info.name}")
    return None, tried
