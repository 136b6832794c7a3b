"""Folders of compact models: loaded elsewhere, refused where they do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_bregman as tb
from tests.commands import environment
from torch_bregman.compaction import CompactReport
from torch_bregman.graph import trace_units

from .architectures import ARCHITECTURES, build
from .test_exactness import silence


def compacted(name: str, **options) -> tuple[nn.Module, CompactReport, torch.Tensor]:
    model, x = build(name)
    graph = trace_units(model, x)
    silence(model, graph, set(graph.units()[1::2]), "outgoing")
    return *tb.compact(model, x, batch_sizes=(), **options), x


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_instance_becomes_the_compact_model(name: str, tmp_path: Path) -> None:
    small, report, x = compacted(name, fold_norms=True)
    folder = tb.save_compact(tmp_path / "small", small, report)
    again = tb.load_compact(folder, build(name, seed=5)[0])
    with torch.no_grad():
        assert torch.equal(small.eval()(x), again.eval()(x))
    assert str(again) == str(small)
    stored = (folder / "model.safetensors").stat().st_size
    assert stored < report.bytes[1] + 20_000


def test_all_kinds_of_layers_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 9, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9 * 36, 40), nn.ReLU(), nn.Linear(40, 30)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.einsum("oa,ib->oiab", torch.randn(9, 3), torch.randn(2, 3)))
        model[3].weight.mul_(torch.rand(40, 324) < 0.05)
        model[5].weight.copy_(torch.randn(30, 2) @ torch.randn(2, 40))
    x = torch.randn(3, 2, 8, 8)
    small, report = tb.compact(model, x, batch_sizes=(), sparse="always")
    kinds = [step["do"] + step.get("form", "") for step in report.recipe["steps"] if step["do"] != "slice"]
    assert sorted(kinds) == ["csr", "factoriselinear", "factoriseseparable"]
    again = tb.load_compact(tb.save_compact(tmp_path, small, report), model)
    with torch.no_grad():
        assert torch.equal(again(x), small(x))


def test_trained_factors_are_the_optimizers_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tb.low_rank_(tb.models.mlp([20, 24, 16, 3]), rank=2, seed=0)
    optimizer = tb.LinBreg(tb.param_groups(model, {"fc[12].weight": tb.Nuclear(0.05)}), lr=0.05)
    x, y = torch.randn(32, 20), torch.randint(3, (32,))
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    small, report = tb.compact(model, x, optimizer=optimizer, batch_sizes=())
    left, right = optimizer.factors(model.fc1.weight)
    torch.testing.assert_close(small.fc1[0].weight, right)
    torch.testing.assert_close(small.fc1[1].weight, left.mT)
    again = tb.load_compact(tb.save_compact(tmp_path, small, report), tb.models.mlp([20, 24, 16, 3]))
    assert torch.equal(again(x), small(x))


def test_layers_trained_in_factors_become_plain(tmp_path: Path) -> None:
    model = tb.layers.to_factored(tb.low_rank_(tb.models.mlp([20, 24, 16, 3]), rank=2, seed=0), lam=0.1)
    x = torch.randn(4, 20)
    small, report = tb.compact(model, x, batch_sizes=())
    assert type(small.fc1).__name__ == "FactoredLinear"
    again = tb.load_compact(tb.save_compact(tmp_path, small, report), tb.models.mlp([20, 24, 16, 3]))
    assert torch.equal(again(x), small(x))


SCRIPT = """
import sys, torch, torch_bregman as tb
small = tb.load_compact("small", tb.models.mlp([64, 20, 16, 4], activation="elu")).eval()
loaded = [name for name in sys.modules if name.startswith("torch_bregman.optim")]
assert not loaded, loaded
torch.save(small(torch.load("x.pt", weights_only=True)).detach(), "y.pt")
"""


def test_another_process_needs_no_optimizer(tmp_path: Path) -> None:
    small, report, x = compacted("mlp")
    tb.save_compact(tmp_path / "small", small, report)
    torch.save(x, tmp_path / "x.pt")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    y = torch.load(tmp_path / "y.pt", weights_only=True)
    torch.testing.assert_close(y, small.eval()(x).detach(), rtol=1e-6, atol=1e-7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small, report, _ = compacted("mlp")
    return tb.save_compact(tmp_path / "small", small, report)


def fresh() -> nn.Module:
    return build("mlp")[0]


def refused(folder: Path, model: nn.Module | None = None) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        tb.load_compact(folder, fresh() if model is None else model)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folders_without_their_files(folder: Path, tmp_path: Path) -> None:
    assert "holds no compact model" in refused(tmp_path / "none")
    (folder / "model.safetensors").unlink()
    assert "there is no model.safetensors" in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json"])
@pytest.mark.parametrize("keep", [0, 7, 200])
def test_files_cut_short(folder: Path, name: str, keep: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read" in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99"),
        ({"steps": [{"do": "dance"}]}, "'dance' that is unknown"),
        ({"steps": [{"do": "slice", "tensor": "fc9.weight", "dim": 0, "keep": "0"}]}, "does not fit this model"),
        ({"steps": [{"do": "slice", "tensor": "fc1.weight", "dim": 0, "keep": "99"}]}, "does not fit this model"),
        ({"steps": []}, "does not hold the tensors"),
    ],
)
def test_recipes_that_were_changed(folder: Path, change: dict, message: str) -> None:
    path = folder / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert message in refused(folder)


def test_recipes_of_something_else(folder: Path) -> None:
    (folder / "recipe.json").write_text('{"name": "soup"}')
    assert "is no recipe" in refused(folder)


def test_another_architecture(folder: Path) -> None:
    text = refused(folder, tb.models.mlp([64, 20, 17, 4]))
    assert "another architecture" in text
    assert "'fc2.weight' of shape [16, 20]" in text


def test_a_report_of_another_model(tmp_path: Path) -> None:
    small, _, _ = compacted("mlp")
    _, report, _ = compacted("convnet")
    with pytest.raises(ValueError, match="belongs to another model"):
        tb.save_compact(tmp_path, small, report)
