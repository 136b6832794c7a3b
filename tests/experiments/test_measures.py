"""What is measured of finished runs, beside counts of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_bregman.experiments.measures import kernels_left, rows_left, similarity, size, thresholding
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


def test_similarity_is_that_of_the_definition_and_rows_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics", reason="the extra images is not installed")
    result = trained(
        tmp_path,
        data={"batch_size": 300, "noise": 0.2},
        model={"name": "denoiser", "options": {"layers": 3, "width": 40}},
        start={"kind": "sparse", "density": 0.3, "view": "rows"},
        regularizer={"name": "group_l2", "lam": 0.05, "options": {"view": "rows"}},
        optim={"name": "adabreg", "lr": 0.01},
    )
    measured = {**similarity(result.folder), **rows_left(result.folder)}
    parts = reopen(result.folder)
    with torch.no_grad():
        outputs = parts.model(parts.test.images).double()
    assert measured["test_ssim"] == pytest.approx(ssim(outputs, parts.test.labels.double()), abs=1e-4)
    alive = [int((p.detach().abs().sum(1) > 0).sum()) for p in result.model.parameters() if p.ndim == 2]
    assert measured["row_density"] == pytest.approx(sum(alive) / (40 + 40 + 784))
    assert measured["narrowest"] == min(alive)


def ssim(x: torch.Tensor, y: torch.Tensor) -> float:
    """Wang et al. 2004: Gaussian windows of 11 pixels, σ = 1.5, borders reflected; constants 0.01² and 0.03²."""
    steps = torch.arange(11.0, dtype=torch.float64) - 5
    line = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(image: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(image, (5, 5, 5, 5), mode="reflect")
        return torch.nn.functional.conv2d(padded, window)

    mx, my = mean(x), mean(y)
    covariance, vx, vy = mean(x * y) - mx * my, mean(x * x) - mx**2, mean(y * y) - my**2
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
