"""What a file holds, decompressed: read once, then hashed and parsed from memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path

from torch_bregman.data.errors import DataError

_CHUNK = 1 << 20


def read_content(path: Path) -> bytes:
    """Bytes of a file; of a name that ends in ``.gz``, decompressed.

    Args:
        path: the file.

    Returns:
        The whole content.

    Raises:
        DataError: the file is missing, is a directory, cannot be read, or is not sound gzip.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "three.gz"
        >>> _ = path.write_bytes(gzip.compress(b"abc"))
        >>> read_content(path)
        b'abc'
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decompress(raw, str(path)) if path.name.endswith(".gz") else raw


def decompress(raw: bytes, name: str, limit: int | None = None) -> bytes:
    """Content of a gzip file held in memory.

    Args:
        raw: the compressed bytes.
        name: what to call it in errors.
        limit: most bytes to accept, against archives made to fill the memory; None for no limit.

    Returns:
        The decompressed bytes.

    Raises:
        DataError: not gzip, truncated, corrupted, or more than ``limit`` bytes.

    Example:
        >>> decompress(gzip.compress(b"abc"), "three")
        b'abc'
    """
    parts, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            while part := stream.read(_CHUNK):
                parts.append(part)
                size += len(part)
                if limit is not None and size > limit:
                    raise DataError(f"{name}: holds more than {limit:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a sound gzip file: {error}") from error
    return b"".join(parts)


def sha256(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal.

    Args:
        content: the (decompressed) bytes.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> sha256(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()
