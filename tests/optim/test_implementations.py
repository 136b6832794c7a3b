"""Torch's several ways to take the same step: the loop is the truth, the others must agree with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.optim import dual_step
from torch_bregman.regularizers import Regularizer

from .zoo import OPTIONS, REGULARIZERS, ROWS, Problem, Row, each, named, packed, pairs, start

SEVERAL = [row for row in ROWS if len(row.implementations) > 1]
OFTEN_COMPILED = named("linbreg-momentum", "adabreg")
SELDOM_COMPILED = [
    *named("linbreg", "linbreg-nesterov", "linbreg-accelerated", "adabreg-amsgrad-decay"),
    *named("proxsgd-momentum-decay", "bregman-rmsprop"),
]
# what importing dynamo and tracing an optimizer makes torch itself say
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*script_method.*"),
    pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace the builtin"),
]


def assert_same_run(a: tuple[Problem, Any], b: tuple[Problem, Any], rtol: float, atol: float) -> None:
    for x, y in zip(a[0].values(), b[0].values(), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)
    ours, theirs = packed(a[1]), packed(b[1])
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, x), (_, y) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("maximize", [False, True])
@pairs(rows=SEVERAL, regularizers=[tb.L1(0.03), tb.GroupL2(0.03), tb.NoRegularizer()])
def test_all_implementations_agree_state_included(row: Row, regularizer: Regularizer, maximize: bool):
    if row.name == "bregman-rprop" and regularizer.name != "none":
        pytest.skip("it follows the sign of gradients that are zero but for rounding")
    runs = []
    for name in row.implementations:
        problem, optimizer = start(row, regularizer, maximize=maximize, **OPTIONS[name])
        problem.step(optimizer, 3 if maximize else 8)
        runs.append((problem, optimizer))
    for other in runs[1:]:
        assert_same_run(runs[0], other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["linbreg-nesterov", "adabreg"])
def test_cutting_a_batch_into_cached_parts_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    runs = []
    for most in (1 << 17, 20, 1):
        monkeypatch.setattr(dual_step, "_CACHED", most)
        problem, optimizer = start(named(name)[0], tb.L1(0.03))
        problem.step(optimizer, 3)
        runs.append((problem, optimizer))
    for other in runs[1:]:
        assert_same_run(runs[0], other, rtol=0, atol=0)


def test_a_subclass_of_tensor_takes_the_loop(monkeypatch: pytest.MonkeyPatch):
    class Marked(nn.Parameter):
        pass

    flags = []
    moved = tb.LinBreg._move

    def spy(self: Any, batch: Any, foreach: bool | None, fused: bool | None) -> None:
        flags.append((foreach, fused))
        moved(self, batch, foreach, fused)

    monkeypatch.setattr(tb.LinBreg, "_move", spy)
    for weight in (nn.Parameter(torch.ones(2)), Marked(torch.ones(2))):
        weight.grad = torch.ones(2)
        tb.LinBreg([weight], lr=0.1, momentum=0.9).step()
    assert flags == [(False, True), (False, False)]


def compiled_against_eager(row: Row, regularizer: Regularizer, backend: str, steps: int = 5) -> None:
    torch._dynamo.reset()
    eager = start(row, regularizer)
    other, optimizer = copy.deepcopy(eager)
    step = torch.compile(lambda: optimizer.step(), backend=backend)
    for number in range(steps):
        if number == 3:
            eager[1].param_groups[0]["lr"] *= 0.5
            optimizer.param_groups[0]["lr"] *= 0.5
        for problem, clear in (eager, (other, optimizer)):
            clear.zero_grad()
            problem.loss().backward()
        eager[1].step()
        step()
    # torch's Adam counts and corrects in float32 when compiled
    assert_same_run(eager, (other, optimizer), rtol=2e-4, atol=2e-5)


@each(OFTEN_COMPILED)
def test_a_compiled_step_gives_the_same_numbers(row: Row):
    compiled_against_eager(row, tb.L1(0.03), "eager")


def test_a_compiled_step_without_regulariser_gives_the_same_numbers():
    compiled_against_eager(named("linbreg-nesterov")[0], tb.NoRegularizer(), "aot_eager")


@pytest.mark.slow
@each(SELDOM_COMPILED)
def test_a_compiled_step_of_the_others_gives_the_same_numbers(row: Row):
    compiled_against_eager(row, tb.L1(0.03), "eager")


@pytest.mark.slow
@each(OFTEN_COMPILED)
def test_a_step_compiled_by_inductor_gives_the_same_numbers(row: Row):
    compiled_against_eager(row, tb.L1(0.03), "inductor")


@pytest.mark.slow
@pairs(rows=named("linbreg-momentum", "adabreg-amsgrad-decay"), regularizers=REGULARIZERS[:-1])
def test_a_compiled_step_gives_the_same_numbers_for_every_pair(row: Row, regularizer: Regularizer):
    compiled_against_eager(row, regularizer, "aot_eager", steps=4)


def test_a_compiled_step_sees_weights_changed_by_other_hands():
    torch._dynamo.reset()
    problem, optimizer = start(named("linbreg-momentum")[0], tb.L1(0.03))
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for _ in range(4):
        problem.loss().backward()
        step()
    first = problem.params()[0]
    with torch.no_grad():
        first[0, 0] = 3.0
    optimizer.zero_grad()
    first.grad = torch.zeros_like(first)
    optimizer.param_groups[0]["momentum"] = 0.0
    with pytest.warns(UserWarning, match="weights were changed outside"):
        step()
    assert float(first.detach()[0, 0]) == pytest.approx(3.0, rel=1e-6)
