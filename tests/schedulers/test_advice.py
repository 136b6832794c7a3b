"""Advice before training, scores of sleeping weights, and when they woke."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.schedulers import EntryTimes, waking_scores

FIXED: dict[str, Callable[..., Any]] = {
    "plain": lambda ps, reg: tb.LinBreg(ps, lr=0.05, regularizer=reg),
    "momentum": lambda ps, reg: tb.LinBreg(ps, lr=0.05, momentum=0.5, regularizer=reg),
    "dampened": lambda ps, reg: tb.LinBreg(ps, lr=0.05, momentum=0.5, dampening=0.5, regularizer=reg),
    "adabreg": lambda ps, reg: tb.AdaBreg(ps, lr=0.01, regularizer=reg),
    "adam": lambda ps, reg: tb.Bregman(torch.optim.Adam(ps, lr=0.01), regularizer=reg),
}


class Linear(nn.Module):
    """A model whose gradient stays: the loss is linear in the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


SLOPE = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def loss(output: Tensor, target: Tensor) -> Tensor:
    return (output * target).sum()


@pytest.mark.parametrize("regularizer", [tb.L1(1.0), tb.GroupL2(1.0), tb.SparseGroup(1.0), tb.Nuclear(1.0)])
@pytest.mark.parametrize("name", FIXED)
def test_the_first_weights_wake_when_it_says(name: str, regularizer: Any) -> None:
    model = Linear()
    optimizer = FIXED[name]([model.weight], regularizer)
    advice = tb.suggest_lam(model, loss, (torch.ones(4, 3), SLOPE), optimizer, steps=500)[0]
    assert model.weight.grad is None
    steps = 0
    while not model.weight.any():
        optimizer.zero_grad()
        loss(model(torch.ones(4, 3)), SLOPE).backward()
        optimizer.step()
        steps += 1
    assert steps == pytest.approx(advice.first, abs=2 if name == "momentum" else 1)
    assert f"wake after about {advice.first:.0f} steps" in str(advice)


def test_at_the_silent_lam_nothing_wakes_and_just_below_something_does() -> None:
    for factor, wakes in ((1.001, False), (0.98, True)):
        model = Linear()
        optimizer = tb.LinBreg([model.weight], lr=0.05, regularizer=tb.L1(1.0))
        silent = tb.suggest_lam(model, loss, (torch.ones(4, 3), SLOPE), optimizer, steps=100)[0].silent
        optimizer.param_groups[0]["lam"] = factor * silent
        for _ in range(100):
            optimizer.zero_grad()
            loss(model(torch.ones(4, 3)), SLOPE).backward()
            optimizer.step()
        assert bool(model.weight.any()) == wakes


@pytest.mark.parametrize(("name", "expected"), [("plain", 1e-3), ("adabreg", 1.0)])
def test_linbreg_follows_the_size_of_gradients_and_adabreg_does_not(name: str, expected: float) -> None:
    model = Linear()
    optimizer = FIXED[name]([model.weight], tb.L1(1.0))
    one, other = (
        tb.suggest_lam(model, loss, (torch.ones(4, 3), scale * SLOPE), optimizer)[0].suggested for scale in (1, 1e-3)
    )
    assert other == pytest.approx(expected * one)


def test_where_no_gradient_arrives_it_says_so() -> None:
    model = Linear()
    optimizer = tb.LinBreg([model.weight], lr=0.05, regularizer=tb.L1(1.0))
    advice = tb.suggest_lam(model, loss, (torch.ones(4, 3), torch.zeros(4, 3)), optimizer)[0]
    assert advice.first == math.inf
    assert "so nothing wakes, ever" in str(advice)


def test_wrong_arguments_are_refused() -> None:
    model = Linear()
    batch = (torch.ones(4, 3), SLOPE)
    with pytest.raises(ValueError, match="needs a Bregman optimizer, got ProxSGD"):
        tb.suggest_lam(model, loss, batch, tb.ProxSGD([model.weight], regularizer=tb.L1(1.0)))
    with pytest.raises(ValueError, match="needs a group with a regularizer"):
        tb.suggest_lam(model, loss, batch, tb.LinBreg([model.weight]))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        tb.suggest_lam(model, loss, batch, tb.LinBreg([model.weight], regularizer=tb.L1(1.0)), steps=0)
    with pytest.raises(ValueError, match="a gradient with nan"):
        tb.suggest_lam(model, loss, (batch[0], SLOPE * math.nan), tb.LinBreg([model.weight], regularizer=tb.L1(1.0)))


@pytest.mark.parametrize("regularizer", [tb.L1(0.5), tb.GroupL2(0.5), tb.Nuclear(0.5)])
def test_scores_above_one_are_awake(regularizer: Any) -> None:
    weight = nn.Parameter(torch.zeros(6, 4))
    optimizer = tb.LinBreg([weight], lr=0.5, regularizer=regularizer)
    weight.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    scores = waking_scores(optimizer, weight)
    if isinstance(regularizer, tb.Nuclear):
        assert int((scores > 1).sum()) == int(torch.linalg.matrix_rank(weight.detach()))
    else:
        assert torch.equal(regularizer.spread(scores > 1, weight.detach()), weight != 0)


def test_scores_need_a_weight_that_can_sleep() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="no parameter of this optimizer"):
        waking_scores(tb.LinBreg([weight], regularizer=tb.L1(0.1)), nn.Parameter(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="with lam = 0 nothing sleeps"):
        waking_scores(tb.LinBreg([weight], regularizer=tb.L1(0.0)), weight)


def test_entry_times_go_on_from_a_checkpoint() -> None:
    def build() -> tuple[nn.Parameter, Any, EntryTimes]:
        weight = nn.Parameter(torch.zeros(5, 4))
        optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
        return weight, optimizer, EntryTimes(optimizer, every=2)

    def train(weight: nn.Parameter, optimizer: Any, times: EntryTimes, steps: int) -> None:
        for _ in range(steps):
            weight.grad = torch.linspace(-2, 2, 20).view(5, 4)
            optimizer.step()
            times.step()

    weight, optimizer, times = build()
    train(weight, optimizer, times, 5)
    state, saved, values = times.state_dict(), optimizer.state_dict(), weight.detach().clone()
    other, its, theirs = build()
    with torch.no_grad():
        other.copy_(values)
    its.load_state_dict(saved)
    theirs.load_state_dict(state)
    for part in ((weight, optimizer, times), (other, its, theirs)):
        train(*part, 7)
    assert torch.equal(times.of(weight), theirs.of(other))
    woken = times.of(weight)
    assert set(woken.flatten().tolist()) == {4, 6, 8, 10, 12, -1} & set(woken.flatten().tolist())
    assert torch.equal(woken >= 0, weight != 0)
    with pytest.raises(ValueError, match="every must be a whole number of steps >= 1, got 0"):
        EntryTimes(optimizer, every=0)
    with pytest.raises(ValueError, match="has no entry times"):
        times.of(other)
