"""What is measured of finished runs, beside counts of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_bregman.experiments.measures import kernels_left, size, thresholding
from torch_bregman.train import Conf, Result, fit, reopen


def trained(tmp_path: Path, **changes: Any) -> Result:
    plain: dict[str, Any] = {
        "epochs": 1,
        "threads": 1,
        "out": str(tmp_path),
        "data": {"batch_size": 180},
        "model": {"hidden": [30, 12]},
    }
    return fit(Conf.from_dict({**plain, **changes}), observers=[])


def nuclear(tmp_path: Path, engine: str) -> Result:
    return trained(
        tmp_path,
        start={"kind": "low_rank", "rank": 6},
        regularizer={"name": "nuclear", "lam": 0.01, "options": {"engine": engine}},
    )


def cheapest(weight: torch.Tensor) -> int:
    """Numbers that a matrix takes, as non-zeros or as two factors."""
    matrix = weight.detach().double().numpy()
    values = np.linalg.svd(matrix, compute_uv=False)
    rank = int((values > max(matrix.shape) * np.finfo(np.float32).eps * values[0]).sum())
    return min(int(np.count_nonzero(matrix)), rank * sum(matrix.shape))


@pytest.mark.parametrize("kind", ["sparse", "low rank"])
def test_size_counts_each_weight_as_it_is_cheaper(kind: str, tmp_path: Path) -> None:
    sparse = {"start": {"density": 0.2}, "regularizer": {"lam": 0.05}}
    result = trained(tmp_path, **sparse) if kind == "sparse" else nuclear(tmp_path, "gram")
    expected = sum(cheapest(p) for p in result.model.parameters() if p.ndim > 1)
    assert size(result.folder) == {"numbers_stored": expected, "macs_left": expected}  # a linear layer uses each once


def test_a_convolution_uses_its_numbers_once_a_pixel(tmp_path: Path) -> None:
    result = trained(tmp_path, data={"batch_size": 900}, model={"name": "lenet5_caffe"}, start={"density": 0.05})
    weights = {name: p for name, p in result.model.named_parameters() if p.ndim > 1}
    left = {name: cheapest(p.flatten(1)) for name, p in weights.items()}
    positions = {name: 24**2 if "conv1" in name else 8**2 if "conv2" in name else 1 for name in weights}
    measured = size(result.folder)
    assert measured["numbers_stored"] == sum(left.values())
    assert measured["macs_left"] == sum(left[name] * positions[name] for name in weights)
    kernels = [p.detach().flatten(2).abs().sum(2) > 0 for p in weights.values() if p.ndim == 4]
    alive, count = sum(int(each.sum()) for each in kernels), sum(each.numel() for each in kernels)
    assert kernels_left(result.folder) == {"kernel_density": pytest.approx(alive / count)}


def test_exact_engines_have_no_error_and_a_truncated_one_has(tmp_path: Path) -> None:
    exact, truncated = (thresholding(nuclear(tmp_path, each).folder) for each in ("gram", "randomized(2)"))
    assert exact["svt_error"] < 1e-5
    assert truncated["svt_error"] > 0.1
    assert exact["step_ms"] > 0


def test_a_reopened_run_is_what_it_was(tmp_path: Path) -> None:
    result = trained(tmp_path, optim={"name": "linbreg", "momentum": 0.9, "lr": 0.01})
    parts = reopen(result.folder)
    for name, param in result.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], param)
    states = parts.optimizer.state.values()
    assert len(states) == 6
    assert all("momentum_buffer" in state for state in states)
