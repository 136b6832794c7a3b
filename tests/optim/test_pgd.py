"""Proximal gradient descent: the minimum, the step size it finds, and how it gets there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

DRAW = torch.Generator().manual_seed(4)
A = torch.randn(40, 30, generator=DRAW, dtype=torch.float64)
B = torch.randn(40, generator=DRAW, dtype=torch.float64)
LIPSCHITZ = float(torch.linalg.matrix_norm(A, 2) ** 2)


class LeastSquares:
    """½‖A·vec(x) − b‖² on a 5 × 6 weight, with the record of all evaluations."""

    def __init__(self, regularizer: Regularizer, **options: Any) -> None:
        self.weight = nn.Parameter(torch.zeros(5, 6, dtype=torch.float64))
        self.optimizer = tb.PGD([self.weight], regularizer=regularizer, **options)
        self.evaluations = 0

    def closure(self) -> Tensor:
        self.evaluations += 1
        self.optimizer.zero_grad()
        loss = 0.5 * (A @ self.weight.reshape(-1) - B).square().sum()
        loss.backward()
        return loss

    def objective(self) -> float:
        fit = 0.5 * (A @ self.weight.detach().reshape(-1) - B).square().sum()
        return float(fit) + sum(self.optimizer.regularization())

    def run(self, steps: int) -> list[float]:
        course = [self.objective()]
        for _ in range(steps):
            self.optimizer.step(self.closure)
            course.append(self.objective())
        return course

    @property
    def step_size(self) -> float:
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) * group["shrink"]


def rows(x: Any) -> Any:
    return 6**0.5 * sum(cp.norm2(x[i]) for i in range(5))


PENALTIES = [
    (tb.L1(4.0), lambda x: cp.norm1(cp.vec(x, order="C"))),
    (tb.GroupL2(3.5), rows),
    (tb.SparseGroup(3.0), lambda x: 0.5 * cp.norm1(cp.vec(x, order="C")) + 0.5 * rows(x)),
    (tb.ElasticNet(5.0), lambda x: 0.5 * cp.norm1(cp.vec(x, order="C")) + 0.25 * cp.sum_squares(x)),
    (tb.NonNegativeL1(2.0), lambda x: cp.sum(x)),
    (tb.Nuclear(6.0), lambda x: cp.normNuc(x)),
]


@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerated", "plain"])
@pytest.mark.parametrize(("regularizer", "penalty"), PENALTIES, ids=[str(reg) for reg, _ in PENALTIES])
def test_it_finds_the_minimum_a_convex_solver_finds(regularizer: Regularizer, penalty: Any, accelerated: bool):
    problem = LeastSquares(regularizer, accelerated=accelerated)
    course = problem.run(150 if accelerated else 1500)
    variable = cp.Variable((5, 6), nonneg=isinstance(regularizer, tb.NonNegativeL1))
    fit = 0.5 * cp.sum_squares(A.numpy() @ cp.vec(variable, order="C") - B.numpy())
    best = cp.Problem(cp.Minimize(fit + regularizer.lam * penalty(variable)))
    best.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    assert course[-1] == pytest.approx(float(best.value), rel=1e-6)
    np.testing.assert_allclose(problem.weight.detach().numpy(), variable.value, atol=1e-3)
    x = problem.weight.detach()
    assert (x == 0).any() or torch.linalg.matrix_rank(x, atol=1e-6) < 5, "the penalty must have shown"


@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerated", "plain"])
@pytest.mark.parametrize("lr", [1.0, 100.0, 0.25 / LIPSCHITZ], ids=["1", "100", "below 1/L"])
def test_backtracking_finds_the_step_size(lr: float, accelerated: bool):
    """The largest lr·2⁻ᵏ that the descent lemma allows: never below half of 1/L, and what is small enough stays."""
    problem = LeastSquares(tb.L1(4.0), lr=lr, accelerated=accelerated)
    problem.run(200)
    if lr < 1 / LIPSCHITZ:
        assert problem.step_size == lr
    else:
        halvings = np.log2(lr / problem.step_size)
        assert halvings == pytest.approx(round(halvings))
        assert problem.step_size >= 0.5 / LIPSCHITZ
        assert problem.step_size <= 4 / LIPSCHITZ


def test_every_step_obeys_the_descent_lemma_and_no_larger_one_does():
    """f(x) ≤ f(y) + ⟨∇f(y), x − y⟩ + ‖x − y‖²/(2τ) for the τ taken; for 2τ it fails where τ was just halved."""
    problem, lam, refused = LeastSquares(tb.L1(4.0), lr=1.0, accelerated=False), 4.0, 0

    def fits(y: Tensor, tau: float) -> bool:
        residual = A @ y.reshape(-1) - B
        grad = (A.T @ residual).reshape(5, 6)
        z = y - tau * grad
        x = z.sign() * (z.abs() - tau * lam).clamp_min(0)
        bound = 0.5 * residual.square().sum() + (grad * (x - y)).sum() + (x - y).square().sum() / (2 * tau)
        return bool(0.5 * (A @ x.reshape(-1) - B).square().sum() <= bound * (1 + 1e-12))

    before = problem.step_size
    for _ in range(100):
        y = problem.weight.detach().clone()
        problem.optimizer.step(problem.closure)
        assert fits(y, problem.step_size)
        if problem.step_size < before:
            refused += 1
            assert not fits(y, 2 * problem.step_size)
        before = problem.step_size
    assert refused >= 1


def test_without_backtracking_the_step_size_is_lr():
    problem = LeastSquares(tb.L1(4.0), lr=1.9 / LIPSCHITZ, accelerated=False, backtracking=1.0)
    problem.run(20)
    assert problem.step_size == 1.9 / LIPSCHITZ
    assert problem.evaluations == 40


@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerated", "plain"])
@pytest.mark.parametrize("regularizer", [reg for reg, _ in PENALTIES], ids=str)
def test_the_objective_never_rises(regularizer: Regularizer, accelerated: bool):
    """With acceleration it is the restart that keeps it from rising."""
    course = LeastSquares(regularizer, accelerated=accelerated).run(120)
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(course))


def test_momentum_starts_anew_where_the_objective_would_rise():
    problem = LeastSquares(tb.L1(0.5))
    restarts, before = 0, 1.0
    for _ in range(120):
        problem.optimizer.step(problem.closure)
        after = problem.optimizer.param_groups[0]["t"]
        restarts += after < before
        before = after
    assert restarts >= 1


def test_acceleration_is_that_of_fista():
    """Against Beck and Teboulle's recursion, as long as nothing restarts."""
    tau, lam = 0.9 / LIPSCHITZ, 4.0
    problem = LeastSquares(tb.L1(lam), lr=tau, backtracking=1.0)
    a, b = A.numpy(), B.numpy()
    x, y, t = np.zeros(30), np.zeros(30), 1.0
    for _ in range(12):
        z = y - tau * a.T @ (a @ y - b)
        following = np.sign(z) * np.maximum(np.abs(z) - tau * lam, 0)
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        y, x, t = following + (t - 1) / t_next * (following - x), following, t_next
        problem.optimizer.step(problem.closure)
        np.testing.assert_allclose(problem.weight.detach().numpy().ravel(), x, atol=1e-10)
    assert problem.optimizer.param_groups[0]["t"] > 5


def test_it_needs_far_fewer_steps_with_acceleration():
    def steps(accelerated: bool) -> int:
        problem = LeastSquares(tb.L1(0.5), accelerated=accelerated)
        best = LeastSquares(tb.L1(0.5)).run(400)[-1]
        return next(n for n, value in enumerate(problem.run(1000)) if value <= best * (1 + 1e-9))

    assert steps(accelerated=False) > 1.5 * steps(accelerated=True)


def test_a_loss_that_can_not_be_lowered_raises_and_leaves_the_weights():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = tb.PGD([weight], regularizer=tb.L1(0.1))
    losses = iter(range(100))

    def closure() -> float:
        weight.grad = torch.ones(2)
        return float(next(losses))

    with pytest.raises(
        RuntimeError, match=r"no step size below lr that lowers the loss 0: is the closure full-batch\?"
    ):
        optimizer.step(closure)
    assert weight.tolist() == [1.0, 2.0]


def test_a_closure_that_fails_leaves_the_weights():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = tb.PGD([weight], lr=0.1, regularizer=tb.L1(0.1))
    calls = iter([1.0, 2.0])

    def closure() -> float:
        weight.grad = torch.ones(2)
        if next(calls) == 2.0:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert weight.tolist() == [1.0, 2.0]


def test_infinite_losses_on_the_way_are_backed_away_from():
    """−log x is infinite beyond 0; the first τ tried overshoots it."""
    weight = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    optimizer = tb.PGD([weight], lr=10.0, regularizer=tb.L1(2.0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.where(weight > 0, -torch.log(weight.clamp_min(1e-300)), torch.inf).sum()
        loss.backward()
        return loss

    for _ in range(60):
        optimizer.step(closure)
    assert weight.item() == pytest.approx(0.5, rel=1e-6)


def test_groups_share_one_step_size_and_one_momentum():
    """Two groups over the halves of a weight take the course of the whole."""
    whole = LeastSquares(tb.L1(4.0))
    top, bottom = (nn.Parameter(torch.zeros(n, 6, dtype=torch.float64)) for n in (2, 3))
    optimizer = tb.PGD([{"params": [top]}, {"params": [bottom]}], regularizer=tb.L1(4.0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * (A @ torch.cat([top, bottom]).reshape(-1) - B).square().sum()
        loss.backward()
        return loss

    for _ in range(30):
        whole.optimizer.step(whole.closure)
        optimizer.step(closure)
    torch.testing.assert_close(torch.cat([top, bottom]).detach(), whole.weight.detach())
