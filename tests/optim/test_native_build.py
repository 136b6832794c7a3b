"""Building the native step: which compiler, where the program is kept, and whose program is never loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.optim.native import build, kernel

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"needs a C compiler, one of {', '.join(build.COMPILERS)}"
)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the native step is for POSIX systems")

STEP = """
import torch, torch_bregman as tb
weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
weight.grad = torch.tensor([1.0, 1.0])
tb.LinBreg([weight], lr=0.5, regularizer=tb.L1(1.0), compiled=True).step()
print(weight.tolist())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of programs in a cache of its own, not made yet; nothing is loaded."""
    monkeypatch.setenv("TORCH_BREGMAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    build._load.cache_clear()
    kernel._program.cache_clear()
    return tmp_path / "cache" / "native"


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o700)
    return path


def step() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    tb.LinBreg([weight], lr=0.5, regularizer=tb.L1(1.0), compiled=True).step()


def loads(library: object) -> bool:
    return hasattr(library, "torch_bregman_step")


@pytest.fixture
def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    built: list[Path] = []
    plain = build.build

    def counted(command: list[str], path: Path, source: Path | None = None) -> None:
        built.append(path)
        plain(command, path, source)

    monkeypatch.setattr(build, "build", counted)
    return built


def again() -> object:
    """Load as a new process would."""
    build._load.cache_clear()
    return build.load()


def planted(cache: Path) -> Path:
    """Put another file in place of the program; the old one stays whole, for this process has it in its memory."""
    (program,) = cache.iterdir()
    program.unlink()
    program.write_bytes(b"planted")
    program.chmod(0o700)
    return program


@needs_compiler
def test_it_is_built_once_into_a_private_folder(cache: Path, count_builds: list[Path]):
    assert loads(again())
    assert loads(again())
    assert len(count_builds) == 1
    (program,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, program.stat().st_mode & 0o777) == (0o700, 0o700)


@needs_compiler
def test_another_source_or_compiler_is_another_program(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_builds: list[Path]
):
    again()
    monkeypatch.setenv("CC", f"{build.find_compiler()[0]} -DANOTHER")
    again()
    changed = tmp_path / "step.c"
    changed.write_text(build.SOURCE.read_text(encoding="utf-8") + "/* changed */\n", encoding="utf-8")
    monkeypatch.setattr(build, "SOURCE", changed)
    again()
    assert len({path.name for path in count_builds}) == len(list(cache.iterdir())) == 3


def test_without_a_compiler_the_first_step_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(ValueError, match=r"needs a C compiler.*none of cc, gcc, clang: install gcc.*compiled=False"):
        step()
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(ValueError, match=r"CC names 'no-such-compiler', which is not there: install gcc"):
        step()


@pytest.mark.parametrize(
    "script",
    [
        "echo 'fatal: no licence' >&2; exit 1",
        'for word; do [ "$word" = -E ] && exit 0; done; echo "fatal: no licence" >&2; exit 1',
    ],
    ids=["at once", "at the program"],
)
def test_a_broken_compiler_is_quoted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str):
    monkeypatch.setenv("CC", str(executable(tmp_path / "broken-cc", script)))
    with pytest.raises(ValueError, match=r"broken-cc fails \(fatal: no licence\): install gcc.*compiled=False"):
        step()
    assert not cache.exists() or not list(cache.iterdir()), "nothing may be left behind"


def test_the_command_tells_of_a_broken_compiler_in_one_line(tmp_path: Path):
    broken = executable(tmp_path / "broken-cc", "exit 1")
    environment = {**os.environ, "CC": str(broken), "TORCH_BREGMAN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "torch_bregman", "train", "--epochs", "1", "--out", str(tmp_path / "runs")]
    done = subprocess.run(
        [*command, "--optim.compiled", "true"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "broken-cc fails" in line
    assert "Traceback" not in done.stderr


@needs_compiler
def test_a_cache_that_cannot_be_written_costs_a_build(cache: Path, count_builds: list[Path]):
    cache.parent.write_text("a file where the folder should be", encoding="utf-8")
    for _ in range(2):
        with pytest.warns(UserWarning, match="built anew in every process.*TORCH_BREGMAN_CACHE"):
            assert loads(again())
    assert len(count_builds) == 2
    assert not any(path.exists() for path in count_builds)


@needs_compiler
@pytest.mark.parametrize("what", ["folder", "program"])
def test_what_others_may_write_to_is_not_loaded(cache: Path, count_builds: list[Path], what: str):
    again()
    program = planted(cache)
    (cache if what == "folder" else program).chmod(0o777)
    with pytest.warns(UserWarning, match=r"may be written to by others, take that from them by chmod go-w"):
        assert loads(again())
    assert program.read_bytes() == b"planted"
    assert count_builds[-1].parent != cache


@needs_compiler
@pytest.mark.parametrize("what", ["folder", "program"])
def test_what_belongs_to_another_user_is_not_loaded(cache: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    again()
    program = planted(cache)
    lstat, foreign = Path.lstat, cache if what == "folder" else program

    def of_another(path: Path) -> os.stat_result:
        about = lstat(path)
        return os.stat_result((*about[:4], about.st_uid + 1, *about[5:])) if path == foreign else about

    monkeypatch.setattr(Path, "lstat", of_another)
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert loads(again())


@needs_compiler
def test_a_link_to_a_program_elsewhere_is_not_followed(cache: Path, tmp_path: Path):
    again()
    (program,) = cache.iterdir()
    elsewhere = program.rename(tmp_path / "elsewhere.so")
    program.symlink_to(elsewhere)
    with pytest.warns(UserWarning, match="is a link"):
        assert loads(again())


@needs_compiler
def test_a_program_cut_short_is_built_again(cache: Path):
    # in processes of their own: one that has loaded a program dies when its file is cut
    subprocess.run([sys.executable, "-c", STEP], capture_output=True, check=True)
    (program,) = cache.iterdir()
    program.write_bytes(program.read_bytes()[:100])
    program.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    assert done.stdout == "[0.5, 0.0]\n"
    assert program.stat().st_size > 100


@needs_compiler
def test_processes_that_build_at_the_same_time(cache: Path):
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", STEP], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in running] == ["[0.5, 0.0]\n"] * 2
    assert len(list(cache.iterdir())) == 1, "one program, nothing half made"


def test_the_source_is_a_file_of_the_package():
    assert files("torch_bregman.optim.native").joinpath("step.c").is_file()
    assert build.SOURCE.is_file()
