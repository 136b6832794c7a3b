"""Cycles of coarse steps on a frozen support, and a fine one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb

from .zoo import Problem, packed, same

VARIANTS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.8, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "weight_decay": 0.1, "delta": 2.0},
    {"maximize": True},
]
GROUPS = [tb.L1(0.05), tb.GroupL2(0.05, view="columns"), tb.SparseGroup(0.05, view="rows"), tb.UnitL2(0.05, "0")]


def gradients(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse_weight(regularizer: Any = None, seed: int = 5) -> nn.Parameter:
    weight = gradients(1, (5, 6), seed)[0]
    weight[1:3] = weight[:, 2:5] = 0
    return nn.Parameter(weight)


def drive(weight: nn.Parameter, optimizer: torch.optim.Optimizer, grads: Tensor) -> None:
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("regularizer", GROUPS, ids=lambda each: each.name)
def test_without_coarse_steps_it_is_linbreg_bit_for_bit(options: dict[str, Any], regularizer: Any):
    runs = []
    for build in (tb.LinBreg, lambda *a, **k: tb.MultilevelLinBreg(*a, m=0, **k)):
        weight = sparse_weight()
        optimizer = build([weight], lr=0.1, regularizer=regularizer, **options)
        drive(weight, optimizer, gradients(12, weight.shape))
        runs.append((weight.detach(), optimizer.state[weight]["subgrad"]))
    assert same(*runs)
    assert "awake" not in optimizer.state[weight]


def reference(theta: np.ndarray, grads: np.ndarray, lam: float, lr: float, m: int, **options: Any) -> np.ndarray:
    """ℓ1 as the definition has it, entry by entry in numpy."""
    mu, damp = options.get("momentum", 0.0), options.get("dampening", 0.0)
    delta, decay = options.get("delta", 1.0), options.get("weight_decay", 0.0)
    sign = -1.0 if options.get("maximize") else 1.0
    v, b, awake = theta / delta + lam * np.sign(theta), np.zeros_like(theta), theta != 0
    for k, raw in enumerate(grads):
        g, fine = sign * raw, k % (m + 1) == m
        v = np.where(awake, v - lr * decay * theta, v)
        b = np.where(awake, mu * b + (1 - damp) * g, 0.0)
        d = g if mu == 0 else g + mu * b if options.get("nesterov") else b
        v = np.where(awake, v - lr * d, v - fine * lr * (1 - damp) / (1 - mu) * g)
        if fine:
            awake = np.abs(v) > lam
            b = b * awake
        theta = awake * delta * np.sign(v) * np.maximum(np.abs(v) - lam, 0)
    return theta


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("m", [1, 3])
def test_it_does_what_the_definition_says(m: int, options: dict[str, Any]):
    weight, grads = sparse_weight(), gradients(17, (5, 6))
    expected = reference(weight.detach().numpy().copy(), grads.numpy(), 0.3, 0.2, m, **options)
    optimizer = tb.MultilevelLinBreg([weight], lr=0.2, regularizer=tb.L1(0.3), m=m, **options)
    drive(weight, optimizer, grads)
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=1e-12)
    assert 0 < np.count_nonzero(expected) < expected.size
    assert optimizer.mirror_residual() < 1e-12


@given(st.integers(1, 4), st.integers(0, 3), st.sampled_from(GROUPS))
@settings(max_examples=25, deadline=None)
def test_coarse_steps_leave_what_sleeps_alone(m: int, seed: int, regularizer: Any):
    weight = sparse_weight(seed=seed)
    optimizer = tb.MultilevelLinBreg([weight], lr=0.1, momentum=0.9, regularizer=regularizer, m=m)
    drive(weight, optimizer, gradients(1 + m, weight.shape, seed))  # up to the first fine step
    state = optimizer.state[weight]
    for grad in gradients(m, weight.shape, seed + 1):
        assert not optimizer.fine
        before, awake = state["subgrad"].clone(), state["awake"].clone()
        drive(weight, optimizer, grad[None])
        assert torch.equal(state["awake"], awake)
        assert torch.equal(state["subgrad"][~awake], before[~awake])
        assert not weight.detach()[~awake].any()
        assert not state["momentum_buffer"][~awake].any()
    assert optimizer.fine


def test_a_weight_may_become_zero_and_come_back_within_a_cycle():
    weight = nn.Parameter(torch.tensor([0.1, 0.0], dtype=torch.float64))
    optimizer = tb.MultilevelLinBreg([weight], lr=1.0, regularizer=tb.L1(1.0), m=5)
    seen = []
    for grad in (0.3, 0.3, -0.8):
        drive(weight, optimizer, torch.tensor([[grad, 9.0]], dtype=torch.float64))
        seen.append(float(weight.detach()[0]))
    assert seen == pytest.approx([0.0, 0.0, 0.3])
    assert float(weight.detach()[1]) == 0


def test_groups_that_wake_start_short():
    weight = nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    rule = tb.GroupL2(0.5, view="columns")
    optimizer = tb.MultilevelLinBreg([weight], lr=1.0, regularizer=rule, m=1, clip=1.2)
    drive(weight, optimizer, torch.full((2, 2, 2), 5.0, dtype=torch.float64))
    v = optimizer.state[weight]["subgrad"]
    assert float(v[:, 1].norm()) == pytest.approx(1.2 * 0.5 * 2**0.5)
    assert float(v[:, 0].norm()) > 5  # what was awake is not shortened
    assert weight.detach()[:, 1].all()


def test_a_lower_lam_wakes_nothing_before_the_fine_step():
    weight = sparse_weight()
    optimizer = tb.MultilevelLinBreg([weight], lr=0.1, regularizer=tb.L1(5.0), m=3)
    drive(weight, optimizer, gradients(5, weight.shape))
    awake = optimizer.state[weight]["awake"].clone()
    optimizer.param_groups[0]["lam"] = 1e-9
    drive(weight, optimizer, gradients(2, weight.shape, 1))
    assert not weight.detach()[~awake].any()
    assert (optimizer.state[weight]["subgrad"][~awake] != 0).any()
    assert optimizer.mirror_residual() < 1e-12
    drive(weight, optimizer, gradients(1, weight.shape, 2))
    assert bool(weight.detach().all())


@pytest.mark.parametrize("regularizer", GROUPS, ids=lambda each: each.name)
def test_it_goes_on_bit_for_bit_from_the_middle_of_a_cycle(regularizer: Any):
    problem = Problem(dtype=torch.float64)
    optimizer = tb.MultilevelLinBreg(problem.groups(regularizer), lr=0.1, momentum=0.9, nesterov=True, m=4)
    problem.step(optimizer, 7)
    optimizer.param_groups[0]["lam"] *= 0.5  # as a controller does
    problem.step(optimizer, 1)
    other = Problem(dtype=torch.float64)
    again = tb.MultilevelLinBreg(other.groups(regularizer), lr=0.1, momentum=0.9, nesterov=True, m=4)
    other.model.load_state_dict(problem.model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.phase == optimizer.phase == 3
    for each in (problem, other):
        each.step(optimizer if each is problem else again, 9)
    assert same(problem.values(), other.values())
    for (name, left), (_, right) in zip(packed(optimizer), packed(again), strict=True):
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right, name


def test_it_takes_up_a_checkpoint_of_linbreg():
    problem = Problem()
    plain = tb.LinBreg(problem.groups(tb.L1(0.1)), lr=0.1, momentum=0.9)
    problem.step(plain, 5)
    optimizer = tb.MultilevelLinBreg(problem.groups(tb.L1(0.1)), lr=0.1, momentum=0.9, m=2)
    optimizer.load_state_dict(plain.state_dict())
    problem.step(optimizer, 6)
    assert optimizer.mirror_residual() < 1e-6


def test_units_that_tensors_share_sleep_and_wake_together():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    rules = tb.incoming_groups(model, torch.zeros(1, 4, dtype=torch.float64), lam=0.3)
    with torch.no_grad():
        model[0].weight[2:].zero_()
        model[0].bias[2:].zero_()
    optimizer = tb.MultilevelLinBreg(tb.param_groups(model, rules), lr=0.5, momentum=0.5, m=2)
    for seed in range(9):
        x = gradients(8, (4,), seed)
        optimizer.zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        model[0].weight.grad += 0.3  # what a ReLU holds back
        optimizer.step()
        weight, bias = model[0].weight, model[0].bias
        awake = optimizer.state[weight]["awake"].any(1)
        assert torch.equal(awake, optimizer.state[bias]["awake"])
        assert not weight.detach()[~awake].any()
    assert bool(awake[2:].any())
    assert optimizer.mirror_residual() < 1e-12


def test_slices_of_no_unit_move_at_every_step():
    weight = nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimizer = tb.MultilevelLinBreg([weight], lr=1.0, regularizer=tb.UnitL2(9.0, ["0:0,1,."]), m=3)
    drive(weight, optimizer, torch.ones(1, 3, 2, dtype=torch.float64))
    assert weight.detach().tolist() == [[0, 0], [0, 0], [-1, -1]]


def test_weights_without_a_regulariser_are_trained_by_sgd():
    weight, twin = sparse_weight(), sparse_weight()
    drive(weight, tb.MultilevelLinBreg([weight], lr=0.1, momentum=0.9, m=3), gradients(6, weight.shape))
    drive(twin, torch.optim.SGD([twin], lr=0.1, momentum=0.9), gradients(6, weight.shape))
    torch.testing.assert_close(weight, twin, rtol=0, atol=1e-14)


def test_weights_changed_by_other_hands_start_a_support_anew():
    weight = sparse_weight()
    optimizer = tb.MultilevelLinBreg([weight], lr=0.1, regularizer=tb.L1(0.5), m=8)
    drive(weight, optimizer, gradients(2, weight.shape))
    with torch.no_grad():
        weight[1, 3] = 2.0
    with pytest.warns(UserWarning, match="started anew"):
        drive(weight, optimizer, gradients(1, weight.shape))
    assert bool(optimizer.state[weight]["awake"][1, 3])
    assert float(weight.detach()[1, 3]) != 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": -1}, "m must be a whole number >= 0, got -1"),
        ({"m": 2.5}, "m must be a whole number >= 0, got 2.5"),
        ({"clip": 1.0}, "clip must be a finite number > 1, got 1.0"),
        ({"accelerated": True}, "accelerated=True does not go with m 25"),
        ({"compiled": True}, "compiled=True does not go with m 25"),
        ({"regularizer": tb.Nuclear(0.1)}, "under nuclear no entries or groups are asleep"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        tb.MultilevelLinBreg([sparse_weight()], **options)


def test_all_groups_have_one_cycle():
    optimizer = tb.MultilevelLinBreg([sparse_weight()], m=3)
    drive(optimizer.param_groups[0]["params"][0], optimizer, gradients(2, (5, 6)))
    optimizer.add_param_group({"params": [sparse_weight()]})
    assert [group["phase"] for group in optimizer.param_groups] == [2, 2]
    with pytest.raises(ValueError, match="m must be the same for all groups, got 4 beside 3"):
        optimizer.add_param_group({"params": [sparse_weight()], "m": 4})
