"""The command in many processes: by itself or by torchrun, killed in the middle, and said once what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.commands import bregman, checkpoint, environment, is_one_error, start

from .processes import gloo

ARGUMENTS = ["--data.batch_size=700", "--model.hidden=[9]", "--threads=1", "--dtype=float64"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


@gloo
@pytest.mark.slow
def test_a_killed_process_changes_nothing(tmp_path: Path):
    """torchrun starts all processes anew; they take up their own run, and end as one that nothing happened to."""
    command = [*ARGUMENTS, "--epochs=30", "--regularizer.name=nuclear", "--start.kind=low_rank"]
    process = subprocess.Popen(
        [*TORCHRUN, "--max-restarts=1", "-m", "torch_bregman", "train", "--name=killed", *command],
        cwd=tmp_path,
        env=environment(PYTHONWARNINGS="default"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "runs" / "killed" / "log.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.is_file() and log.read_text(encoding="utf-8").count("\n") >= 3):
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "resume after epoch" in out
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name != ".launches"] == ["killed"]

    whole = bregman("train", "--launch=2", "--name=whole", *command, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    one, other = (checkpoint(tmp_path / "runs" / name / "last.pt") for name in ("killed", "whole"))
    assert one["model"] == other["model"]
    assert one["rows"] == other["rows"]


@gloo
@pytest.mark.slow
def test_one_speaks_for_all(tmp_path: Path):
    done = bregman("train", "--launch=2", "--epochs=1", *ARGUMENTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("epoch 1/1") == 1
    assert done.stdout.count("picture in") == 1
    bad = bregman("train", "--launch=2", "--optim.lr=1e30", "--epochs=1", *ARGUMENTS, cwd=tmp_path)
    assert bad.returncode == 2
    assert is_one_error(bad.stderr), bad.stderr
    assert "epoch 1 diverged" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--launch=0"], "--launch must be a whole number of processes >= 1, got 0"),
        (["--launch=2", "--restarts=-1"], "--restarts must be a whole number >= 0, got -1"),
        (["--restarts=1"], "--restarts has no effect without --launch, got 1"),
        (["--launch=2", "--epochs=0"], "epochs must be a number >= 1, got 0"),
    ],
)
def test_wrong_numbers_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    from torch_bregman.cli import main

    assert main(["train", *arguments]) == 2
    assert said in capsys.readouterr().err


@gloo
@pytest.mark.slow
def test_an_interrupt_ends_all_of_them(tmp_path: Path):
    process = start("train", "--launch=2", "--epochs=2000", *ARGUMENTS, cwd=tmp_path)
    log = tmp_path / "runs" / "run" / "log.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not log.is_file():
        time.sleep(0.05)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert workers
    assert all(not Path(f"/proc/{worker}").exists() for worker in workers)
    assert torch.load(tmp_path / "runs" / "run" / "last.pt", weights_only=True)["rows"]
