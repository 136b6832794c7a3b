"""`bregman compact` and `bregman bench`, as a user types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.commands import bregman, is_one_error

import torch_bregman as tb
from torch_bregman.cli import main
from torch_bregman.train import Conf, fit


@pytest.fixture
def run(tiny: Callable[..., Conf]) -> Path:
    rules = {"fc2.weight": {"name": "group_l2", "lam": 0.02, "options": {"view": "columns"}}}
    conf = tiny(model={"hidden": [40]}, start={"density": 1.0}, optim={"name": "proxsgd"}, rules=rules, epochs=4)
    return fit(conf, observers=[]).folder.path


def test_a_run_becomes_a_folder_and_an_onnx_file(run: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra 'deploy' is not installed")
    arguments = ("--export", "onnx", "--batch_sizes", "1", "4", "--to", "small")
    done = bregman("compact", str(run), *arguments, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert "ms at batch 4" in done.stdout
    assert (run.parent / "small" / "model.onnx").is_file()
    before, after = (word for word in done.stdout.split("test accuracy ")[1].split() if word[0].isdigit())
    assert before == after
    model = tb.load_compact(run.parent / "small", tb.models.mlp([784, 40, 10]))
    assert model.fc1.out_features < 40
    bench = bregman("bench", "small", "--batch_sizes", "2", cwd=run.parent)
    assert bench.returncode == 0, bench.stderr
    assert bench.stdout.splitlines()[2].split()[0] == "2"


def test_the_folder_is_in_that_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", run.name, "--out", str(run.parent), "--round_to", "8", "--batch_sizes", "1"]) == 0
    assert tb.load_compact(run / "compact", tb.models.mlp([784, 40, 10])).fc2.in_features % 8 == 0
    assert main(["bench", run.name, "--out", str(run.parent), "--batch_sizes", "1"]) == 0
    assert "times as fast" in capsys.readouterr().out


def test_errors_are_one_line(run: Path) -> None:
    assert is_one_error(bregman("compact", "nothing", cwd=run.parent).stderr)
    assert is_one_error(bregman("bench", str(run), cwd=run.parent).stderr)
    (run / "summary.json").unlink()
    unfinished = bregman("compact", str(run), cwd=run.parent)
    assert unfinished.returncode == 2
    assert "is not finished" in unfinished.stderr
    assert is_one_error(unfinished.stderr)


def test_a_damaged_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(run), "--batch_sizes", "1"]) == 0
    torch.save({}, run / "compact" / "model.safetensors")
    assert main(["bench", str(run / "compact")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (run / "compact" / "run.json").write_text("{")
    assert main(["bench", str(run / "compact")]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert main(["bench", str(run), "--batch_sizes", "0"]) == 2
