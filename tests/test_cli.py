"""The command: its help, what it prints, its exit status."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import bregman, environment, is_one_error, start
from torch_bregman import __version__, cli
from torch_bregman.train.conf import Conf

ONE_EPOCH = ("train", "--epochs", "1", "--model.hidden", "[8]")


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def flag(name: str, text: str) -> str:
    """What help says of a flag."""
    found = re.search(rf"^  --{re.escape(name)}\b.*?(?=^  --|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def documented(kind: type[Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every field by its dotted name, with its explanation in the docstring."""
    args = re.split(r"\n\s*\n|\n\s+Example:", typing.cast("str", kind.__doc__).split("Args:")[1])[0]
    explained = dict(re.findall(r"\n {8}(\w+): ((?:.|\n(?! {8}\w))*)", args))
    found = []
    for name, hint in typing.get_type_hints(kind).items():
        nested = documented(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else []
        found += nested or [(prefix + name, explained[name])]
    return found


@pytest.fixture(scope="module")
def help_of_train(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = bregman("train", "--help", cwd=tmp_path_factory.mktemp("help"), COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_are_fields_to_look_for() -> None:
    names = [name for name, _ in documented(Conf)]
    assert {"name", "epochs", "data.batch_size", "model.hidden", "optim.delta", "schedule.every", "rules"} <= {*names}
    assert len(names) == len(set(names)) > 40


@pytest.mark.parametrize(("name", "text"), documented(Conf))
def test_every_field_is_a_flag_that_help_explains(name: str, text: str, help_of_train: str) -> None:
    assert squeezed(text).rstrip(".") in squeezed(flag(name, help_of_train))


def test_help_gives_no_default_for_what_depends_on_other_fields(help_of_train: str) -> None:
    assert "default: null" in flag("optim.lr", help_of_train)
    assert "default: null" in flag("model.hidden", help_of_train)
    assert "default: 0.0" in flag("optim.momentum", help_of_train)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["resume", "--help"], ["--version"]])
def test_help_does_without_torch(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "torch_bregman", *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert "torch_bregman.cli" in imported
    assert not {"torch", "numpy", "matplotlib", "rich", "pooch"} & imported
    assert done.stdout


def test_refusals_do_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from torch_bregman.cli import main; status = main(sys.argv[1:]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "--optim.lr=-1"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert is_one_error(done.stderr)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["--version"])
    assert exited.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_wrong_commands_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["trane"], ["resume"], ["data"], ["data", "drop"], ["data", "get"], ["data", "add", "mnist"]):
        assert cli.main(arguments) == 2
        assert is_one_error(capsys.readouterr().err), arguments


def test_data_list_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["sample", "mnist", "fashion-mnist", "cifar10"]
    assert "in the package" in out


def test_a_run_says_what_it_is_how_it_goes_and_what_came_out(tmp_path: Path) -> None:
    done = bregman(*ONE_EPOCH, "--name", "first", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "run    runs/first"
    assert lines[1].startswith(
        "train  mlp (6,352 weights) on sample (5,400 images, embedded sample) with linbreg, l1 λ ="
    )
    assert re.fullmatch(r"epoch 1/1  loss \d\.\d{4}  val accuracy [ \d]\d\.\d\d%  density .*%  \d+\.\d s", lines[2])
    assert any(re.match(r"│ fc1\.weight │ 8 × 784 │", line) for line in lines)
    assert lines[-1] == "picture in runs/first/curves.png"
    assert "\x1b" not in done.stdout
    again = bregman("resume", "first", cwd=tmp_path)
    assert again.stdout.startswith("run runs/first is finished: test accuracy ")
    assert again.stdout.count("\n") == 1


def test_a_picture_that_a_kill_prevented_is_drawn_by_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*ONE_EPOCH, "--out", str(tmp_path)]) == 0
    picture = tmp_path / "run" / "curves.png"
    before = picture.read_bytes()
    picture.unlink()
    assert cli.main(["resume", "run", "--out", str(tmp_path)]) == 0
    assert picture.read_bytes() == before
    assert f"picture in {picture}" in capsys.readouterr().out


def test_no_picture_without_matplotlib_but_all_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main([*ONE_EPOCH, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "no picture: matplotlib is not installed: pip install 'torch-bregman[plot]'\n"
    assert {"last.pt", "best.pt", "summary.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert not (tmp_path / "run" / "curves.png").exists()


def test_an_alphabet_without_lambda_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.main([*ONE_EPOCH, "--out", str(tmp_path)]) == 0
    sys.stdout.flush()
    assert b"l1 ? = 0.1" in written.getvalue()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = start("train", "--help", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", COLUMNS="120", LINES="40")
    arguments = [sys.executable, "-m", "torch_bregman", *ONE_EPOCH, "--epochs", "2"]
    process = subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    assert process.wait(60) == 0
    assert "\x1b[" in shown
    assert "━" in shown
    assert "epoch 1/2" in shown
    assert "epoch 2/2  loss" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # the other end is closed
        return b""


def test_errors_of_ours_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = types.SimpleNamespace(fit=lambda conf: 1 / 0)
    monkeypatch.setitem(sys.modules, "torch_bregman.train", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])
    monkeypatch.setenv("BREGMAN_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r"optim\.lr"):
        cli.main(["train", "--optim.lr=-1"])
