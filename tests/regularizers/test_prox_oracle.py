"""Values and proximal maps against a general convex solver, which knows the penalties only as formulas."""

from __future__ import annotations

import math
import zlib

import cvxpy as cp
import numpy as np
import pytest
import torch

from tests.regularizers.cases import PENALTIES, in_domain


def _none(reg, y, groups):
    return cp.Constant(0.0)


def _l1(reg, y, groups):
    return cp.norm1(y)


def _elastic_net(reg, y, groups):
    return reg.l1_ratio * cp.norm1(y) + (1 - reg.l1_ratio) / 2 * cp.sum_squares(y)


def _group_l2(reg, y, groups):
    weight = math.sqrt(len(groups[0])) if reg.weighted else 1.0
    return weight * cp.sum(cp.hstack([cp.norm2(y[group]) for group in groups]))


def _sparse_group(reg, y, groups):
    grouped = math.sqrt(len(groups[0])) * cp.sum(cp.hstack([cp.norm2(y[group]) for group in groups]))
    return reg.l1_ratio * cp.norm1(y) + (1 - reg.l1_ratio) * grouped


def _nuclear(reg, y, groups):
    weight = math.sqrt(y.size) if reg.weighted else 1.0
    return weight * cp.normNuc(cp.vstack([y[group] for group in groups]))


FORMULAS = {
    "none": _none,
    "l1": _l1,
    "nonnegative_l1": _l1,
    "elastic_net": _elastic_net,
    "group_l2": _group_l2,
    "sparse_group": _sparse_group,
    "nuclear": _nuclear,
}
"""From a name to J₁ of a vector of variables; the constraint of the non-negative norm is added below."""

OPTIONS = {
    "elastic_net": [{"l1_ratio": ratio} for ratio in (0.0, 0.4, 1.0)],
    "group_l2": [{"weighted": True}, {"weighted": False}],
    "nuclear": [{"weighted": True}, {"weighted": False}],
    "sparse_group": [{"l1_ratio": ratio} for ratio in (0.0, 0.4, 1.0)],
}
CASES = [
    (setting, number, options)
    for setting in PENALTIES
    if setting.kind.name in FORMULAS
    for number in range(len(setting.shapes()))
    for options in OPTIONS.get(setting.kind.name, [{}])
]


def solve(reg, x, strength, groups):
    """Return argmin_y ½‖y − x‖² + strength·J₁(y) and J₁ there, by an interior point method."""
    y = cp.Variable(x.size)
    penalty = FORMULAS[reg.name](reg, y, groups)
    objective = cp.sum_squares(y) / 2 - x.reshape(-1) @ y + strength * penalty
    problem = cp.Problem(cp.Minimize(objective), [y >= 0] if reg.name == "nonnegative_l1" else [])
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    problem.solve(solver=cp.CLARABEL, max_step_fraction=0.8, **tight)
    return y.value.reshape(x.shape), float(penalty.value)


# The solver warns where it stops short of 1e-11, at the tips of cones; the comparison asks for 1e-6 and decides.
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize(("setting", "number", "options"), CASES, ids=str)
def test_prox_and_value_agree_with_the_solver(setting, number, options):
    rng = np.random.default_rng(zlib.crc32(f"{setting}{number}{options}".encode()))
    smallest = setting.shapes()[number]
    shape = tuple(n * int(rng.integers(1, 4)) for n in smallest[:2]) + smallest[2:]
    x = np.asarray(rng.standard_normal(shape) * 2)
    lam, step = rng.uniform(0.1, 0.6), rng.uniform(0.5, 3)
    reg = setting.make(lam=rng.uniform(1, 2), **options)  # another λ than the one in force
    expected, penalty = solve(reg, x, step * lam, setting.groups(shape))
    got = reg.prox(torch.from_numpy(x), step, lam=lam)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-6 * np.abs(x).max())
    solution = in_domain(reg, torch.from_numpy(expected))
    assert float(reg.value(solution, lam=3.0)) == pytest.approx(3 * penalty, rel=1e-9, abs=1e-9)
