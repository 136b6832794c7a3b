"""The files of a data set inside a folder tree, an archive or alone; nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from torch_bregman.data.catalog import DataFile, SetInfo
from torch_bregman.data.cifar import parse_cifar
from torch_bregman.data.content import decompress, read_content
from torch_bregman.data.errors import DataError
from torch_bregman.data.folders import spellings

_LIMIT = 1 << 28  # bytes of one member: the largest file of any set has a fifth of it


def gather(info: SetInfo, path: Path) -> dict[str, bytes]:
    """Verified files of a set.

    Args:
        info: the set.
        path: a folder or an archive (.tar, .tar.gz, .tgz, .tar.xz, .zip) with all its files at any depth,
            or one of them alone. Where a name occurs more than once, the one with the right content is
            taken.

    Returns:
        Decompressed content by standard name.

    Raises:
        DataError: a file missing or not the published one; a broken archive; a member over 256 MiB.

    Example:
        >>> from torch_bregman.data.catalog import lookup
        >>> len(gather(lookup("sample"), Path(__file__).parent))
        4
    """
    wanted = {spelling: file for file in info.files for spelling in spellings(file.name)}
    contents: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    for place, file, content in _candidates(path, wanted):
        if fault := file.fault(content):
            faults[file.name] = f"{place}: {fault}"
        else:
            if info.format == "cifar":
                parse_cifar(content, place)  # its size alone says little
            contents[file.name] = content
    required = [wanted[path.name]] if path.name in wanted else info.files
    for file in required:
        if file.name not in contents:
            raise DataError(faults.get(file.name, f"{path}: holds no {file.name} (nor .gz) of {info.name}"))
    return contents


def _candidates(path: Path, wanted: dict[str, DataFile]) -> Iterator[tuple[str, DataFile, bytes]]:
    """What has a name of the set: where it lies, which file it should be, its decompressed content."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        for found in sorted(path.rglob("*")):
            if found.name in wanted and found.is_file():
                yield str(found), wanted[found.name], read_content(found)
    elif path.name in wanted:
        yield str(path), wanted[path.name], read_content(path)
    else:
        for member, raw in _members(path, wanted):
            base, place = _base(member), f"{path}: {member!r}"
            content = decompress(raw, place, _LIMIT) if base.endswith(".gz") else raw
            yield place, wanted[base], content


def _base(member: str) -> str:
    """Last part of a member's name, which is all that is ever used of it."""
    return PurePosixPath(member.replace("\\", "/")).name


def _members(path: Path, wanted: dict[str, DataFile]) -> Iterator[tuple[str, bytes]]:
    readers = ((zipfile.is_zipfile, _zip_members), (tarfile.is_tarfile, _tar_members))
    try:
        for recognises, read in readers:
            if recognises(path):
                yield from read(path, wanted)
                return
    except DataError:
        raise
    except Exception as error:  # on damaged input tarfile and zipfile let errors of any kind through
        raise DataError(f"{path}: not a sound archive: {error}") from error
    known = ", ".join(sorted({file.name for file in wanted.values()}))
    raise DataError(f"{path}: neither a .tar(.gz) or .zip archive nor one of {known} (or .gz)")


def _zip_members(path: Path, wanted: dict[str, DataFile]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and _base(member.filename) in wanted:
                _refuse_large(path, member.filename, member.file_size)
                yield member.filename, archive.read(member)


def _tar_members(path: Path, wanted: dict[str, DataFile]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() and _base(member.name) in wanted else None
            if stream is not None:
                _refuse_large(path, member.name, member.size)
                yield member.name, stream.read()


def _refuse_large(path: Path, member: str, size: int) -> None:
    if size > _LIMIT:
        raise DataError(f"{path}: {member!r}: has {size:,} bytes, no file of a set more than {_LIMIT:,}")
