"""Energy, Lanczos bound and audit against the singular values of what is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.linalg.reference import gaussian, orthonormal, with_values
from torch_bregman.linalg.outside import energies, largest_outside, nothing_above
from torch_bregman.linalg.sweep import sweep


def split(shape, rank, seed=0):
    """Return a Gaussian matrix, orthonormal rows U of any subspace, and the singular values of (I − UᵀU)V."""
    V = gaussian(*shape, seed=seed)
    U = orthonormal(shape[0], rank, torch.Generator().manual_seed(seed)).mT
    return V, U, torch.linalg.svdvals(V - U.mT @ (U @ V))


def start(n, seed=0):
    return torch.randn(1, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_energy_is_the_squared_norm_whatever_the_strides(dtype):
    V = gaussian(40, 30).to(dtype)
    for view in (V, V.mT, V[::2, ::3], torch.stack([V, 2 * V]), torch.stack([V, 2 * V]).mT):
        expected = view.double().square().sum((-2, -1)).reshape(-1)
        np.testing.assert_allclose(energies(view), expected, rtol=1e-6 if dtype == torch.float32 else 1e-14)


def test_energy_of_a_large_float32_matrix_keeps_seven_digits():
    V = gaussian(4000, 600).float()
    np.testing.assert_allclose(energies(V), V.double().square().sum(), rtol=1e-7)


@given(
    m=st.integers(1, 30),
    n=st.integers(1, 30),
    share=st.floats(0, 1),
    steps=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_the_lanczos_bound_is_one(m, n, share, steps, seed):
    V, U, S = split((m, n), int(share * (m - 1)), seed)
    value, left, row = largest_outside(V, U, 3.0, start(n, seed), steps)
    assert value <= S[0] * (1 + 1e-10) + 1e-12
    # and it is what the vectors show
    shown = (torch.eye(m, dtype=torch.float64) - U.mT @ U) @ V @ row.mT
    torch.testing.assert_close(shown, value * left.mT, rtol=1e-7, atol=1e-9)


def test_lanczos_steps_find_the_largest_value_outside():
    V, U, S = split((90, 60), 7)
    values = [float(largest_outside(V, U, 3.0, start(60), steps)[0]) for steps in (1, 3, 6, 12, 24)]
    assert values == sorted(values)
    assert values[2] > 0.95 * S[0]
    assert values[-1] > (1 - 1e-4) * S[0]


def test_six_steps_see_a_direction_twice_as_high_as_the_noise():
    rest = gaussian(200, 150)
    rest /= torch.linalg.matrix_norm(rest, 2)
    for seed in range(20):
        V = rest + with_values([2.0], 200, 150, seed=seed)
        value, *_ = largest_outside(V, V.new_zeros(0, 200), 1.0, start(150, seed), 6)
        assert value > 1.9


def test_lanczos_stops_growing_where_there_is_nothing_more():
    """A Krylov space that is exhausted: rank 2, and zero."""
    V = with_values([3.0, 1.0], 20, 15)
    value, *_ = largest_outside(V.float(), torch.zeros(0, 20), 3.0, start(15).float(), 8)
    assert value == pytest.approx(3.0, rel=1e-6)
    assert largest_outside(torch.zeros(20, 15), torch.zeros(0, 20), 1.0, start(15).float(), 8)[0] == 0


def test_lanczos_on_a_batch_is_one_by_one():
    V = torch.stack([gaussian(30, 20), 5 * gaussian(30, 20, seed=1)])
    U = torch.stack([orthonormal(30, 4, torch.Generator().manual_seed(s)).mT for s in (0, 1)])
    x = torch.stack([start(20), start(20, 1)])
    together, *_ = largest_outside(V, U, 2.0, x, 5)
    alone = torch.stack([largest_outside(V[i], U[i], 2.0, x[i], 5)[0] for i in (0, 1)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_the_audit_holds_exactly_below_the_bound(scale):
    V, U, S = split((60, 40), 7)
    V, bound = (V * scale).float(), float(S[0]) * scale
    U = U.float()
    assert nothing_above(V, U, U @ V, 1.001 * bound)
    assert not nothing_above(V, U, U @ V, 0.999 * bound)


def test_the_audit_of_a_batch_needs_all_of_it():
    V = torch.stack([with_values([1.0, 0.5], 20, 10), with_values([2.0, 0.5], 20, 10)])
    none = V.new_zeros(2, 0, 20)
    assert nothing_above(V, none, none @ V, 2.1)
    assert not nothing_above(V, none, none @ V, 1.5)


def test_a_pass_from_the_leading_subspace_gives_the_triplets():
    V = with_values([5, 4, 3, 2, 1, 0.5], 30, 20)
    seen = sweep(V, torch.linalg.svd(V).Vh[:4])
    torch.testing.assert_close(seen.values, torch.tensor([5.0, 4, 3, 2], dtype=torch.float64))
    torch.testing.assert_close(seen.left @ V, seen.right)
    torch.testing.assert_close(seen.left @ seen.left.mT, torch.eye(4, dtype=torch.float64))
    assert seen.error(2.5, seen.outside(energies(V))) < 1e-10


def test_a_pass_from_nearly_dependent_images_is_orthonormal_all_the_same():
    """Q orthogonal to the range of V but for one row: Cholesky cannot do that."""
    V = with_values([5.0, 4.0], 30, 20)
    right = torch.linalg.svd(V).Vh
    seen = sweep(V, torch.cat([right[:1], right[5:9]]))
    torch.testing.assert_close(seen.left @ seen.left.mT, torch.eye(5, dtype=torch.float64))
    assert float(seen.values[0]) == pytest.approx(5.0)


def test_a_pass_sees_nothing_from_an_orthogonal_subspace():
    V = torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0]))
    assert sweep(V, torch.eye(4)[2:]) is None
    with pytest.raises(ValueError, match="finite"):
        sweep(V * torch.nan, torch.eye(4)[2:])
