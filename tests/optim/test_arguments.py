"""Wrong arguments are refused when the optimizer is built, with the value, the range and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb

INF, NAN = float("inf"), float("nan")
ALL = (tb.LinBreg, tb.AdaBreg, tb.ProxSGD, tb.PGD)
MIRROR = (tb.LinBreg, tb.AdaBreg)
MOMENTUM = (tb.LinBreg, tb.ProxSGD)

WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (ALL, {"lr": -0.1}, r"lr must be a finite number >= 0, got -0\.1"),
    (ALL, {"lr": NAN}, r"lr must be a finite number >= 0, got nan"),
    (ALL, {"lr": INF}, r"lr must be a finite number >= 0, got inf"),
    (ALL, {"lr": None}, r"lr must be a finite number >= 0, got None"),
    (ALL, {"lr": "fast"}, r"lr must be a finite number >= 0, got 'fast'"),
    (ALL, {"lr": torch.tensor(-1.0)}, r"lr must be a finite number >= 0, got tensor\(-1\.\)"),
    (ALL, {"lr": torch.ones(2)}, r"lr must be a finite number >= 0, got tensor\(\[1\., 1\.\]\)"),
    (ALL, {"regularizer": "l1"}, r"regularizer must be a Regularizer such as L1\(0\.1\), got 'l1'"),
    (ALL, {"regularizer": tb.L1}, r"regularizer must be a Regularizer such as L1\(0\.1\), got <class"),
    (MIRROR, {"delta": 0.0}, r"delta must be a finite number > 0, got 0\.0"),
    (MIRROR, {"delta": -1}, r"delta must be a finite number > 0, got -1"),
    (MIRROR, {"delta": INF}, r"delta must be a finite number > 0, got inf"),
    ((*MIRROR, tb.ProxSGD), {"weight_decay": -1e-4}, r"weight_decay must be a finite number >= 0, got -0\.0001"),
    ((*MIRROR, tb.ProxSGD), {"foreach": True, "fused": True}, r"exclude each other: leave one of them unset"),
    (MOMENTUM, {"momentum": -0.1}, r"momentum must be a finite number >= 0, got -0\.1"),
    (MOMENTUM, {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1\.0"),
    (MOMENTUM, {"momentum": 0.9, "dampening": 1.1}, r"dampening must lie in \[0, 1\], got 1\.1"),
    (MOMENTUM, {"momentum": 0.9, "dampening": -1}, r"dampening must be a finite number >= 0, got -1"),
    (MOMENTUM, {"momentum": 0.9, "dampening": NAN}, r"dampening must be a finite number >= 0, got nan"),
    (MOMENTUM, {"nesterov": True}, r"nesterov needs momentum > 0 .*got momentum 0\.0.*set momentum=0\.9"),
    (MOMENTUM, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, r"got momentum 0\.9 and dampening 0\.5: set"),
    ((tb.LinBreg,), {"accelerated": True, "momentum": 0.9}, r"got momentum 0\.9 .*or set accelerated=False"),
    ((tb.LinBreg,), {"accelerated": True, "dampening": 0.5}, r"dampening 0\.5: leave both at 0"),
    ((tb.AdaBreg,), {"betas": (1.0, 0.999)}, r"beta1 must lie in \[0, 1\), got 1\.0"),
    ((tb.AdaBreg,), {"betas": (0.9, -0.1)}, r"beta2 must lie in \[0, 1\), got -0\.1"),
    ((tb.AdaBreg,), {"betas": 0.9}, r"betas must be two numbers in \[0, 1\) such as \(0\.9, 0\.999\), got 0\.9"),
    ((tb.AdaBreg,), {"betas": (0.9,)}, r"betas must be two numbers in \[0, 1\).*got \(0\.9,\)"),
    ((tb.AdaBreg,), {"eps": -1e-8}, r"eps must be a finite number >= 0, got -1e-08"),
    ((tb.AdaBreg,), {"lr": torch.tensor(0.1), "foreach": True}, r"pass a float, or leave foreach unset"),
    ((tb.PGD,), {"backtracking": 0.0}, r"backtracking must be a finite number > 0, got 0\.0"),
    ((tb.PGD,), {"backtracking": 1.5}, r"backtracking must lie in \(0, 1\], got 1\.5: 1 switches it off"),
]
CASES = [(kind, arguments, message) for kinds, arguments, message in WRONG for kind in kinds]


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"), CASES, ids=[f"{kind.__name__}-{arguments}" for kind, arguments, _ in CASES]
)
def test_refused_as_an_argument_and_as_a_number_of_a_group(kind: Any, arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        kind(weights(), **arguments)
    assert "\n" not in str(caught.value)
    optimizer = kind(weights())
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": weights(), **arguments})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("lam", [-0.1, NAN, INF])
def test_a_wrong_lam_is_refused(kind: Any, lam: float):
    with pytest.raises(ValueError, match=r"lam must be a finite number >= 0, got .*: 0 switches"):
        kind([{"params": weights(), "lam": lam}], regularizer=tb.L1(0.1))
    if kind in MIRROR:
        optimizer = kind(weights(), regularizer=tb.L1(0.1))
        with pytest.raises(ValueError, match="lam must be a finite number >= 0"):
            optimizer.set_lam(lam)
        assert optimizer.param_groups[0]["lam"] == 0.1


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda: "adam", r"needs an optimizer such as torch\.optim\.RMSprop\(\.\.\.\), got 'adam'"),
        (lambda: tb.LinBreg(weights()), r"cannot wrap LinBreg, which has a regulariser already: use it as it is"),
        (lambda: torch.optim.LBFGS(weights()), r"cannot run LBFGS, which evaluates .*use PGD"),
        (lambda: torch.optim.ASGD(weights()), r"cannot run ASGD on dual variables: it averages weights.*use RMSprop"),
        (lambda: torch.optim.SparseAdam(weights()), r"cannot run SparseAdam .*sparse gradients only"),
        (lambda: stepped(torch.optim.Adam), r"needs a fresh optimizer, this Adam has taken steps: build a new one"),
        (lambda: stepped(torch.optim.Adagrad), r"this Adagrad has taken steps"),
        (lambda: stepped(torch.optim.SGD, momentum=0.9), r"this SGD has taken steps"),
    ],
    ids=["no optimizer", "LinBreg", "LBFGS", "ASGD", "SparseAdam", "used Adam", "used Adagrad", "used SGD"],
)
def test_bases_that_bregman_cannot_run(base: Any, message: str):
    with pytest.raises(ValueError, match=message):
        tb.Bregman(base())


def stepped(kind: Any, **options: Any) -> torch.optim.Optimizer:
    params = weights()
    optimizer = kind(params, lr=0.1, **options)
    params[0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("delta", [0.0, -1.0, NAN])
def test_bregman_checks_its_own_numbers(delta: float):
    with pytest.raises(ValueError, match="delta must be a finite number > 0"):
        tb.Bregman(torch.optim.Adam(weights()), delta=delta)
    with pytest.raises(ValueError, match="regularizer must be a Regularizer"):
        tb.Bregman(torch.optim.Adam(weights()), regularizer="l1")  # pyright: ignore[reportArgumentType]


def test_pgd_without_a_closure_is_refused():
    with pytest.raises(ValueError, match=r"evaluates the loss more than once a step: call step\(closure\)"):
        tb.PGD(weights()).step()


def test_negative_weights_are_refused_by_a_penalty_that_has_none():
    weight = nn.Parameter(torch.tensor([1.0, -0.5]))
    optimizer = tb.LinBreg([weight], regularizer=tb.NonNegativeL1(0.1))
    weight.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"cannot start at negative weights, got a smallest entry of -0\.5: .*abs_"):
        optimizer.step()
    assert torch.equal(weight.detach(), torch.tensor([1.0, -0.5]))
