"""Files that run without Python code of ours, and say what the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.compaction import exporting

from .test_folder import compacted


@pytest.mark.parametrize("name", ["mlp", "resnet", pytest.param("encoder", marks=pytest.mark.slow)])
def test_programs_of_torch_export(name: str, tmp_path: Path) -> None:
    small, _, x = compacted(name)
    path = tb.export_program(tmp_path / "small.pt2", small, x)
    loaded = torch.export.load(path).module()
    for batch in (1, 3):
        with torch.no_grad():
            torch.testing.assert_close(loaded(x[:batch]), small.eval()(x[:batch]), rtol=1e-5, atol=1e-6)


def onnx_outputs(path: Path, x: torch.Tensor) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@pytest.mark.parametrize(
    "name",
    ["convnet", "separable", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet", "encoder", "autoencoder"))],
)
def test_onnx_says_the_same_for_any_number_of_samples(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'deploy' is not installed")
    small, _, x = compacted(name)
    path = tb.export_onnx(tmp_path / "small.onnx", small, x)
    small.eval()
    for batch in (1, 2, 7):
        many = torch.randn(batch, *x.shape[1:])
        with torch.no_grad():
            expected = small(many).numpy()
        assert np.abs(onnx_outputs(path, many) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_sparse_layers_are_written_densely(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'deploy' is not installed")
    torch.manual_seed(0)
    model = tb.models.mlp([40, 30, 3])
    with torch.no_grad():
        model.fc1.weight.mul_(torch.rand(30, 40) < 0.1)
    x = torch.randn(4, 40)
    small, _ = tb.compact(model, x, batch_sizes=(), sparse="always", low_rank=False)
    assert isinstance(small.fc1, tb.layers.CSRLinear)
    path = tb.export_onnx(tmp_path / "small.onnx", small, x)
    np.testing.assert_allclose(onnx_outputs(path, x), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert isinstance(small.fc1, tb.layers.CSRLinear)


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + int(x.sum() > 0)


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torch\.export cannot export Odd") as caught:
        tb.export_program(tmp_path / "odd.pt2", Odd(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)


def test_a_file_that_says_something_else_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="does not say what the model says"):
        exporting._compare(tmp_path, model, torch.randn(2, 3), lambda inputs: [model(*inputs) + 1e-3], 1e-4)
