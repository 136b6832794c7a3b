"""What a user imports, and the lines a user writes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from tests.commands import environment

OPTIMIZERS = ("LinBreg", "AdaBreg", "ProxSGD", "PGD", "Bregman")
REGULARIZERS = (
    "NoRegularizer",
    "L1",
    "NonNegativeL1",
    "ElasticNet",
    "GroupL2",
    "SparseGroup",
    "Nuclear",
    "SoftBernoulli",
)
FUNCTIONS = ("sparsify_", "low_rank_", "param_groups", "density", "fit", "resume", "compact", "outgoing_groups")
MODULES = ("models", "data", "metrics", "schedulers", "optim", "regularizers", "train", "views")


def test_optimizers_are_optimizers_of_torch() -> None:
    for name in OPTIMIZERS:
        assert issubclass(getattr(tb, name), torch.optim.Optimizer)


def test_regularizers_are_regularizers() -> None:
    for name in REGULARIZERS:
        assert issubclass(getattr(tb, name), tb.Regularizer)


def test_functions_and_configuration() -> None:
    assert all(callable(getattr(tb, name)) for name in FUNCTIONS)
    assert tb.Conf().model.hidden == [200, 80]


def test_modules() -> None:
    for name in MODULES:
        assert isinstance(getattr(tb, name), types.ModuleType)
        assert importlib.import_module(f"torch_bregman.{name}") is getattr(tb, name)


def test_all_is_all_there_is_and_documented() -> None:
    assert {*OPTIMIZERS, *REGULARIZERS, *FUNCTIONS, *MODULES, "Conf"} <= {*tb.__all__} <= {*dir(tb)}
    for name in tb.__all__:
        assert getattr(tb, name) is not None
        assert name == "__version__" or getattr(tb, name).__doc__, name


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'torch_bregman' has no attribute 'LinBregg'"):
        _ = tb.LinBregg  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'torch_bregman\.train' has no attribute 'fitt'"):
        _ = tb.train.fitt  # type: ignore[attr-defined]


def test_the_import_itself_is_light_and_names_are_found_in_any_order() -> None:
    script = (
        "import sys, torch_bregman as tb; tb.Conf(); assert 'torch' not in sys.modules; "
        "tb.density, tb.models, tb.LinBreg; from torch_bregman import *; print(L1(0.1))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "L1(lam=0.1)\n"


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    data = tb.data.load("sample")
    x, y = tb.data.normalize(data.train, data.mean, data.std)
    return x[::10], y[::10]


def losses(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """The losses of thirty steps as a user writes them."""
    seen = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    return seen


def test_the_lines_of_the_readme(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tb.models.mlp([784, 200, 80, 10])
    tb.sparsify_(model, density=0.01, seed=0)
    assert tb.density(model) == pytest.approx(0.01)
    groups = tb.param_groups(model, {nn.Linear: tb.L1(lam=0.1), nn.Conv2d: tb.GroupL2(lam=0.1, view="kernels")})
    optimizer = tb.LinBreg(groups, lr=0.1, momentum=0.9, nesterov=True)
    seen = losses(model, optimizer, *batch)
    assert seen[-1] < 0.5 * seen[0]
    assert 0.01 < tb.density(model) < 0.2


def test_one_regulariser_for_all_parameters(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tb.sparsify_(tb.models.mlp([784, 200, 80, 10]), density=0.05, seed=0)
    optimizer = tb.LinBreg(model.parameters(), lr=0.1, regularizer=tb.L1(0.1), delta=1.0)
    seen = losses(model, optimizer, *batch)
    assert seen[-1] < seen[0]
    assert [group["lam"] for group in optimizer.param_groups] == [0.1]
    assert tb.density(model) < 0.5
