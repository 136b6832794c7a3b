"""Without a regulariser every optimizer is the one it is named after, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb

from .zoo import OPTIONS, Problem, same

FLAGS = pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)
ASCENT = pytest.mark.parametrize("maximize", [False, True], ids=["down", "up"])
STEPS = 20


def twins(ours: Any, theirs: Any) -> tuple[Problem, Problem]:
    """Train two equal problems, one by each optimizer."""
    problems = Problem(), Problem()
    for problem, build in zip(problems, (ours, theirs), strict=True):
        problem.step(build(problem.model.parameters()), STEPS)
    return problems


@FLAGS
@ASCENT
@pytest.mark.parametrize("momentum", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str)
def test_linbreg_is_sgd(flags: dict[str, bool], maximize: bool, momentum: dict[str, Any]):
    options = {"lr": 0.02, "maximize": maximize, **momentum, **flags}
    a, b = twins(lambda p: tb.LinBreg(p, **options), lambda p: torch.optim.SGD(p, **options))
    assert same(a.values(), b.values())


@FLAGS
@ASCENT
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adabreg_is_adam(flags: dict[str, bool], maximize: bool, amsgrad: bool):
    options = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": amsgrad, "maximize": maximize, **flags}
    a, b = twins(lambda p: tb.AdaBreg(p, **options), lambda p: torch.optim.Adam(p, **options))
    assert same(a.values(), b.values())


@FLAGS
@ASCENT
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_proxsgd_is_sgd_decay_and_dampening_included(flags: dict[str, bool], maximize: bool, options: dict[str, Any]):
    options = {"lr": 0.02, "maximize": maximize, **options, **flags}
    a, b = twins(lambda p: tb.ProxSGD(p, **options), lambda p: torch.optim.SGD(p, **options))
    assert same(a.values(), b.values())


def test_pgd_without_backtracking_is_gradient_descent():
    a, b = twins(
        lambda p: tb.PGD(p, lr=0.05, accelerated=False, backtracking=1.0), lambda p: torch.optim.SGD(p, lr=0.05)
    )
    for x, y in zip(a.values(), b.values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


BASES = [
    (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.5}),
    (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "foreach": True}),
    (torch.optim.Adam, {"lr": 0.02, "amsgrad": True}),
    (torch.optim.Adam, {"lr": 0.02, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.0}),
    (torch.optim.RMSprop, {"lr": 0.02, "centered": True, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    (torch.optim.NAdam, {"lr": 0.02}),
    (torch.optim.RAdam, {"lr": 0.1}),
    (torch.optim.Adamax, {"lr": 0.02, "maximize": True}),
    (torch.optim.Adadelta, {"lr": 1.0}),
    (torch.optim.Adafactor, {"lr": 0.05}),
    (torch.optim.Rprop, {"lr": 0.01}),
]


@pytest.mark.parametrize(("kind", "options"), BASES, ids=[f"{kind.__name__}-{options}" for kind, options in BASES])
def test_bregman_is_its_base(kind: Any, options: dict[str, Any]):
    a, b = twins(lambda p: tb.Bregman(kind(p, **options)), lambda p: kind(p, **options))
    assert same(a.values(), b.values())


@pytest.mark.parametrize(
    ("kind", "options"), [base for base in BASES if base[0].__name__ != "Adafactor"], ids=lambda x: str(x)
)
def test_bregman_runs_its_base_on_duals_where_they_are_kept(kind: Any, options: dict[str, Any]):
    """J = 0 and δ = 2: θ = 2v, with v the base's own course under the same gradients."""
    draw = torch.Generator().manual_seed(0)
    theta, v = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.full((4, 3), 0.5))
    ours, theirs = tb.Bregman(kind([theta], **options), delta=2.0), kind([v], **options)
    for _ in range(STEPS):
        theta.grad = torch.randn(4, 3, generator=draw)
        v.grad = theta.grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(theta.detach(), 2 * v.detach(), rtol=1e-5, atol=1e-6)


HALVES = [
    (lambda p: tb.LinBreg(p, lr=0.01, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True)),
    (lambda p: tb.AdaBreg(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
    (lambda p: tb.Bregman(torch.optim.RMSprop(p, lr=0.01)), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    (lambda p: tb.Bregman(torch.optim.Adagrad(p, lr=0.01)), lambda p: torch.optim.Adagrad(p, lr=0.01)),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("ours", "theirs"), HALVES, ids=["linbreg", "adabreg", "bregman-rmsprop", "bregman-adagrad"])
def test_half_precision_weights_are_the_rounded_course_of_float32(ours: Any, theirs: Any, dtype: torch.dtype):
    """Steps far below the spacing of the halves still add up."""
    draw = torch.Generator().manual_seed(0)
    low = nn.Parameter(torch.randn(4, 3, generator=draw).to(dtype))
    master = nn.Parameter(low.detach().float())
    first, second = ours([low]), theirs([master])
    for _ in range(STEPS):
        low.grad = (torch.randn(4, 3, generator=draw) * 0.01 + 0.01).to(dtype)
        master.grad = low.grad.float()
        first.step()
        second.step()
        assert torch.equal(low.detach(), master.detach().to(dtype))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str)
def test_delta_without_a_regulariser_scales_the_step(options: dict[str, Any]):
    """θ = δv, so that v's step τ is a step δτ of θ; and decay reaches θ as torch's SGD has it."""
    a, b = twins(
        lambda p: tb.LinBreg(p, lr=0.02, delta=2.5, **options), lambda p: torch.optim.SGD(p, lr=0.05, **options)
    )
    for x, y in zip(a.values(), b.values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_decoupled_decay_without_a_regulariser_is_that_of_adamw():
    a, b = twins(
        lambda p: tb.AdaBreg(p, lr=0.02, weight_decay=0.3), lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3)
    )
    for x, y in zip(a.values(), b.values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_decay_of_a_base_is_taken_over_not_passed_on():
    """The base's own decay would pull v, the memory of sleeping weights, towards zero."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = tb.Bregman(torch.optim.SGD([weight], lr=0.1, weight_decay=0.5), regularizer=tb.L1(10.0))
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    for _ in range(5):
        weight.grad = torch.tensor([1.0, -2.0])
        optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["subgrad"], torch.tensor([-0.5, 1.0]))
    assert optimizer.base.param_groups[0]["weight_decay"] == 0.0


@pytest.mark.parametrize("regularizer", [tb.L1(2.0), tb.GroupL2(0.5), tb.SparseGroup(0.5), tb.Nuclear(1.0)], ids=str)
def test_the_first_steps_of_linbreg_and_proxsgd_from_zero_differ_in_the_threshold_only(regularizer: Any):
    """LinBreg thresholds −τg at λ, ProxSGD at τλ."""
    grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def first_step(kind: Any, **options: Any) -> Tensor:
        weight = nn.Parameter(torch.zeros(4, 3))
        optimizer = kind([weight], lr=0.25, regularizer=regularizer)
        optimizer.param_groups[0].update(options)
        weight.grad = grad.clone()
        optimizer.step()
        return weight.detach()

    ours = first_step(tb.LinBreg, lam=0.25 * regularizer.lam)
    torch.testing.assert_close(ours, first_step(tb.ProxSGD))
    assert ours.any()
    assert not torch.equal(first_step(tb.LinBreg), ours)
