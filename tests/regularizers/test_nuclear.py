"""Low rank at the size of layers: what counts as zero among singular values, and what thresholding does to rank."""

from __future__ import annotations

import pytest
import torch

from torch_bregman.regularizers import Nuclear


def low_rank(rank, m, n, dtype=torch.float32):
    """Return a product of factors, whose small singular values are its rounding."""
    generator = torch.Generator().manual_seed(rank)
    left = torch.randn(m, rank, generator=generator, dtype=dtype)
    return left @ torch.randn(rank, n, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 12])
@pytest.mark.parametrize(("m", "n"), [(100, 60), (20, 300)])
def test_subgradient_has_the_rank_of_the_weights(rank, m, n, dtype):
    values = torch.linalg.svdvals(Nuclear(1.0).subgradient(low_rank(rank, m, n, dtype)).double())
    torch.testing.assert_close(values[:rank], torch.ones(rank).double(), rtol=1e-5, atol=0)
    assert values[rank:].max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("delta", [0.3, 1.0, 10.0])
def test_a_low_rank_start_stays_what_it_is(dtype, delta):
    reg, theta = Nuclear(0.5), low_rank(3, 100, 60, dtype)
    back = reg.mirror(reg.inverse_mirror(theta, delta), delta)
    torch.testing.assert_close(back, theta, rtol=0, atol=8 * torch.finfo(dtype).eps * float(theta.norm()))
    noise = torch.linalg.svdvals(back.double())[3:]
    assert noise.max() <= torch.finfo(dtype).eps * float(theta.norm())


@pytest.mark.parametrize(("view", "shape"), [("rows", (8, 18)), ("spatial", (24, 6)), ("kernels", (16, 9))])
def test_rank_of_a_convolution_falls_in_the_matrix_of_the_view(view, shape):
    weight = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reg = Nuclear(1.0, view)
    matrix = reg.matrix(weight)
    assert matrix.shape == shape
    values = torch.linalg.svdvals(matrix)
    middle = float(values[2:4].mean())
    shrunk = torch.linalg.svdvals(reg.matrix(reg.prox(weight, lam=middle)))
    torch.testing.assert_close(shrunk, (values - middle).clamp_min(0), rtol=1e-10, atol=1e-10)
    assert int((shrunk > 1e-9).sum()) == 3


def test_value_and_dual_norm_of_a_diagonal():
    x = torch.diag(torch.tensor([3.0, -4.0, 0.0]))
    assert float(Nuclear(2.0).value(x)) == pytest.approx(14)
    assert float(Nuclear(2.0).dual_norm(x)) == pytest.approx(4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    x = torch.ones(3, 4)
    x[0, 0] = bad
    for method in (Nuclear().prox, Nuclear().mirror):
        with pytest.raises(ValueError, match="lower lr or clip gradients"):
            method(x)
