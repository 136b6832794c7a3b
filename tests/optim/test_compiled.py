"""The compiled step: the numbers and the state of the eager one, compiled once."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.optim.compiled import MIRRORS

SHAPES = [(6, 5), (6,), (), (4, 3, 2, 2), (0, 3)]
Build = Callable[..., torch.optim.Optimizer]

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile on a CPU needs g++ or clang++",
)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


class Run:
    """An optimizer over small parameters, fed with the same random gradients in every run."""

    def __init__(self, kind: Build, regularizer: tb.Regularizer, dtype: torch.dtype = torch.float64, **options: Any):
        generator = torch.Generator().manual_seed(1)
        draws = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
        self.params = [nn.Parameter(draw.to(dtype)) for draw in draws]
        self.optimizer = kind(self.params, lr=0.05, regularizer=regularizer, **options)
        self.draw = torch.Generator().manual_seed(2)

    def step(self, steps: int = 1) -> Run:
        """Take steps, all with another lr and another λ."""
        group = self.optimizer.param_groups[0]
        for _ in range(steps):
            for param in self.params:
                grad = torch.randn(param.shape, generator=self.draw, dtype=torch.float64)
                param.grad = (grad + 1).to(param.dtype)
            group["lr"], group["lam"] = 0.9 * group["lr"], 1.1 * group["lam"]
            self.optimizer.step()
        return self

    def weights(self) -> list[torch.Tensor]:
        return [param.detach().clone() for param in self.params]

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()


def assert_same(run: Run, other: Run) -> None:
    torch.testing.assert_close(run.weights(), other.weights(), rtol=1e-9, atol=1e-12)
    ours, theirs = run.state(), other.state()
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in ours["state"].items():
        assert list(state) == list(theirs["state"][index])
        torch.testing.assert_close(state, theirs["state"][index], rtol=1e-9, atol=1e-12)
    differing = {key for key, value in ours["param_groups"][0].items() if value != theirs["param_groups"][0][key]}
    assert differing <= {"compiled"}


NESTEROV = {"momentum": 0.9, "nesterov": True}
L1 = tb.L1(0.1)


@needs_compiler
def test_it_agrees_with_the_eager_step_and_compiles_once():
    eager, compiled = Run(tb.LinBreg, L1, **NESTEROV), Run(tb.LinBreg, L1, **NESTEROV, compiled=True)
    assert_same(eager.step(), compiled.step())
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_same(eager.step(10), compiled.step(10))
        assert any((weight == 0).any() for weight in compiled.weights()), "the penalty must have shown"
        compiled.params[0].grad = None
        with pytest.raises(torch._dynamo.exc.RecompileError):
            compiled.optimizer.step()


@pytest.mark.slow
@needs_compiler
def test_checkpoints_move_between_the_eager_and_the_compiled_step():
    start = Run(tb.AdaBreg, L1, compiled=True).step(3)
    buffer = io.BytesIO()
    torch.save(start.state(), buffer)
    runs = []
    for compiled in (False, True):
        run = Run(tb.AdaBreg, L1, compiled=compiled)
        for param, weight in zip(run.params, start.weights(), strict=True):
            param.detach().copy_(weight)
        buffer.seek(0)
        run.optimizer.load_state_dict(torch.load(buffer, weights_only=True))
        assert run.optimizer.param_groups[0]["compiled"] is compiled
        runs.append(run.step(3))
    assert_same(*runs)
    back = Run(tb.AdaBreg, L1, compiled=True)
    back.optimizer.load_state_dict(runs[0].state())
    assert back.optimizer.param_groups[0]["compiled"] is True


@needs_compiler
def test_a_step_without_length_moves_nothing_and_copies_start_afresh():
    run = Run(tb.LinBreg, L1, compiled=True).step(2)
    before = run.weights()
    twin = copy.deepcopy(run)
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.step()
    assert all(map(torch.equal, before, run.weights()))
    eager = Run(tb.LinBreg, L1).step(3)
    assert_same(eager, twin.step())


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (tb.LinBreg, {}),
        (tb.LinBreg, {"momentum": 0.9, "dampening": 0.9, "delta": 2.0}),
        (tb.LinBreg, {**NESTEROV, "maximize": True, "weight_decay": 0.1}),
        (tb.AdaBreg, {"delta": 0.5, "weight_decay": 0.1}),
        (tb.AdaBreg, {"amsgrad": True, "maximize": True}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or ",".join(value) or "plain",
)
@pytest.mark.parametrize(
    "regularizer", [tb.NoRegularizer(), L1, tb.NonNegativeL1(0.1), tb.ElasticNet(0.1, 0.3)], ids=lambda r: r.name
)
def test_every_option_agrees_with_the_eager_step(kind: Build, options: dict[str, Any], regularizer: tb.Regularizer):
    eager, compiled = Run(kind, regularizer, **options), Run(kind, regularizer, **options, compiled=True)
    assert_same(eager.step(5), compiled.step(5))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
def test_half_precision_weights_keep_a_dual_in_single_precision(kind: Build):
    eager, compiled = (Run(kind, L1, dtype=torch.bfloat16, compiled=value).step(5) for value in (False, True))
    torch.testing.assert_close(eager.weights(), compiled.weights(), rtol=2**-7, atol=1e-6)
    states = compiled.optimizer.state.values()
    assert {state["subgrad"].dtype for state in states} == {torch.float32}


@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
@pytest.mark.parametrize("regularizer", [tb.SparseGroup(0.1), tb.Nuclear(0.1)], ids=lambda r: r.name)
def test_other_regularisers_are_refused_by_name(kind: Build, regularizer: tb.Regularizer):
    with pytest.raises(ValueError, match=rf"elementwise .*got {type(regularizer).__name__}.*compiled=False"):
        Run(kind, regularizer, compiled=True)


def test_accelerated_is_refused():
    with pytest.raises(ValueError, match="accelerated=True does not go with compiled=True"):
        Run(tb.LinBreg, L1, accelerated=True, compiled=True)


@pytest.mark.parametrize("regularizer", [tb.NoRegularizer(), L1, tb.NonNegativeL1(0.3), tb.ElasticNet(0.7, 0.3)])
def test_the_formulas_are_those_of_the_regularisers(regularizer: tb.Regularizer):
    v, delta, lam = torch.linspace(-3, 3, 61, dtype=torch.float64), 1.7, 0.6
    tensors = torch.tensor([delta, lam], dtype=torch.float64)
    theta = MIRRORS[type(regularizer)](regularizer, v, *tensors)
    torch.testing.assert_close(theta, regularizer.mirror(v, delta, lam=lam))
