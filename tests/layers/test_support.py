"""Products on a fixed support, against dense ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torch_bregman.layers.support import SupportLinear, SupportMatrix, Workspace

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def draw(seed: int, rows: int, columns: int, density: float, dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, generator=rng).to(dtype)
    return dense * (torch.rand(rows, columns, generator=rng) < density)


def support(dense: torch.Tensor) -> SupportMatrix:
    flat = (dense != 0).view(-1).nonzero().view(-1)
    return SupportMatrix(flat, dense.view(-1)[flat], (dense.shape[0], dense.shape[1]))


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_products_are_those_of_the_dense_matrix(seed: int, rows: int, columns: int, density: float):
    dense = draw(seed, rows, columns, density, torch.float64)
    matrix = support(dense)
    x, dy = torch.randn(columns, 4).double(), torch.randn(rows, 4).double()
    torch.testing.assert_close(matrix.matmul(x), dense @ x)
    torch.testing.assert_close(matrix.matmul(x, out=dy.clone()), dense @ x + dy)
    torch.testing.assert_close(matrix.transposed_matmul(dy), dense.t() @ dy)
    torch.testing.assert_close(matrix.transposed_matmul(dy, out=torch.full((columns, 4), 7.0).double()), dense.t() @ dy)
    torch.testing.assert_close(matrix.gradient(dy, x), (dy @ x.t()).view(-1)[matrix.flat])
    assert torch.equal(matrix.to_dense(), dense)


@DTYPES
def test_values_changed_in_place_change_both_products(dtype: torch.dtype):
    dense = draw(0, 6, 5, 0.5, dtype)
    matrix, eye = support(dense), torch.eye(6, dtype=dtype)
    matrix.transposed_matmul(eye)
    matrix.values.mul_(2)
    torch.testing.assert_close(matrix.matmul(torch.eye(5, dtype=dtype)), 2 * dense)
    torch.testing.assert_close(matrix.transposed_matmul(eye), 2 * dense.t())


@DTYPES
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_has_the_gradients_of_a_dense_one(dtype: torch.dtype, relu: bool, bias: bool):
    dense = draw(3, 6, 5, 0.5, dtype)
    matrix, room = support(dense), Workspace((6, 5), dtype)
    linear = nn.Linear(5, 6, bias).to(dtype)
    with torch.no_grad():
        linear.weight.copy_(dense)
    for batch in (7, 7, 3):
        x = torch.randn(5, batch, dtype=dtype, requires_grad=True)
        expected = linear(x.t()).t()
        expected = expected.relu() if relu else expected
        linear.zero_grad()
        wanted = torch.autograd.grad(expected.square().sum(), [x, *linear.parameters()])
        seen = []
        free = linear.bias.detach().clone().requires_grad_() if bias else None
        options = relu, lambda dy, x, seen=seen: seen.append(matrix.gradient(dy, x).clone())
        y = SupportLinear.apply(x, free, torch.empty(0, requires_grad=True), matrix, room, options)
        torch.testing.assert_close(y, expected)
        found = torch.autograd.grad(y.square().sum(), [x] if free is None else [x, free])
        torch.testing.assert_close(found[0], wanted[0])
        torch.testing.assert_close(seen[0], wanted[1].view(-1)[matrix.flat])
        if bias:
            torch.testing.assert_close(found[1], wanted[2])
