"""What training loops put around an optimizer: schedules, loss scaling, gradient clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import torch_bregman as tb

from .zoo import ROWS, Row, each, named, packed, same, start

STEPPING = [row for row in ROWS if row.kind is not tb.PGD]
WITH_MOMENTUM = [row for row in STEPPING if "momentum" in row.options or "ada" in row.name]
WITH_MOMENTUM = [row for row in WITH_MOMENTUM if row.kind.__name__ not in ("Adagrad", "Adadelta", "Adafactor")]


def run(row: Row, build: Any, steps: int = 8) -> tuple[Any, list[dict[str, Any]]]:
    """Train under a schedule; return the problem and the numbers in force at every step."""
    problem, optimizer = start(row, tb.L1(0.02))
    schedule, seen = build(optimizer), []
    for _ in range(steps):
        seen.append({key: optimizer.param_groups[0].get(key) for key in ("lr", "momentum", "betas", "lam")})
        problem.step(optimizer)
        if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            schedule.step(1.0)
        else:
            schedule.step()
    return problem, seen


@each(WITH_MOMENTUM)
@pytest.mark.parametrize("kind", ["one cycle", "cyclic"])
def test_schedules_that_cycle_momentum_or_betas(row: Row, kind: str):
    def build(optimizer: Any) -> Any:
        if kind == "one cycle":
            return lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=8)
        return lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.05, step_size_up=3, cycle_momentum=True)

    problem, seen = run(row, build)
    key = "betas" if seen[0]["betas"] is not None else "momentum"
    assert len({numbers[key] for numbers in seen}) > 2
    assert len({numbers["lr"] for numbers in seen}) > 2
    assert all(torch.isfinite(value).all() for value in problem.values())


def test_momentum_in_force_is_the_one_used():
    """Steps under a cycled momentum equal the recursion with that momentum written out."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = tb.LinBreg([weight], lr=0.1, momentum=0.9, regularizer=tb.L1(0.2))
    schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=6)
    v, buffer = torch.zeros(3), torch.zeros(3)
    for number in range(6):
        weight.grad = torch.tensor([0.5, -0.3, 0.1]) * (1 + number)
        group = optimizer.param_groups[0]
        buffer = group["momentum"] * buffer + weight.grad
        v = v - group["lr"] * buffer
        optimizer.step()
        schedule.step() if number < 5 else None
        torch.testing.assert_close(weight.detach(), v.sign() * (v.abs() - 0.2).clamp_min(0))


@each()
@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=8),
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: step / 8),
    ],
    ids=["cosine", "plateau", "warm-up from zero"],
)
def test_schedules_of_the_learning_rate(row: Row, build: Any):
    problem, seen = run(row, build)
    assert len({numbers["lr"] for numbers in seen}) > 2
    assert all(torch.isfinite(value).all() for value in problem.values())


@each(STEPPING)
def test_loss_scaling_skips_a_step_with_inf(row: Row):
    problem, optimizer = start(row, tb.L1(0.02))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for number in range(4):
        before, state = problem.values(), [(name, torch.as_tensor(v).clone()) for name, v in packed(optimizer)]
        optimizer.zero_grad()
        scaler.scale(problem.loss()).backward()
        spoilt = number in (0, 2)
        if spoilt:
            problem.params()[0].grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        assert same(problem.values(), before) == spoilt
        if spoilt:
            assert [name for name, _ in state] == [name for name, _ in packed(optimizer)]
            assert same([v for _, v in state], [torch.as_tensor(v) for _, v in packed(optimizer)])
    assert scaler.get_scale() == 2.0


@each(named("linbreg", "adabreg", "bregman-adam"))
def test_scaled_training_equals_unscaled(row: Row):
    (plain, first), (scaled, second) = start(row, tb.L1(0.02)), start(row, tb.L1(0.02))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(4):
        plain.step(first)
        second.zero_grad()
        scaler.scale(scaled.loss()).backward()
        scaler.unscale_(second)
        scaler.step(second)
        scaler.update()
    for a, b in zip(plain.values(), scaled.values(), strict=True):
        torch.testing.assert_close(a, b)


@each(STEPPING)
def test_averaged_weights_and_clipping_go_with_it(row: Row):
    problem, optimizer = start(row, tb.L1(0.02))
    average = torch.optim.swa_utils.AveragedModel(problem.model)
    for _ in range(3):
        optimizer.zero_grad()
        problem.loss().backward()
        torch.nn.utils.clip_grad_norm_(problem.params(), 0.1)
        optimizer.step()
        average.update_parameters(problem.model)
    assert all(torch.isfinite(value).all() for value in problem.values())
