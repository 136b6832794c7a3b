"""The command as a user types it, in a process of its own, and what a run leaves behind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).parents[1] / "src"


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the sources beside the tests, one thread, and no data of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TORCH_BREGMAN", "BREGMAN"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **changes}


def start(*arguments: str, cwd: Path, **changes: str) -> subprocess.Popen[str]:
    """Start `bregman` with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch_bregman", *arguments],
        cwd=cwd,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # a parent in the background may hand down that interrupts are ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def bregman(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `bregman` with these arguments to its end."""
    process = start(*arguments, cwd=cwd, **changes)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """Read standard output up to the first line with this beginning; return it, or "" where it never came."""
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith(beginning)), "")


def is_one_error(text: str) -> bool:
    """Whether standard error holds one line, of the command, and no traceback."""
    return text.startswith("bregman: error: ") and text.count("\n") == 1 and "Traceback" not in text


def results(run: Path) -> dict[str, Any]:
    """All that a run computed, as values that `==` compares bit for bit; the times it took are left out."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    with (run / "log.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    return {
        "last": checkpoint(run / "last.pt"),
        "best": checkpoint(run / "best.pt"),
        "log": timeless(log),
        "table": timeless(table),
        "summary": timeless(json.loads((run / "summary.json").read_text(encoding="utf-8"))),
    }


def checkpoint(path: Path) -> Any:
    """The content of a checkpoint, see `results`."""
    return timeless(frozen(torch.load(path, weights_only=True)))


def frozen(value: Any) -> Any:
    """The same with tensors as type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.cpu().numpy().tobytes()
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    return [frozen(each) for each in value] if isinstance(value, (list, tuple)) else value


def timeless(value: Any) -> Any:
    """The same without what is called "seconds"."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key != "seconds"}
    return [timeless(each) for each in value] if isinstance(value, list) else value
