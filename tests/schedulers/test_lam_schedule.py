"""λ by calendar: weights stay where they are, λ goes where it should, and a checkpoint goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.schedulers import LamSchedule

MIRRORS: dict[str, Callable[..., Any]] = {
    "linbreg": lambda groups: tb.LinBreg(groups, lr=0.1, momentum=0.5, delta=2.0),
    "adabreg": lambda groups: tb.AdaBreg(groups, lr=0.05),
    "bregman": lambda groups: tb.Bregman(torch.optim.RMSprop(groups, lr=0.01)),
}
PRIMALS: dict[str, Callable[..., Any]] = {
    "proxsgd": lambda groups: tb.ProxSGD(groups, lr=0.1),
    "pgd": lambda groups: tb.PGD(groups),
}
REGULARIZERS = [tb.L1(0.3), tb.GroupL2(0.2), tb.Nuclear(0.4), tb.SparseGroup(0.2), tb.ElasticNet(0.3)]


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 5, generator=generator)) for _ in range(2)]


def loss(params: list[nn.Parameter]) -> Tensor:
    target = torch.linspace(-1, 1, 20).view(4, 5)
    return torch.stack([(param - target).square().sum() for param in params]).sum()


def train(optimizer: Any, params: list[nn.Parameter], steps: int) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(params)
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)


@pytest.mark.parametrize("name", MIRRORS | PRIMALS)
def test_lam_is_the_first_times_the_factor_in_every_group(name: str) -> None:
    one, other = weights()
    groups = [{"params": [one], "regularizer": tb.L1(0.4)}, {"params": [other], "regularizer": tb.GroupL2(0.2)}]
    optimizer = (MIRRORS | PRIMALS)[name](groups)
    schedule = LamSchedule(optimizer, lambda k: 1 / (1 + k))
    assert [group["lam"] for group in optimizer.param_groups] == [0.4, 0.2]
    for k in (1, 2, 3):
        train(optimizer, [one, other], 1)
        schedule.step()
        assert [group["lam"] for group in optimizer.param_groups] == pytest.approx([0.4 / (1 + k), 0.2 / (1 + k)])


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda each: each.name)
@pytest.mark.parametrize("name", MIRRORS)
def test_weights_do_not_move_and_are_still_the_image_of_their_duals(name: str, regularizer: Any) -> None:
    params = weights()
    optimizer = MIRRORS[name]([{"params": params, "regularizer": regularizer}])
    schedule = LamSchedule(optimizer, lambda k: 3 * 0.5**k)
    for _ in range(4):
        train(optimizer, params, 3)
        before = [param.detach().clone() for param in params]
        schedule.step()
        assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
        assert optimizer.mirror_residual() < 1e-5
        # a step that moves nothing shows that the next one starts from here
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        kept = copy.deepcopy(optimizer.state_dict())
        train(optimizer, params, 1)
        for param, old in zip(params, before, strict=True):
            torch.testing.assert_close(param.detach(), old, rtol=1e-4, atol=1e-5)
        optimizer.load_state_dict(kept)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def test_sleeping_weights_keep_their_memory_in_proportion() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(1.0))
    weight.grad = torch.tensor([-4.0, 2.0, 0.0])
    optimizer.step()
    schedule = LamSchedule(optimizer, lambda k: 0.5)
    schedule.step()
    assert torch.equal(weight, torch.zeros(3))
    torch.testing.assert_close(optimizer.state[weight]["subgrad"], torch.tensor([0.2, -0.1, 0.0]))


@pytest.mark.parametrize("name", MIRRORS | PRIMALS)
def test_a_checkpoint_goes_on_bit_for_bit(name: str) -> None:
    def build() -> tuple[list[nn.Parameter], Any, LamSchedule]:
        params = weights()
        optimizer = (MIRRORS | PRIMALS)[name]([{"params": params, "regularizer": tb.L1(0.3)}])
        return params, optimizer, LamSchedule(optimizer, lambda k: 0.8**k)

    whole, optimizer, schedule = build()
    for _ in range(2):
        train(optimizer, whole, 2)
        schedule.step()
    saved = copy.deepcopy(([param.detach() for param in whole], optimizer.state_dict(), schedule.state_dict()))
    params, other, its = build()
    with torch.no_grad():
        for param, value in zip(params, saved[0], strict=True):
            param.copy_(value)
    other.load_state_dict(saved[1])
    its.load_state_dict(saved[2])
    for each, of, calendar in ((whole, optimizer, schedule), (params, other, its)):
        for _ in range(2):
            train(of, each, 2)
            calendar.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, params, strict=True))
    assert optimizer.param_groups[0]["lam"] == other.param_groups[0]["lam"] == pytest.approx(0.3 * 0.8**4)
    assert schedule.state_dict() == its.state_dict() == {"steps": 4, "base": [0.3]}


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_factors_that_are_none_change_nothing(factor: float) -> None:
    optimizer = tb.LinBreg(weights(), regularizer=tb.L1(0.4))
    schedule = LamSchedule(optimizer, lambda k: factor)
    with pytest.raises(ValueError, match=r"must be a finite number >= 0, got "):
        schedule.step()
    assert optimizer.param_groups[0]["lam"] == 0.4
    assert schedule.steps == 0


def test_optimizers_without_lam_are_refused() -> None:
    with pytest.raises(ValueError, match="LamSchedule needs an optimizer of torch_bregman, got SGD"):
        LamSchedule(torch.optim.SGD(weights(), lr=0.1), lambda k: 1.0)  # type: ignore[arg-type]
