"""The dual variable: always mapped to the weights, the memory of those that sleep, and λ changed in mid-run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

from .zoo import REGULARIZERS, ROWS, Row, each, label, named, pairs

PENALTIES = [reg for reg in REGULARIZERS if reg.deterministic and reg.name != "none"]
MIRRORS = [row for row in ROWS if row.mirror]
PENALTY = pytest.mark.parametrize("regularizer", PENALTIES, ids=label)


def begin(regularizer: Regularizer, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Parameter:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[1] = values[:, 3] = values[2:, 4:] = 0
    return nn.Parameter((values.abs() if isinstance(regularizer, tb.NonNegativeL1) else values).to(dtype))


def steps(weight: nn.Parameter, optimizer: Any, times: int, seed: int = 1, scale: float = 0.1) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(times):
        weight.grad = (torch.randn(weight.shape, generator=draw, dtype=torch.float64) * scale).to(weight.dtype)
        optimizer.step()


lams = st.one_of(st.just(0.0), st.floats(1e-300, 1e-17), st.floats(1e-3, 2.0))
actions = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.floats(0.01, 3.0)),
        st.tuples(st.just("lam of the group"), lams),
        st.tuples(st.just("set_lam"), lams),
    ),
    min_size=1,
    max_size=8,
)


@PENALTY
@each(
    named("linbreg-nesterov", "linbreg-accelerated", "linbreg-delta-decay", "adabreg-amsgrad-decay", "bregman-rmsprop")
)
@given(actions=actions, seed=st.integers(0, 1000))
def test_weights_are_the_image_of_their_dual_whatever_happens(
    row: Row, regularizer: Regularizer, actions: list[tuple[str, float]], seed: int
):
    weight = begin(regularizer, seed=seed)
    optimizer = row.build([weight], regularizer)
    for number, (action, value) in enumerate(actions):
        if action == "step":
            steps(weight, optimizer, 2, seed=number, scale=value)
        elif action == "set_lam":
            optimizer.set_lam(value)
        else:
            optimizer.param_groups[0]["lam"] = value
        assert optimizer.mirror_residual() <= 1e-9
        group, state = optimizer.param_groups[0], optimizer.state.get(weight, {})
        if "subgrad" in state:
            image = regularizer.mirror(state["subgrad"], group["delta"], lam=state["lam"])
            torch.testing.assert_close(weight.detach(), image, rtol=1e-8, atol=1e-9)


def test_the_residual_tells_of_weights_changed_by_other_hands():
    weight = nn.Parameter(torch.ones(3))
    optimizer = tb.LinBreg([weight], regularizer=tb.L1(1.0))
    assert optimizer.mirror_residual() == 0.0
    weight.grad = torch.zeros(3)
    optimizer.step()
    assert optimizer.mirror_residual() == 0.0
    with torch.no_grad():
        weight[0] = 2.0
    assert optimizer.mirror_residual() == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.5, 1.0, 3.0, 100.0])
@pairs(rows=named("linbreg-momentum", "linbreg-delta-decay", "adabreg", "bregman-rmsprop"), regularizers=PENALTIES)
def test_set_lam_moves_no_weight_and_follows_its_formula(row: Row, regularizer: Regularizer, factor: float):
    """v ← θ/δ + (λ_new/λ_old)(v − θ/δ); the next step with a zero gradient moves nothing either."""
    weight = begin(regularizer)
    optimizer = row.build([weight], regularizer, weight_decay=0.0)
    steps(weight, optimizer, 3)
    delta, state = optimizer.param_groups[0]["delta"], optimizer.state[weight]
    theta, v = weight.detach().clone(), state["subgrad"].clone()
    lam = factor * regularizer.lam
    optimizer.set_lam(lam)
    assert optimizer.param_groups[0]["lam"] == lam
    assert torch.equal(weight.detach(), theta)
    torch.testing.assert_close(state["subgrad"], theta / delta + factor * (v - theta / delta), rtol=1e-12, atol=1e-13)
    image = regularizer.mirror(state["subgrad"], delta, lam=lam)
    torch.testing.assert_close(image, theta, rtol=1e-7, atol=1e-8)
    for group in optimizer.param_groups:
        group.update(lr=1e-30, **({"momentum": 0.0} if "momentum" in group else {}))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), theta, rtol=1e-7, atol=1e-8)


@PENALTY
def test_set_lam_from_zero_starts_the_dual_anew(regularizer: Regularizer):
    weight = begin(regularizer)
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=regularizer, delta=2.0)
    optimizer.param_groups[0]["lam"] = 0.0
    steps(weight, optimizer, 2, scale=0.01)
    theta = weight.detach().clone()
    if isinstance(regularizer, tb.NonNegativeL1):
        assert (theta >= 0).all()
    optimizer.set_lam(0.7)
    expected = theta / 2 + regularizer.subgradient(theta, lam=0.7)
    torch.testing.assert_close(optimizer.state[weight]["subgrad"], expected)
    assert torch.equal(weight.detach(), theta)
    assert optimizer.mirror_residual() < 1e-9


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9, 1e-30])
@PENALTY
def test_lam_may_nearly_vanish_and_come_back(regularizer: Regularizer, small: float):
    """In float32 a tiny λp drowns in the rounding of v = θ/δ + λp: it must not come back as noise."""
    weight = begin(regularizer, torch.float32)
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=regularizer)
    steps(weight, optimizer, 3)
    theta = weight.detach().clone()
    optimizer.set_lam(small)
    optimizer.set_lam(1.0)
    optimizer.param_groups[0]["lr"] = 1e-30
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    # the memory of the nuclear norm is spread over all entries: it is kept, at the price of some of their rounding
    loose = 1e-3 if isinstance(regularizer, tb.Nuclear) else 1e-5
    torch.testing.assert_close(weight.detach(), theta, rtol=loose, atol=loose)


@pytest.mark.parametrize("factor", [1e-3, 1e-2, 30.0, 1e3])
@PENALTY
def test_memory_outlives_a_large_change_of_lam(regularizer: Regularizer, factor: float):
    """λ there and back in two leaps: v is what it was."""
    if isinstance(regularizer, tb.Nuclear) and factor < 1e-2:
        pytest.skip("its memory is spread over all entries, where θ leaves it too few digits of float32")
    weight = begin(regularizer, torch.float32)
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=regularizer)
    steps(weight, optimizer, 3, scale=0.02)
    v = optimizer.state[weight]["subgrad"].clone()
    optimizer.set_lam(factor * regularizer.lam)
    optimizer.set_lam(regularizer.lam)
    memory = v - regularizer.inverse_mirror(weight.detach())
    assert float(memory.abs().amax()) > 1e-3, "there was nothing to remember"
    near = (0.02 if isinstance(regularizer, tb.Nuclear) else 2e-3) * float(memory.abs().amax())
    torch.testing.assert_close(optimizer.state[weight]["subgrad"], v, rtol=1e-4, atol=near)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@PENALTY
def test_set_lam_does_not_amplify_the_rounding_of_halves(regularizer: Regularizer, dtype: torch.dtype):
    """λ·100: what the weight lost to rounding must not come back a hundredfold."""
    weight = begin(regularizer, dtype)
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=regularizer)
    steps(weight, optimizer, 3)
    for lam in (100 * regularizer.lam, regularizer.lam, 0.0, 0.5):
        theta = weight.detach().clone()
        optimizer.set_lam(lam)
        optimizer.param_groups[0]["lr"] = 1e-30
        weight.grad = torch.zeros_like(weight)
        with torch.no_grad():
            weight.add_(0)  # makes the optimizer look again
        optimizer.step()
        spacing = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(weight.detach().float(), theta.float(), rtol=spacing, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [0.5, 2.0, 8.0, 50.0])
@PENALTY
def test_set_lam_keeps_what_the_dual_of_halves_knows_beyond_them(
    regularizer: Regularizer, factor: float, dtype: torch.dtype
):
    """v is float32: λ there and back must not round it to the half that the weight is."""
    weight = begin(regularizer, dtype)
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=regularizer)
    steps(weight, optimizer, 3)
    v = optimizer.state[weight]["subgrad"].clone()
    optimizer.set_lam(factor * regularizer.lam)
    optimizer.set_lam(regularizer.lam)
    torch.testing.assert_close(optimizer.state[weight]["subgrad"], v, rtol=2e-5, atol=2e-5)


def test_a_network_that_still_sleeps_keeps_its_memory_when_lam_grows():
    """θ = 0 everywhere, one weight about to wake: whatever λ becomes, it stays about to wake."""
    for factor in range(9, 200):
        weight = nn.Parameter(torch.zeros(3))
        optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.L1(0.1))
        weight.grad = torch.tensor([-0.1, 0.05, 0.0])
        optimizer.step()
        optimizer.set_lam(0.1 * factor)
        expected = [0.1 * factor, -0.05 * factor, 0.0]
        assert optimizer.state[weight]["subgrad"].tolist() == pytest.approx(expected, rel=1e-6)
        weight.grad = torch.tensor([-1.0, 0.0, 0.0])
        optimizer.step()
        assert weight.tolist() == pytest.approx([1.0, 0.0, 0.0], rel=1e-4)


def test_set_lam_of_one_group():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = tb.LinBreg([{"params": [a]}, {"params": [b]}], regularizer=tb.L1(0.5))
    optimizer.set_lam(0.1, group=1)
    assert [group["lam"] for group in optimizer.param_groups] == [0.5, 0.1]
    optimizer.set_lam(0.2, group=optimizer.param_groups[0])
    assert [group["lam"] for group in optimizer.param_groups] == [0.2, 0.1]
    optimizer.set_lam(0.3)
    assert [group["lam"] for group in optimizer.param_groups] == [0.3, 0.3]
    assert not optimizer.state


def test_lam_of_the_group_is_answered_at_the_next_step():
    """A controller leaves v alone: a smaller λ wakes weights, a larger one puts them to sleep."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.L1(1.0))
    weight.grad = torch.tensor([-0.5, -1.5, 3.0])
    optimizer.step()
    assert weight.tolist() == [0.0, 0.5, -2.0]
    for lam, expected in ((0.25, [0.25, 1.25, -2.75]), (2.0, [0.0, 0.0, -1.0])):
        optimizer.param_groups[0]["lam"] = lam
        weight.grad = torch.zeros(3)
        optimizer.step()
        assert weight.tolist() == expected
        assert optimizer.state[weight]["subgrad"].tolist() == [0.5, 1.5, -3.0]


@PENALTY
@pytest.mark.parametrize("options", [{}, {"momentum": 0.75, "nesterov": True}], ids=["plain", "nesterov"])
def test_weights_wake_when_foretold(regularizer: Regularizer, options: dict[str, Any]):
    """⌊λ/(τ·J₁°(−g))⌋ + 1 steps, exactly without momentum and nearly with τ/(1 − μ) for τ."""
    draw = torch.Generator().manual_seed(3)
    gradient = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    optimizer = tb.LinBreg([weight], lr=1e-3, regularizer=regularizer, **options)
    foretold = regularizer.first_activation(gradient, 1e-3 / (1 - options.get("momentum", 0.0)))
    woke = 0
    for step in range(1, 2000):
        weight.grad = gradient.clone()
        optimizer.step()
        if weight.detach().any():
            woke = step
            break
    assert woke == foretold if not options else abs(woke - foretold) <= 1 / (1 - options["momentum"])


def test_adabreg_wakes_after_lam_over_lr_steps_whatever_the_gradient():
    for scale in (1e-4, 1.0, 1e4):
        weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = tb.AdaBreg([weight], lr=0.01, regularizer=tb.L1(0.205), eps=1e-16)
        taken = 0
        while not weight.detach().any() and taken < 100:
            weight.grad = torch.tensor([scale, 0.0], dtype=torch.float64)
            optimizer.step()
            taken += 1
        assert taken == 21


@each([row for row in MIRRORS if row.kind is not tb.MultilevelLinBreg])  # which listens once in a cycle
def test_sleeping_weights_remember(row: Row):
    """Gradients that never wake a weight add up in v, and bring it back to 0 when they turn."""
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = row.build([weight], tb.L1(1e6), **({"weight_decay": 0.0} if "weight_decay" in row.options else {}))
    memory = []
    for _ in range(6):
        weight.grad = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
        optimizer.step()
        memory.append(optimizer.state[weight]["subgrad"].clone())
        assert not weight.detach().any()
    v = torch.stack(memory)
    assert (v[:, 0, 0].diff() < 0).all()
    assert (v[:, 0, 1].diff() > 0).all()
    assert (v[:, 1, 0] == 0).all()


def test_weight_decay_enters_the_dual_and_spares_sleeping_weights():
    """v ← v − τ·wd·θ: nothing for a weight that sleeps, whatever its memory."""
    weight = nn.Parameter(torch.tensor([2.0, 0.0]))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(1.0), weight_decay=0.5)
    weight.grad = torch.tensor([0.0, 3.0])
    optimizer.step()
    assert optimizer.state[weight]["subgrad"].tolist() == pytest.approx([3.0 - 0.1 * 0.5 * 2.0, -0.3])
    weight.grad = torch.zeros(2)
    optimizer.step()
    assert optimizer.state[weight]["subgrad"].tolist() == pytest.approx([2.9 - 0.1 * 0.5 * 1.9, -0.3])
    assert weight.tolist() == pytest.approx([1.805, 0.0])


@PENALTY
def test_a_network_grows(regularizer: Regularizer):
    """From zero weights the number of non-zeros (or the rank) grows while the loss falls: inverse scale space."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    if isinstance(regularizer, tb.NonNegativeL1):
        truth.abs_()
    weight = nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    optimizer = tb.LinBreg([weight], lr=0.02, regularizer=regularizer)

    def size(x: Tensor) -> int:
        return int(torch.linalg.matrix_rank(x)) if isinstance(regularizer, tb.Nuclear) else int(x.count_nonzero())

    sizes, losses = [0], []
    for _ in range(400):
        loss = 0.5 * (weight - truth).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sizes.append(size(weight.detach()))
        losses.append(loss.item())
    assert sizes[1] < sizes[-1] == size(truth)
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-2 * losses[0]
