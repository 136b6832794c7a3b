"""Bregman iterations on linear equations: what they converge to, and in how many steps."""

from __future__ import annotations

from statistics import median
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

PLAIN: dict[str, Any] = {}
NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
DAMPED: dict[str, Any] = {"momentum": 0.9, "dampening": 0.9}
ACCELERATED: dict[str, Any] = {"accelerated": True}


def solve(
    A: Tensor, b: Tensor, regularizer: Regularizer, shape: tuple[int, ...], tolerance: float, **options: Any
) -> tuple[int, Tensor]:
    """Run LinBreg on ½‖Ax − b‖² with τ = 1/(δL) until ‖Ax − b‖ ≤ tolerance·‖b‖; return the steps taken and x."""
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    lr = 1 / (options.get("delta", 1.0) * float(torch.linalg.matrix_norm(A, 2)) ** 2)
    optimizer = tb.LinBreg([weight], lr=lr, regularizer=regularizer, **options)
    transposed = A.T.contiguous()
    for step in range(20_000):
        residual = A @ weight.detach().reshape(-1) - b
        if residual.norm() <= tolerance * b.norm():
            return step, weight.detach()
        weight.grad = (transposed @ residual).reshape(shape)
        optimizer.step()
    raise AssertionError("no convergence in 20 000 steps")


def gaussian(seed: int, rows: int, columns: int, nonzeros: int | None) -> tuple[Tensor, Tensor]:
    """Return A and b = Ax for a sparse x, or a random b."""
    draw = torch.Generator().manual_seed(seed)
    A = torch.randn(rows, columns, generator=draw, dtype=torch.float64) / rows**0.5
    if nonzeros is None:
        return A, torch.randn(rows, generator=draw, dtype=torch.float64)
    x = torch.zeros(columns, dtype=torch.float64)
    support = torch.randperm(columns, generator=draw)[:nonzeros]
    x[support] = torch.randn(nonzeros, generator=draw, dtype=torch.float64)
    return A, A @ x


@pytest.mark.parametrize("nonzeros", [3, None], ids=["sparse truth", "random right side"])
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_large_lam_solves_basis_pursuit(seed: int, nonzeros: int | None):
    """min ‖x‖₁ s.t. Ax = b, against a linear programme: the same support, values to 1e-7.

    From some finite λ on, which depends on A and b, the quadratic part of J_δ has no say any more (Yin 2010).
    """
    A, b = gaussian(seed, 12, 30, nonzeros)
    b = b / b.norm()
    _, x = solve(A, b, tb.L1(100.0), (30,), 1e-11, **ACCELERATED)
    split = linprog(np.ones(60), A_eq=np.hstack([A, -A]), b_eq=b.numpy(), method="highs").x
    expected = split[:30] - split[30:]
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-7)
    assert set(np.flatnonzero(x.numpy())) == set(np.flatnonzero(np.abs(expected) > 1e-9))


CONSTRAINED = [
    (tb.L1(0.5), lambda x: cp.norm1(cp.vec(x, order="C"))),
    (tb.GroupL2(0.5, view="rows"), lambda x: 6**0.5 * sum(cp.norm2(x[i]) for i in range(5))),
    (tb.GroupL2(0.8, view="columns", weighted=False), lambda x: sum(cp.norm2(x[:, j]) for j in range(6))),
    (
        tb.SparseGroup(0.5, l1_ratio=0.3),
        lambda x: 0.3 * cp.norm1(cp.vec(x, order="C")) + 0.7 * 6**0.5 * sum(cp.norm2(x[i]) for i in range(5)),
    ),
    (
        tb.ElasticNet(0.5, l1_ratio=0.4),
        lambda x: 0.4 * cp.norm1(cp.vec(x, order="C")) + 0.3 * cp.sum_squares(x),
    ),
    (tb.NonNegativeL1(0.5), lambda x: cp.sum(x)),
    (tb.Nuclear(0.5), lambda x: cp.normNuc(x)),
]


@pytest.mark.parametrize("delta", [1.0, 4.0])
@pytest.mark.parametrize(("regularizer", "penalty"), CONSTRAINED, ids=[str(reg) for reg, _ in CONSTRAINED])
def test_the_limit_minimises_j_delta_among_all_solutions(regularizer: Regularizer, penalty: Any, delta: float):
    """min J(x) + ‖x‖²/(2δ) s.t. Ax = b, against a convex solver."""
    A, b = gaussian(3, 10, 30, None)
    if isinstance(regularizer, tb.NonNegativeL1):
        b = A @ torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, x = solve(A, b, regularizer, (5, 6), 1e-11, delta=delta, **NESTEROV)
    variable = cp.Variable((5, 6), nonneg=isinstance(regularizer, tb.NonNegativeL1))
    objective = regularizer.lam * penalty(variable) + cp.sum_squares(variable) / (2 * delta)
    problem = cp.Problem(cp.Minimize(objective), [A.numpy() @ cp.vec(variable, order="C") == b.numpy()])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    np.testing.assert_allclose(x.numpy(), variable.value, atol=2e-5)
    variable.value = x.numpy()
    assert float(objective.value) == pytest.approx(float(problem.value), rel=1e-6)


def steps_to_recover(seed: int, **options: Any) -> int:
    A, b = gaussian(seed, 100, 400, 12)
    return solve(A, b, tb.L1(5.0), (400,), 1e-6, **options)[0]


@pytest.fixture(scope="module")
def counts() -> dict[str, list[int]]:
    kinds = {"plain": PLAIN, "damped": DAMPED, "nesterov": NESTEROV, "accelerated": ACCELERATED}
    return {name: [steps_to_recover(seed, **options) for seed in range(3)] for name, options in kinds.items()}


def test_momentum_accelerates_and_acceleration_needs_no_tuning(counts: dict[str, list[int]]):
    """At equal τ, λ = 5, to a residual of 1e-6: 847, 2958, 800 steps against 182, 375, 189 and 156, 303, 149."""
    pairs = zip(counts["plain"], counts["nesterov"], counts["accelerated"], strict=True)
    for plain, nesterov, accelerated in pairs:
        assert plain >= 4 * nesterov
        assert accelerated <= nesterov


def test_damping_takes_the_acceleration_away(counts: dict[str, list[int]]):
    """τ(1 − dampening)/(1 − μ) is what a method should be compared at: here it is τ, as for the plain one."""
    assert median(counts["damped"]) == pytest.approx(median(counts["plain"]), rel=0.2)
    assert median(counts["damped"]) > 3 * median(counts["nesterov"])


def test_scale_grows_from_large_features_to_small_ones():
    """Inverse scale space: with A = I entry i wakes after ⌊λ/(τ|b_i|)⌋ + 1 steps, the largest first."""
    b = torch.tensor([0.11, 2.0, -0.5, 0.0, 1.0], dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = tb.LinBreg([weight], lr=0.25, regularizer=tb.L1(1.0))
    woke: dict[int, int] = {}
    for step in range(1, 60):
        weight.grad = weight.detach() - b
        optimizer.step()
        for index in weight.detach().nonzero().flatten().tolist():
            woke.setdefault(index, step)
    assert woke == {1: 3, 4: 5, 2: 9, 0: 37}
    torch.testing.assert_close(weight.detach(), b, atol=1e-2, rtol=1e-2)
