"""Download of a data set from the first mirror that works, checked before it enters the cache."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from torch_bregman.data.archives import gather
from torch_bregman.data.cache import install
from torch_bregman.data.catalog import Archive, DataFile, SetInfo
from torch_bregman.data.content import read_content
from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import find_file

Downloader = Callable[[str, Path], None]
"""Brings what lies at an address into a file, or raises OSError or ValueError."""

_log = logging.getLogger(__name__)


def fetch(info: SetInfo, folder: Path, downloader: Downloader | None = None) -> list[str]:
    """See to it that a folder holds the published files of a set; what is missing or spoilt is downloaded.

    Args:
        info: the set.
        folder: where to, usually its folder in the cache.
        downloader: brings an address into a file; None for pooch's, over HTTP.

    Returns:
        Names of the files that had to be downloaded.

    Raises:
        DataError: no mirror gave a file, or each a wrong one; the message holds every mirror's failure. No
            bad file is left in the folder by it.

    Example:
        >>> from torch_bregman.data.catalog import lookup
        >>> fetch(lookup("sample"), Path(__file__).parent / "sample")  # all there already
        []
    """
    lacking = [file for file in info.files if not _sound(file, folder)]
    downloader = downloader or _pooch
    if lacking and info.archive is not None:
        install(folder, _fetch_archive(info, info.archive, downloader))
    elif lacking:
        for file in lacking:
            install(folder, _fetch_file(info, file, downloader))
    return [file.name for file in lacking]


def _sound(file: DataFile, folder: Path) -> bool:
    """Whether the folder holds the file as published; one that cannot even be read is to be replaced too."""
    path = find_file(folder, file.name)
    try:
        return path is not None and file.fault(read_content(path)) is None
    except DataError as error:
        _log.warning("%s; it will be downloaded anew", error)
        return False


def _fetch_file(info: SetInfo, file: DataFile, downloader: Downloader) -> Mapping[str, bytes]:
    def check(path: Path) -> Mapping[str, bytes]:
        content = read_content(path)
        if fault := file.fault(content):
            raise DataError(fault)
        return {file.name: content}

    return _first_that_works(info, f"{file.name}.gz", check, downloader)


def _fetch_archive(info: SetInfo, archive: Archive, downloader: Downloader) -> Mapping[str, bytes]:
    def check(path: Path) -> Mapping[str, bytes]:
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != archive.md5:
            raise DataError(f"has MD5 {found}, expected {archive.md5}")
        return gather(info, path)

    return _first_that_works(info, archive.name, check, downloader)


def _first_that_works(
    info: SetInfo, name: str, check: Callable[[Path], Mapping[str, bytes]], downloader: Downloader
) -> Mapping[str, bytes]:
    failures = []
    for mirror in info.mirrors:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            try:
                downloader(mirror + name, path)
                contents = check(path)
            except (OSError, ValueError) as error:  # what requests raises is an OSError
                failures.append(f"{mirror}: {error}".replace(f"{path}: ", ""))
            else:
                if failures:
                    _log.warning("%s came from %s, for others failed: %s", name, mirror, "; ".join(failures))
                return contents
    remedy = f"get it by other means, then `bregman data add {info.name} PATH` or --data.dir"
    raise DataError(f"{info.name}: no mirror gave a good {name}: {remedy} ({'; '.join(failures)})")


def _pooch(url: str, path: Path) -> None:
    import pooch

    pooch.HTTPDownloader()(url, str(path), None)
