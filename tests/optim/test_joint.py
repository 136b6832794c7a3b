"""Groups of parameters that a regulariser takes together: the contract, and one tensor that holds them all."""

from __future__ import annotations

import copy
import io

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Slices, from_spec

from .zoo import ROWS, Row, each, named, packed, same, start

NORM = tb.UnitL2(0.05, members="0:0-2,.;1:0-2,1")
MIRRORS = [row for row in ROWS if row.mirror and row.name != "bregman-rprop"]


def split(weights: list[Tensor]) -> list[Tensor]:
    """The units of the two weights of the zoo's problem, each as one vector; the fourth row is free."""
    first, second = weights
    return [
        torch.cat([first[0], second[:, 0]]),
        torch.cat([first[1], second[:, 1], second[:, 3]]),
        torch.cat([first[2], second[:, 2]]),
    ]


def weights_of(problem: object) -> list[Tensor]:
    return [param.detach() for param in problem.params() if param.ndim > 1]  # pyright: ignore[reportAttributeAccessIssue]


def test_value_and_dual_norm_are_those_of_the_units_in_a_row() -> None:
    xs = [torch.randn(4, 6), torch.randn(2, 4)]
    xs[0][3] = 0
    units = split(xs)
    expected = sum(len(unit) ** 0.5 * unit.norm() for unit in units)
    torch.testing.assert_close(NORM.value_all(xs, lam=1.0), expected)
    torch.testing.assert_close(NORM.dual_norm_all(xs), max(unit.norm() / len(unit) ** 0.5 for unit in units))
    xs[0][3, 0] = 1.0
    assert NORM.dual_norm_all(xs) == float("inf")


@pytest.mark.parametrize("weighted", [True, False])
def test_prox_is_what_a_solver_finds(weighted: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    xs = [torch.randn(4, 6, generator=draw).double(), torch.randn(2, 4, generator=draw).double()]
    norm = tb.UnitL2(0.7, members="0:0-2,.;1:0-2,1", weighted=weighted)
    a, b = cp.Variable((4, 6)), cp.Variable((2, 4))
    units = [
        cp.hstack([a[0], b[:, 0]]),
        cp.hstack([a[1], b[:, 1], b[:, 3]]),
        cp.hstack([a[2], b[:, 2]]),
    ]
    penalty = sum((unit.shape[0] ** 0.5 if weighted else 1.0) * cp.norm(unit) for unit in units)
    fit = cp.sum_squares(a - xs[0].numpy()) + cp.sum_squares(b - xs[1].numpy())
    cp.Problem(cp.Minimize(0.5 * fit + 0.5 * 0.7 * penalty)).solve(solver="CLARABEL")
    for found, expected in zip(norm.prox_all(xs, 0.5), (a.value, b.value), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_subgradients_support_the_norm_from_below() -> None:
    draw = torch.Generator().manual_seed(1)
    xs = [torch.randn(4, 6, generator=draw), torch.randn(2, 4, generator=draw)]
    xs[0][0] = 0
    xs[1][:, 0] = 0
    slopes = NORM.subgradient_all(xs)
    assert not slopes[0][0].any()
    assert not slopes[0][3].any()
    for _ in range(20):
        ys = [torch.randn(4, 6, generator=draw), torch.randn(2, 4, generator=draw)]
        inner = sum(float((g * (y - x)).sum()) for g, x, y in zip(slopes, xs, ys, strict=True))
        assert float(NORM.value_all(ys)) >= float(NORM.value_all(xs)) + inner - 1e-5


@given(units=st.lists(st.integers(-1, 5), max_size=12), dim=st.integers(0, 3))
def test_slices_are_read_as_they_are_spelled(units: list[int], dim: int) -> None:
    slices = Slices(dim, tuple(units)) if units else Slices(dim)
    norm = tb.UnitL2(0.5, members=f"{slices};0")
    assert norm.slices[0] == slices
    assert from_spec(norm.spec(), 0.5) == norm


@pytest.mark.parametrize("text", ["rows", "1:a", "1:0-", "", "-1"])
def test_wrong_slices_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="slices"):
        tb.UnitL2(0.1, members=text)


@pytest.mark.parametrize("weights", [[(4, 6)], [(4, 6), (2, 5)], [(4, 6), (2,)]], ids=str)
def test_parameters_that_do_not_fit_are_refused(weights: list[tuple[int, ...]]) -> None:
    params = [nn.Parameter(torch.ones(shape)) for shape in weights]
    with pytest.raises(ValueError, match=r"2 tensors|entries along|dimension 1"):
        tb.LinBreg(params, regularizer=NORM)


@each(named("linbreg-momentum", "adabreg", "bregman-adam"))
def test_units_sleep_and_wake_as_one(row: Row) -> None:
    problem, optimizer = start(row, tb.UnitL2(0.02, members=NORM.members))
    first, second = (param for param in problem.params() if param.ndim > 1)
    with torch.no_grad():
        first[0], second[:, 0] = 0.0, 0.0
    awake = []
    for _ in range(60):
        problem.step(optimizer)
        awake.append([bool(unit.any()) for unit in split(weights_of(problem))])
    assert awake[0] == [False, True, True]
    assert awake[-1] == [True, True, True]
    assert bool((weights_of(problem)[0][3] != 0).all())


@each(MIRRORS)
def test_weights_are_the_image_of_their_duals(row: Row) -> None:
    problem, optimizer = start(row, NORM)
    problem.step(optimizer, 5)
    assert optimizer.mirror_residual() < 1e-6  # pyright: ignore[reportAttributeAccessIssue]
    params = [param for param in problem.params() if param.ndim > 1]
    duals = [optimizer.state[param]["subgrad"] for param in params]
    images = NORM.mirror_all(duals, optimizer.param_groups[0]["delta"])
    for image, param in zip(images, params, strict=True):
        torch.testing.assert_close(image, param.detach())
    assert optimizer.regularization()[0] == pytest.approx(float(NORM.value_all([p.detach() for p in params])), rel=1e-5)


@each([row for row in ROWS if row.name != "bregman-rprop"])
def test_a_step_with_lr_zero_changes_nothing(row: Row) -> None:
    problem, optimizer = start(row, NORM)
    for _ in range(2):
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = problem.values()
        problem.step(optimizer)
        assert same(problem.values(), before)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        problem.step(optimizer, 2)
        assert not same(problem.values(), before)


@each(named("linbreg-momentum", "linbreg-delta-decay", "adabreg"))
def test_the_start_is_the_identity_of_the_mirror_map(row: Row) -> None:
    problem, optimizer = start(row, NORM, weight_decay=0.0)
    before = problem.values()
    for param in problem.params():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    for a, b in zip(problem.values(), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@each(ROWS)
def test_a_checkpoint_goes_on_as_if_nothing_had_happened(row: Row) -> None:
    problem, optimizer = start(row, NORM)
    problem.step(optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": problem.model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    problem.step(optimizer, 3)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, fresh = start(row, NORM)
    again.model.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    again.step(fresh, 3)
    assert same(again.values(), problem.values())
    other = start(row, tb.UnitL2(0.05, members="0:0-2,.;1:0-2,2"))[1]
    with pytest.raises(ValueError, match="was trained with"):
        other.load_state_dict(saved["optimizer"])


@each(named("linbreg-momentum", "adabreg", "bregman-adam"))
def test_weights_changed_by_other_hands_are_kept_and_their_units_start_anew(row: Row) -> None:
    problem, optimizer = start(row, NORM)
    problem.step(optimizer, 3)
    first, second = [param for param in problem.params() if param.ndim > 1]
    before = copy.deepcopy(optimizer.state[second]["subgrad"])
    with torch.no_grad():
        first[0] = 3.0
    values = problem.values()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with pytest.warns(UserWarning, match="outside of the optimizer"):
        problem.step(optimizer)
    assert same(problem.values(), values)
    after = optimizer.state[second]["subgrad"]
    assert torch.equal(after[:, 1:], before[:, 1:])
    assert not torch.equal(after[:, 0], before[:, 0])
    assert optimizer.mirror_residual() < 1e-6  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 3.0, 100.0])
def test_a_changed_lam_moves_no_weight(ratio: float) -> None:
    problem, optimizer = start(named("linbreg-momentum")[0], NORM)
    problem.step(optimizer, 5)
    before = problem.values()
    optimizer.set_lam(ratio * NORM.lam, 0)  # pyright: ignore[reportAttributeAccessIssue]
    for a, b in zip(problem.values(), before, strict=True):
        torch.testing.assert_close(a, b)
    assert optimizer.mirror_residual() < 1e-5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_weight_without_gradient_follows_the_norm_it_shares() -> None:
    first, second = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(1, 2))
    optimizer = tb.LinBreg([first, second], lr=0.1, regularizer=tb.UnitL2(1.0, members="0;1"))
    for _ in range(8):
        first.grad = torch.tensor([[1.0], [-1.0]])
        optimizer.step()
    assert first[0].item() < 1
    assert second[0, 0].item() < 1 < second[0, 1].item()
    assert optimizer.mirror_residual() < 1e-6


def test_without_any_gradient_there_is_no_state() -> None:
    first, second = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(1, 2))
    optimizer = tb.LinBreg([first, second], lr=0.1, regularizer=tb.UnitL2(1.0, members="0;1"))
    optimizer.step()
    assert not packed(optimizer)


def test_halves_keep_their_dual_in_float32() -> None:
    first, second = (nn.Parameter(torch.ones(shape, dtype=torch.bfloat16)) for shape in ((2, 3), (4, 2)))
    optimizer = tb.LinBreg([first, second], lr=0.1, regularizer=tb.UnitL2(0.1, members="0;1"))
    for _ in range(3):
        first.grad, second.grad = torch.ones_like(first), torch.zeros_like(second)
        optimizer.step()
    assert optimizer.state[first]["subgrad"].dtype == torch.float32
    optimizer.set_lam(0.2)
    assert optimizer.mirror_residual() < 1e-2
