"""Runs of the command that are killed, at random moments and while they write, end as if they never had been."""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import bregman, is_one_error, results, start, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="named pipes and SIGKILL are of POSIX")

EPOCHS = 8
COMMON = ["--epochs", str(EPOCHS), "--model.hidden", "[64, 32]", "--start.density", "0.05", "--seed", "3"]
LINBREG = [
    *(*COMMON, "--optim.name", "linbreg", "--optim.momentum", "0.9", "--optim.nesterov", "true", "--optim.lr", "0.02"),
    *("--schedule.name", "CosineAnnealingLR", "--data.shift", "2", "--model.options", "{dropout: 0.2}"),
]
ADABREG = [
    *(*COMMON, "--optim.name", "adabreg", "--optim.lr", "0.002", "--regularizer.lam", "0.05"),
    *("--rules", "{fc1: {name: group_l2, lam: 0.005, options: {view: columns}}}"),
]
FULL_BATCH = ["--data.batch_size", "0", "--optim.lr", "1", "--model.hidden", "[64, 32]", "--epochs", "20"]
SLOW = {
    "proxsgd one cycle": [
        *(*COMMON, "--optim.name", "proxsgd", "--regularizer.lam", "1e-4", "--optim.momentum", "0.9"),
        *("--schedule.name", "OneCycleLR", "--schedule.options", "{max_lr: 0.05}", "--schedule.every", "step"),
    ],
    "pgd": [*FULL_BATCH, "--optim.name", "pgd", "--regularizer.lam", "1e-3"],
    "linbreg accelerated": [*FULL_BATCH, "--optim.name", "linbreg", "--optim.accelerated", "true"],
    "bregman": [*COMMON, "--optim.name", "bregman", "--optim.base", "RMSprop"],
    "sgd": [*COMMON, "--optim.name", "sgd", "--optim.momentum", "0.9", "--regularizer.lam", "1e-4"],
    "adam float16": [*COMMON, "--optim.name", "adam", "--dtype", "float16", "--regularizer.name", "none"],
    "soft_bernoulli": [*COMMON, "--regularizer.name", "soft_bernoulli", "--data.flip", "true"],
    "nuclear": [*COMMON, "--regularizer.name", "nuclear", "--start.kind", "low_rank", "--start.density", "0.01"],
    "plateau": [*COMMON, "--schedule.name", "ReduceLROnPlateau", "--schedule.options", "{patience: 0}"],
}


@pytest.mark.parametrize(("name", "arguments"), [("linbreg", LINBREG), ("adabreg", ADABREG)])
def test_killed_again_and_again(name: str, arguments: list[str], tmp_path: Path) -> None:
    check(arguments, tmp_path, random.Random(name), kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_killed_again_and_again_with(name: str, tmp_path: Path) -> None:
    check(SLOW[name], tmp_path, random.Random(name), kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_other_moments(seed: int, tmp_path: Path) -> None:
    check(LINBREG, tmp_path, random.Random(seed), kills=8)


def check(arguments: list[str], folder: Path, rng: random.Random, kills: int) -> None:
    """Compare a run killed at all kinds of moments with one that was left alone."""
    left_alone = bregman("train", "--name", "whole", *arguments, cwd=folder)
    assert left_alone.returncode == 0, left_alone.stderr
    run = folder / "runs" / "killed"
    kill_before_the_first_checkpoint(run, arguments, rng)
    for written in ("best.pt", "last.pt"):
        kill_while_writing(run, written, rng)
    for _ in range(kills):
        kill(start("resume", "killed", cwd=folder), "epoch", rng.uniform(0, 0.15))
    kill(start("resume", "killed", cwd=folder), f"epoch {EPOCHS}", rng.uniform(0, 0.02))
    finished = bregman("resume", "killed", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    assert results(run) == results(folder / "runs" / "whole")
    assert (run / "curves.png").stat().st_size > 0


def kill_before_the_first_checkpoint(run: Path, arguments: list[str], rng: random.Random) -> None:
    """Start a run and kill it at once; start over, and kill it sooner, where its first epoch was quicker."""
    longest = 0.05
    for _ in range(20):
        process = start("train", "--name", run.name, *arguments, cwd=run.parents[1])
        kill(process, "run ", rng.uniform(0, longest))
        if not (run / "last.pt").exists():
            return
        shutil.rmtree(run)
        longest /= 2
    raise AssertionError(f"{run.name} had a checkpoint before it could be killed, 20 times in a row")


def kill(process: subprocess.Popen[str], line: str, delay: float) -> None:
    """Kill a run some time after it has printed a line; it may have finished before."""
    wait_for(process, line)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=60)


def kill_while_writing(run: Path, name: str, rng: random.Random) -> None:
    """Resume a run, kill it in the middle of writing a file, and leave what it had written.

    A pipe stands where the file is written, and is full long before a checkpoint is: the run waits there to be killed.
    """
    partial = run / f"{name}.partial"
    partial.unlink(missing_ok=True)
    os.mkfifo(partial)
    reader = os.open(partial, os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = start("resume", run.name, cwd=run.parents[1])
        content = b"".join(read_some(reader, rng.randrange(1, 20_000)))
        assert content, f"{name} was never written: {process.communicate(timeout=60)}"
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=60)
    finally:
        os.close(reader)
        partial.unlink()
    partial.write_bytes(content)


def read_some(reader: int, count: int) -> Iterator[bytes]:
    """Read so many bytes from a pipe, as they come."""
    end = time.monotonic() + 120
    while count > 0 and time.monotonic() < end:
        if select.select([reader], [], [], 1)[0]:
            part = os.read(reader, count)
            count -= len(part)
            yield part
            if not part:
                time.sleep(0.01)  # no writer yet


def test_killed_before_it_began_leaves_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "runs" / "run").mkdir(parents=True)
    resumed = bregman("resume", "run", cwd=tmp_path)
    assert resumed.returncode == 2
    assert is_one_error(resumed.stderr)
    assert "there is no run 'run'" in resumed.stderr


def test_interrupted_by_its_user(tmp_path: Path) -> None:
    process = start("train", "--name", "stopped", *LINBREG, cwd=tmp_path)
    assert wait_for(process, "epoch")
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("bregman: interrupted after epoch ")
    assert err.endswith("go on with bregman resume runs/stopped\n")
    assert err.count("\n") == 1
    resumed = bregman("resume", "stopped", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"epoch {EPOCHS}/{EPOCHS}" in resumed.stdout
