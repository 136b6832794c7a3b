"""Products by the C program, against dense ones in float64."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_bregman.layers.support import SupportMatrix
from torch_bregman.multilevel.native.matrix import NativeSupportMatrix, matrix_type, transposed
from torch_bregman.optim.native.build import COMPILERS

pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C compiler")


@given(
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 15, 16, 17, 128, 131, 160, 257]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_products_are_those_of_the_dense_matrix(seed: int, rows: int, columns: int, batch: int, density: float):
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, generator=rng) * (torch.rand(rows, columns, generator=rng) < density)
    flat = (dense != 0).view(-1).nonzero().view(-1)
    matrix = NativeSupportMatrix(flat, dense.view(-1)[flat], (rows, columns))
    x, dy = torch.randn(columns, batch, generator=rng), torch.randn(rows, batch, generator=rng)
    near = {"rtol": 1e-4, "atol": 1e-4}
    wide = dense.double()
    torch.testing.assert_close(matrix.matmul(x).double(), wide @ x.double(), **near)
    torch.testing.assert_close(matrix.matmul(x, out=dy.clone()).double(), wide @ x.double() + dy, **near)
    torch.testing.assert_close(matrix.matmul(x.t().contiguous().t()).double(), wide @ x.double(), **near)
    room = torch.full((columns, batch), 7.0)
    torch.testing.assert_close(matrix.transposed_matmul(dy, out=room).double(), wide.t() @ dy.double(), **near)
    expected = (dy.double() @ x.double().t()).view(-1)[flat]
    for _ in range(2):
        torch.testing.assert_close(matrix.gradient(dy, x).double(), expected, **near)


@given(st.integers(0, 99), st.integers(1, 9), st.sampled_from([1, 15, 16, 17, 128, 131]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_layers_are_those_of_torch(seed: int, rows: int, batch: int, biased: bool, relu: bool):
    rng = torch.Generator().manual_seed(seed)
    flat = torch.rand(rows * 5, generator=rng).gt(0.5).nonzero().view(-1)
    entries, x = torch.randn(len(flat), generator=rng), torch.randn(5, batch, generator=rng)
    bias = torch.randn(rows, generator=rng) if biased else None
    found, expected = (
        kind(flat, entries, (rows, 5)).linear(x, bias, relu, torch.full((rows, batch), 7.0))
        for kind in (NativeSupportMatrix, SupportMatrix)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    dy, matrix = torch.randn(rows, batch, generator=rng), NativeSupportMatrix(flat, entries, (rows, 5))
    y = expected.relu()
    if rows > 1:
        y[1, 0] = torch.nan
    through, sums = matrix.before_relu(dy, y.clone())
    torch.testing.assert_close(through, dy.where(~(y <= 0), torch.zeros(())), rtol=0, atol=0)
    torch.testing.assert_close(sums, through.sum(1), rtol=1e-5, atol=1e-5)


def test_what_is_no_number_stays_so():
    one = torch.full((1, 17), torch.nan)
    matrix = NativeSupportMatrix(torch.tensor([0]), torch.ones(1), (1, 1))
    assert bool(matrix.linear(one, torch.zeros(1), True, torch.empty(1, 17)).isnan().all())


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (128, 784), (17, 33), (0, 3), (5, 0)])
def test_a_transpose_is_that_of_torch(shape: tuple[int, int]):
    x = torch.arange(float(shape[0] * shape[1])).view(shape)
    assert torch.equal(transposed(x), x.t())


@pytest.mark.parametrize("length", [0, 1, 1000, 1 << 15, (1 << 17) + 3])
@pytest.mark.parametrize("lam", [0.0, 0.1, 1.3, 9.0])
def test_positions_above_are_those_of_torch(length: int, lam: float):
    v = torch.randn(length, generator=torch.Generator().manual_seed(length))
    v[::7] = lam  # as a float32: not above itself
    v[1::11] = -lam
    expected = (v.abs() > lam).nonzero().view(-1)
    assert torch.equal(NativeSupportMatrix.above(v, lam), expected)
    assert torch.equal(SupportMatrix.above(v, lam), expected)


def test_autograd_hears_of_what_it_writes():
    matrix = NativeSupportMatrix(torch.tensor([0]), torch.ones(1), (1, 1))
    out = torch.zeros(1, 4)
    before = out._version
    matrix.matmul(torch.ones(1, 4), out=out)
    assert out._version > before


def test_double_precision_stays_with_torch():
    assert matrix_type(torch.float64, True) is matrix_type(torch.float32, False) is SupportMatrix
    assert matrix_type(torch.float32, True) is NativeSupportMatrix
