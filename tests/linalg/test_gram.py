"""Singular value thresholding against the full singular value decomposition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.linalg import svt_gram


def reference(matrix, threshold):
    """Return U max(S − t, 0) Wᵀ by LAPACK's full decomposition, and the singular values."""
    U, S, Wt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return (U * np.maximum(S - threshold, 0)) @ Wt, S


def with_values(values, m, n, seed=0):
    """Return an m × n matrix with the given singular values and random singular vectors."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, len(values))))[0]
    W = np.linalg.qr(rng.standard_normal((n, len(values))))[0]
    return (U * np.array(values)) @ W.T


def random(m, n, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n))


CASES = {
    "random wide": (random(6, 20), 2.5),
    "random tall": (random(40, 7), 4.0),
    "random square": (random(15, 15), 3.0),
    "very wide": (random(2, 500), 20.0),
    "one row": (random(1, 9), 1.0),
    "one column": (random(9, 1), 1.0),
    "one entry": (np.array([[-3.0]]), 1.0),
    "low rank": (random(20, 3) @ random(3, 30, 1), 5.0),
    "rank deficient": (with_values([5, 4, 0, 0, 0], 5, 12), 1.0),
    "equal rows": (np.ones((6, 4)), 0.5),
    "all equal to each other": (with_values([2.0] * 6, 6, 9), 1.0),
    "clustered around the threshold": (with_values([1 + 1e-3 * k for k in (-3, -2, -1, 1, 2, 3)], 8, 11), 1.0),
    "some far above, some far below": (with_values([1e3, 1e2, 1, 1e-2, 1e-4], 10, 6), 1e-1),
    "ill-conditioned": (with_values(np.logspace(5, -1, 12), 16, 24), 1.0),
    "all below": (with_values([1, 0.5, 0.2], 4, 5), 2.0),
    "threshold zero": (random(5, 8), 0.0),
    "zero matrix": (np.zeros((3, 4)), 1.0),
    "zero matrix, threshold zero": (np.zeros((3, 4)), 0.0),
    "orthogonal projection": (np.diag([1.0, 1.0, 0.0, 0.0]), 0.25),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", list(CASES))
def test_agrees_with_the_full_decomposition(case, dtype):
    matrix, threshold = CASES[case]
    given_matrix = torch.tensor(matrix, dtype=dtype)
    expected, S = reference(given_matrix.numpy(), threshold)
    got = svt_gram(given_matrix, threshold)
    assert got.dtype == dtype
    # float64 squares: a value σ > t comes with an error of some eps·σ1²/σ ≤ eps·σ1²/t
    gram = 10 * np.finfo(np.float64).eps * S[0] * max(1.0, S[0] / (threshold or np.inf))
    rounding = torch.finfo(dtype).eps * np.abs(expected).max()
    assert np.abs(got.double().numpy() - expected).max() <= rounding + gram


@pytest.mark.parametrize("case", list(CASES))
def test_keeps_exactly_the_values_above_the_threshold(case):
    matrix, threshold = CASES[case]
    _, S = reference(matrix, threshold)
    got = np.linalg.svd(svt_gram(torch.tensor(matrix), threshold).numpy(), compute_uv=False)
    assert (got > 1e-9 * max(S[0], 1e-300)).sum() == (S - threshold > 1e-9 * S[0]).sum()


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    rank=st.integers(1, 12),
    exponent=st.integers(-12, 12),
    share=st.floats(0.01, 1.2),
    seed=st.integers(0, 10**6),
)
def test_agrees_on_any_shape_rank_and_scale(m, n, rank, exponent, share, seed):
    matrix = (random(m, rank, seed) @ random(rank, n, seed + 1) * 10.0**exponent).astype(np.float32)
    threshold = share * float(np.linalg.norm(matrix, 2))
    expected, S = reference(matrix, threshold)
    got = svt_gram(torch.tensor(matrix), threshold).numpy()
    assert np.abs(got - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-12 * S[0]


@pytest.mark.parametrize("ratio", [1e1, 1e2, 1e3, 1e4, 1e5])
def test_float32_is_exact_to_rounding_up_to_a_large_ratio(ratio):
    matrix = with_values(np.geomspace(ratio, 0.01, 20), 20, 60, seed=3).astype(np.float32)
    expected, S = reference(matrix, 1.0)
    got = svt_gram(torch.tensor(matrix), 1.0).numpy()
    assert np.abs(got - expected.astype(np.float32)).max() <= np.finfo(np.float32).eps * np.abs(expected).max()
    assert np.abs(np.linalg.norm(got.astype(np.float64) - expected)) <= 1e-7 * S[0]


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [(torch.float32, [1e-37, 1e-30, 1e-18, 1e18, 1e30, 1e36]), (torch.float64, [1e-300, 1e-150, 1e150, 1e300])],
)
def test_scales_with_the_matrix(dtype, scales):
    matrix = torch.tensor(random(5, 8), dtype=dtype)
    expected = svt_gram(matrix, 1.5)
    assert torch.count_nonzero(expected)
    for scale in scales:
        got = svt_gram(matrix * scale, 1.5 * scale) / scale
        torch.testing.assert_close(got, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(3, 50), (50, 3)])
def test_decomposes_the_smaller_side_only(shape, monkeypatch):
    sides = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda gram: (sides.append(gram.shape), eigh(gram))[1])
    svt_gram(torch.tensor(random(*shape)), 1.0)
    assert sides == [(3, 3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_thresholded_in_float64_and_rounded_once(dtype):
    matrix = torch.tensor(random(6, 9), dtype=dtype)
    expected = svt_gram(matrix.double(), 1.0).to(dtype)
    got = svt_gram(matrix, 1.0)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, rtol=torch.finfo(dtype).eps, atol=0)


def test_threshold_zero_gives_every_singular_value_back():
    matrix = torch.tensor(with_values([1, 1e-9, 1e-12], 3, 5))
    assert torch.equal(svt_gram(matrix, 0.0), matrix)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_empty_matrices_stay_as_they_are(shape):
    assert svt_gram(torch.zeros(shape), 1.0).shape == shape


@pytest.mark.parametrize("matrix", [torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(0, 3)], ids=["0", "1", "empty"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 9.0])
def test_the_result_is_new_memory_and_the_matrix_untouched(matrix, threshold):
    before = matrix.clone()
    svt_gram(matrix, threshold).add_(1)
    assert torch.equal(matrix, before)


def test_strides_do_not_matter():
    matrix = torch.tensor(random(6, 9))
    for strided in (matrix.mT.contiguous().mT, torch.stack([matrix, matrix], -1)[..., 0]):
        torch.testing.assert_close(svt_gram(strided, 1.0), svt_gram(matrix, 1.0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_entries_that_are_not_finite_are_refused_with_a_remedy(bad, dtype):
    matrix = torch.ones(3, 4, dtype=dtype)
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match=r"finite entries, got nan or inf: lower lr or clip gradients"):
        svt_gram(matrix, 0.0)
