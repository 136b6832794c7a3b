"""Builds the C program of a step with the system's compiler, once for a machine, and loads it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

from torch_bregman.data.cache import CACHE_VARIABLE, cache_folder

SOURCE = Path(__file__).with_name("step.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
"""Flags that leave nan, inf and the order of sums as they are written."""

_REMEDY = "install gcc or clang, name a C compiler in the variable CC, or set compiled=False"
_LOCK = threading.Lock()


class CompilerError(ValueError):
    """The C program cannot be built: no compiler, or one that does not work."""


def load(source: Path | None = None) -> ctypes.CDLL:
    """Return a program, from the user's cache, or built there: a second or so.

    The cache is the folder `native` of what ``TORCH_BREGMAN_CACHE`` names, else of the system's place for the user's
    caches. A program that others could have put or changed there is not loaded: then, and where nothing can be written,
    it is built in a folder of its own that is gone afterwards.

    Args:
        source: of the program, default that of an optimizer's step.

    Raises:
        CompilerError: where there is no C compiler, or it fails.
    """
    with _LOCK:
        return _load(source or SOURCE)


@functools.cache
def _load(source: Path) -> ctypes.CDLL:
    compiler = find_compiler()
    command, target = _target(compiler)
    name = f"{source.stem}-{_key(source, command, target)}.so"
    try:
        return _from_cache(source, command, cache_folder("native") / name)
    except OSError as error:
        warnings.warn(
            f"the compiled step is built anew in every process: {error}; name another folder by {CACHE_VARIABLE}",
            stacklevel=2,
        )
    with tempfile.TemporaryDirectory(prefix="torch-bregman-") as folder:
        build(command, Path(folder) / name, source)
        return ctypes.CDLL(str(Path(folder) / name))


def find_compiler() -> list[str]:
    """Return the command of the C compiler: that in CC, else the first of cc, gcc and clang there is.

    Raises:
        CompilerError: where there is none.
    """
    wanted = shlex.split(os.environ.get("CC", ""))
    found = [name for name in (wanted[:1] or COMPILERS) if shutil.which(name)]
    if not found:
        missing = (
            f"CC names {wanted[0]!r}, which is not there" if wanted else f"there is none of {', '.join(COMPILERS)}"
        )
        raise CompilerError(f"compiled=True needs a C compiler on a CPU: {missing}: {_REMEDY}")
    return wanted or found[:1]


def _target(compiler: list[str]) -> tuple[list[str], str]:
    """Return the command, for this processor if the compiler knows how, and the macros that say what it builds for."""
    for native in (["-march=native"], ["-mcpu=native"], []):
        command = [*compiler, *FLAGS, *native]
        asked = _run([*command, "-dM", "-E", "-x", "c", os.devnull])
        if asked.returncode == 0:
            return command, asked.stdout
    raise CompilerError(_failure(command, asked.stderr))


def _key(source: Path, command: list[str], target: str) -> str:
    parts = (source.read_text(encoding="utf-8"), *command, target)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _from_cache(source: Path, command: list[str], path: Path) -> ctypes.CDLL:
    """Load what is in the cache, or build it there; an OSError says why that cannot be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(path.parent)
    if os.path.lexists(path):
        _check_private(path)
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            path.unlink()  # cut short, or of another system
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        build(command, Path(folder) / path.name, source)
        (Path(folder) / path.name).replace(path)  # others who build it at the same time replace it by its like
    return ctypes.CDLL(str(path))


def _check_private(path: Path) -> None:
    """Raise PermissionError for a link, and what belongs to another user or may be written to by one."""
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        raise PermissionError(f"{path} is a link")
    if about.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if about.st_mode & 0o022:
        raise PermissionError(f"{path} may be written to by others, take that from them by chmod go-w")


def build(command: list[str], path: Path, source: Path | None = None) -> None:
    """Compile a program into a file, by default that of an optimizer's step.

    Raises:
        CompilerError: with what the compiler says.
    """
    done = _run([*command, "-o", str(path), str(source or SOURCE), "-lm"])
    if done.returncode:
        raise CompilerError(_failure(command, done.stderr))
    path.chmod(0o700)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(_failure(command, str(error))) from error


def _failure(command: list[str], said: str) -> str:
    first = next((line.strip() for line in said.splitlines() if line.strip()), "nothing said")
    return f"compiled=True needs a C compiler on a CPU, and {command[0]} fails ({first}): {_REMEDY}"
