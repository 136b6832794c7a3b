from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.metrics import rank


def product(rows: int, columns: int, k: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, k, generator=generator, dtype=torch.float64)
    return left @ torch.randn(k, columns, generator=generator, dtype=torch.float64)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), k=st.integers(0, 6), seed=st.integers(0, 99))
def test_agrees_with_numpy(rows: int, columns: int, k: int, seed: int) -> None:
    matrix = product(rows, columns, k, seed)
    assert rank(matrix) == np.linalg.matrix_rank(matrix.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_to_a_shorter_type_leaves_the_rank(dtype: torch.dtype) -> None:
    assert rank(product(300, 200, 7, seed=0).to(dtype)) == 7


def test_convolutions_are_seen_as_out_by_rest_unless_told_otherwise() -> None:
    horizontal, vertical = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    kernels = horizontal.unsqueeze(-1) * vertical.unsqueeze(-2)
    assert rank(kernels) == 4
    assert rank(kernels.reshape(12, 1, 5, 5)[:1]) == 1
    assert rank(torch.ones(4, 3, 5, 5), view="spatial") == 1


def test_the_tolerance_is_a_size_of_singular_values() -> None:
    assert rank(torch.diag(torch.tensor([3.0, 1.0, 0.5])), tol=0.9) == 2


def test_zero_and_empty_weights_have_rank_zero() -> None:
    assert rank(torch.zeros(3, 4)) == 0
    assert rank(torch.zeros(3, 0)) == 0


def test_diverged_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        rank(torch.tensor([[float("nan"), 1.0]]))
