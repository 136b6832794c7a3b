"""Every recursion against the same written in numpy, from the papers, with proximal maps written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

Array = np.ndarray
STEPS, SHAPE = 15, (4, 6)
rng = np.random.default_rng(7)
MATRIX, TARGET = rng.normal(size=(30, 24)) / 5, rng.normal(size=30)
START = rng.normal(size=SHAPE)
START[np.abs(START) < 0.7] = START[1] = START[:, 2] = 0.0


def gradient(theta: Array) -> Array:
    """Return that of ½‖Aθ − b‖²."""
    return (MATRIX.T @ (MATRIX @ theta.ravel() - TARGET)).reshape(SHAPE)


def shrink(x: Array, by: float) -> Array:
    return np.sign(x) * np.maximum(np.abs(x) - by, 0)


def shorten(groups: Array, by: float) -> Array:
    """Shorten each row of a matrix."""
    norms = np.linalg.norm(groups, axis=1, keepdims=True)
    return groups * np.maximum(0, 1 - by / np.where(norms == 0, 1, norms)) * (norms > 0)


def sparse_columns(x: Array, by: float) -> Array:
    return shorten(shrink(x, 0.3 * by).T, 0.7 * by * 2.0).T  # √4 entries a column


def low_rank(x: Array, by: float) -> Array:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return (u * np.maximum(s - by, 0)) @ vt


# the regulariser, and prox_{c·J₁} as a function of x and c
CASES: list[tuple[Regularizer, Callable[[Array, float], Array]]] = [
    (tb.NoRegularizer(), lambda x, by: x),
    (tb.L1(0.4), shrink),
    (tb.NonNegativeL1(0.4), lambda x, by: np.maximum(x - by, 0)),
    (tb.ElasticNet(0.4, l1_ratio=0.6), lambda x, by: shrink(x, 0.6 * by) / (1 + 0.4 * by)),
    (tb.GroupL2(0.3, view="rows"), lambda x, by: shorten(x, by * 6**0.5)),
    (tb.GroupL2(1.2, view="columns", weighted=False), lambda x, by: shorten(x.T, by).T),
    (tb.SparseGroup(0.3, l1_ratio=0.3, view="columns"), sparse_columns),
    (tb.Nuclear(0.8), low_rank),
]
IDS = [f"{regularizer.name}-{number}" for number, (regularizer, _) in enumerate(CASES)]
EACH = pytest.mark.parametrize(("regularizer", "prox"), CASES, ids=IDS)


def first_dual(regularizer: Regularizer, theta: Array, delta: float) -> Array:
    """Return θ/δ + λp with p ∈ ∂J₁(θ), case by case."""
    lam = regularizer.lam
    if isinstance(regularizer, tb.NoRegularizer):
        p = 0 * theta
    elif isinstance(regularizer, tb.GroupL2) and regularizer.weighted:
        p = 6**0.5 * shortest(theta)
    elif isinstance(regularizer, tb.GroupL2):
        p = shortest(theta.T).T
    elif isinstance(regularizer, tb.SparseGroup):
        p = 0.3 * np.sign(theta) + 0.7 * 2 * shortest(theta.T).T
    elif isinstance(regularizer, tb.Nuclear):
        u, s, vt = np.linalg.svd(theta, full_matrices=False)
        p = u[:, s > 1e-12] @ vt[s > 1e-12]
    elif isinstance(regularizer, tb.ElasticNet):
        p = 0.6 * np.sign(theta) + 0.4 * theta
    else:
        p = np.sign(theta)
    return theta / delta + lam * p


def shortest(groups: Array) -> Array:
    norms = np.linalg.norm(groups, axis=1, keepdims=True)
    return groups / np.where(norms == 0, 1, norms)


def begin(regularizer: Regularizer) -> Array:
    return np.abs(START) if isinstance(regularizer, tb.NonNegativeL1) else START


def follow(theta: Array, build: Callable[[list[nn.Parameter]], Any], steps: int = STEPS) -> list[Array]:
    """Return the course of the weights under an optimizer."""
    weight = nn.Parameter(torch.tensor(theta))
    optimizer, course = build([weight]), []
    for _ in range(steps):
        weight.grad = torch.tensor(gradient(weight.detach().numpy()))
        optimizer.step()
        course.append(weight.detach().numpy().copy())
    return course


def agree(ours: list[Array], theirs: list[Array]) -> None:
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9, err_msg=f"step {number + 1}")
        assert ((a == 0) == (b == 0)).all()


@EACH
@pytest.mark.parametrize("delta", [1.0, 1.7])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_plain_linbreg(regularizer: Regularizer, prox: Any, delta: float, decay: float):
    theta, course = begin(regularizer), []
    v = first_dual(regularizer, theta, delta)
    for _ in range(STEPS):
        v = v - 0.2 * decay * theta - 0.2 * gradient(theta)
        theta = prox(delta * v, delta * regularizer.lam)
        course.append(theta)
    ours = follow(
        begin(regularizer),
        lambda p: tb.LinBreg(p, lr=0.2, regularizer=regularizer, delta=delta, weight_decay=decay),
    )
    if isinstance(regularizer, tb.Nuclear):
        for a, b in zip(ours, course, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
            assert np.linalg.matrix_rank(a, tol=1e-7) == np.linalg.matrix_rank(b, tol=1e-7)
    else:
        agree(ours, course)
    if not isinstance(regularizer, tb.NoRegularizer):
        assert any(np.linalg.matrix_rank(a, tol=1e-9) < 4 or (a == 0).any() for a in ours), "nothing ever slept"


@EACH
def test_nesterov_is_the_recursion_of_the_dissertation(regularizer: Regularizer, prox: Any):
    """b⁺ = μb + τg, v ← v − ((1 + μ) b⁺ − μb)."""
    theta, b, course = begin(regularizer), 0.0, []
    v = first_dual(regularizer, theta, 1.0)
    for _ in range(STEPS):
        after = 0.8 * b + 0.1 * gradient(theta)
        v = v - ((1 + 0.8) * after - 0.8 * b)
        b = after
        theta = prox(v, regularizer.lam)
        course.append(theta)
    ours = follow(
        begin(regularizer), lambda p: tb.LinBreg(p, lr=0.1, regularizer=regularizer, momentum=0.8, nesterov=True)
    )
    for x, y in zip(ours, course, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-8)


@EACH
def test_damped_momentum_is_the_rule_of_the_paper(regularizer: Regularizer, prox: Any):
    """m ← βm + (1 − β)τg from m = 0, v ← v − m: the first step is damped too, unlike torch's."""
    theta, m, course = begin(regularizer), 0.0, []
    v = first_dual(regularizer, theta, 1.0)
    for _ in range(STEPS):
        m = 0.8 * m + (1 - 0.8) * 0.3 * gradient(theta)
        v = v - m
        theta = prox(v, regularizer.lam)
        course.append(theta)
    ours = follow(
        begin(regularizer), lambda p: tb.LinBreg(p, lr=0.3, regularizer=regularizer, momentum=0.8, dampening=0.8)
    )
    for x, y in zip(ours, course, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("maximize", [False, True])
def test_acceleration_is_nesterov_on_the_dual_with_restart(maximize: bool):
    """In two sequences: x⁺ = v − τg, v⁺ = x⁺ + μ (x⁺ − x), t = 1 where ⟨g, x⁺ − x⟩ > 0."""
    lam, sign, lr, steps = 0.4, -1 if maximize else 1, 0.25, 60
    theta, v = np.zeros(SHAPE), np.zeros(SHAPE)
    x, t, course, restarts = v, 1.0, [], 0
    for _ in range(steps):
        g = gradient(theta)
        x_next = v - lr * g
        if np.vdot(g, x_next - x) > 0:
            t_next, mu, restarts = 1.0, 0.0, restarts + 1
        else:
            t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
            mu = (t - 1) / t_next
        v, x, t = x_next + mu * (x_next - x), x_next, t_next
        theta = shrink(v, lam)
        course.append(theta)
    weight = nn.Parameter(torch.zeros(SHAPE, dtype=torch.float64))
    optimizer = tb.LinBreg([weight], lr=lr, regularizer=tb.L1(lam), accelerated=True, maximize=maximize)
    for expected in course:
        weight.grad = sign * torch.tensor(gradient(weight.detach().numpy()))
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-6, atol=1e-8)
    assert restarts, "the problem must show a restart"


@pytest.mark.parametrize("order", [1, -1])
def test_all_accelerated_weights_restart_together(order: int):
    """⟨g, v⁺ − v⟩ is the sum over all groups: one weight that climbs a little does not restart the rest."""
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [a]}, {"params": [b]}][::order]
    optimizer = tb.LinBreg(groups, lr=0.1, regularizer=tb.L1(0.1), accelerated=True)
    for up in (1.0, 1.0, -0.1):
        a.grad, b.grad = torch.tensor([up]), torch.tensor([10.0])
        optimizer.step()
    assert [group["t"] > 2 for group in optimizer.param_groups] == [True, True]
    a.grad, b.grad = torch.tensor([0.0]), torch.tensor([-3.0])
    optimizer.step()
    assert [group["t"] for group in optimizer.param_groups] == [1.0, 1.0]


@EACH
@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.2, "delta": 1.7}], ids=["plain", "all"])
def test_adabreg(regularizer: Regularizer, prox: Any, options: dict[str, Any]):
    delta, decay, lr = options.get("delta", 1.0), options.get("weight_decay", 0.0), 0.05
    theta, m, n, most, course = begin(regularizer), 0.0, 0.0, 0.0, []
    v = first_dual(regularizer, theta, delta)
    for k in range(1, STEPS + 1):
        g = gradient(theta)
        v = v - lr * decay * theta
        m, n = 0.8 * m + 0.2 * g, 0.95 * n + 0.05 * g * g
        most = np.maximum(most, n)
        second = most if options.get("amsgrad") else n
        v = v - lr * (m / (1 - 0.8**k)) / (np.sqrt(second / (1 - 0.95**k)) + 1e-8)
        theta = prox(delta * v, delta * regularizer.lam)
        course.append(theta)
    ours = follow(
        begin(regularizer), lambda p: tb.AdaBreg(p, lr=lr, regularizer=regularizer, betas=(0.8, 0.95), **options)
    )
    for x, y in zip(ours, course, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


@EACH
def test_proxsgd(regularizer: Regularizer, prox: Any):
    theta, buffer, course = begin(regularizer), None, []
    for _ in range(STEPS):
        g = gradient(theta) + 0.1 * theta
        buffer = g if buffer is None else 0.8 * buffer + 0.7 * g
        theta = prox(theta - 0.1 * buffer, 0.1 * regularizer.lam)
        course.append(theta)
    ours = follow(
        begin(regularizer),
        lambda p: tb.ProxSGD(p, lr=0.1, regularizer=regularizer, momentum=0.8, dampening=0.3, weight_decay=0.1),
    )
    for x, y in zip(ours, course, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-8)


def test_bregman_rmsprop():
    theta, square, course = START, 0.0, []
    v = first_dual(tb.L1(0.4), theta, 1.0)
    for _ in range(STEPS):
        g = gradient(theta)
        v = v - 0.05 * 0.2 * theta
        square = 0.9 * square + 0.1 * g * g
        v = v - 0.05 * g / (np.sqrt(square) + 1e-8)
        theta = shrink(v, 0.4)
        course.append(theta)
    ours = follow(
        START,
        lambda p: tb.Bregman(torch.optim.RMSprop(p, lr=0.05, alpha=0.9, weight_decay=0.2), regularizer=tb.L1(0.4)),
    )
    agree(ours, course)
