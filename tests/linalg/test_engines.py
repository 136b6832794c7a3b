"""What every engine promises, against the full decomposition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.linalg.reference import error, gaussian, svt, with_values
from torch_bregman.linalg import (
    ENGINES,
    AutoEngine,
    Engine,
    FullEngine,
    GramEngine,
    MatmulEngine,
    RandomizedEngine,
    TrackedEngine,
)

MAKE = {
    "auto": AutoEngine,
    "full": FullEngine,
    "gram": GramEngine,
    "matmul": MatmulEngine,
    "randomized": lambda: RandomizedEngine(rank=64, oversampling=64),
    "tracked": TrackedEngine,
}
"""The randomised engine is given a cap that no matrix here reaches: then it is exact."""

ROUNDING = {"auto": 2, "full": 15, "gram": 2, "randomized": 20, "tracked": 2}
"""Error on first sight in units of eps·‖V‖_F, eps that of float32; auto and tracked start exactly."""

CASES = {
    "random wide": (gaussian(20, 50), 6.0),
    "random tall": (gaussian(50, 20), 6.0),
    "random square": (gaussian(30, 30), 5.0),
    "very wide": (gaussian(3, 400), 18.0),
    "one row": (gaussian(1, 9), 1.0),
    "one column": (gaussian(9, 1), 1.0),
    "one entry": (torch.tensor([[-3.0]], dtype=torch.float64), 1.0),
    "low rank": (gaussian(40, 3) @ gaussian(3, 30, seed=1), 5.0),
    "rank deficient": (with_values([5, 4, 0, 0, 0], 5, 12), 1.0),
    "equal rows": (torch.ones(6, 4, dtype=torch.float64), 0.5),
    "all equal to each other": (with_values([2.0] * 6, 6, 9), 1.0),
    "clustered around the threshold": (with_values([1 + 1e-3 * k for k in (-3, -2, -1, 1, 2, 3)], 20, 30), 1.0),
    "values at the threshold": (torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.5], dtype=torch.float64)), 1.0),
    "ill-conditioned 1e2": (with_values(torch.logspace(2, -2, 12), 16, 24), 1.0),
    "ill-conditioned 1e3": (with_values(torch.logspace(3, -1, 12), 24, 16), 1.0),
    "ill-conditioned 1e5": (with_values(torch.logspace(5, -1, 12), 16, 24), 1.0),
    "all below": (with_values([1, 0.5, 0.2], 4, 5), 2.0),
    "threshold zero": (gaussian(12, 8), 0.0),
    "threshold zero, low rank": (with_values([3, 2], 12, 8), 0.0),
    "zero matrix": (torch.zeros(3, 4, dtype=torch.float64), 1.0),
    "zero matrix, threshold zero": (torch.zeros(3, 4, dtype=torch.float64), 0.0),
}


def promised(name: str, V: torch.Tensor, t: float) -> float:
    """Return the error in the Frobenius norm that an engine may make of a matrix given as float32."""
    S = torch.linalg.svdvals(V.double())
    size = float(torch.linalg.vector_norm(S)) if V.numel() else 0.0
    if name == "matmul":
        return (3e-6 if t and S.max() < 100 * t else 2e-5) * size
    return ROUNDING[name] * torch.finfo(torch.float32).eps * size


def off(engine: Engine, V: torch.Tensor, t: float) -> float:
    """Return ‖W − SVT_t(V)‖_F."""
    return float(torch.linalg.vector_norm(engine(V, t).matrix().double() - svt(V, t)[0]))


@pytest.fixture(params=MAKE, scope="module")
def name(request):
    return request.param


def test_every_engine_of_the_table_is_tested():
    assert sorted(MAKE) == sorted(ENGINES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_full_decomposition(name, case, dtype):
    matrix, t = CASES[case]
    V = matrix.to(dtype)
    if not torch.isfinite(V).all():
        pytest.skip("out of the range of float16")
    result = MAKE[name]()(V, t)
    assert result.matrix().dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert result.matrix().shape == V.shape
    assert off(MAKE[name](), V, t) <= promised(name, V, t)


@pytest.mark.parametrize("case", CASES)
def test_factors_values_and_rank_belong_together(name, case):
    matrix, t = CASES[case]
    V = matrix.float()
    result, S = MAKE[name]()(V, t), svt(V, t)[1]
    kept = result.values.shape[-1]
    assert result.left.shape == (kept, V.shape[0])
    assert result.right.shape == (kept, V.shape[1])
    assert result.values.dtype == torch.float64
    assert result.threshold == t
    assert bool((result.values.diff() <= 0).all())
    close = 5 * promised(name, V, t) + 1e-12
    torch.testing.assert_close(result.values, S[:kept], rtol=0, atol=close)
    least, most = ((bound < S).sum() for bound in (t + close, t - close))
    assert least <= int(result.rank) <= most
    # the rows are σ-weighted singular vectors: their outer products have the norms σ − t
    norms = torch.linalg.vector_norm(result.left, dim=-1) * torch.linalg.vector_norm(result.right, dim=-1)
    torch.testing.assert_close(norms.double(), (result.values - t).clamp_min(0), rtol=0, atol=close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_batch_is_its_matrices_one_by_one(name, dtype):
    few, many = with_values([4, 3, 0.5], 30, 20), with_values([9, 8, 7, 6, 5, 4, 3], 30, 20, seed=1)
    V = torch.stack([few, many, torch.zeros(30, 20), gaussian(30, 20) / 3]).to(dtype)
    result = MAKE[name]()(V, 1.0)
    assert result.rank.tolist() == [2, 7, 0, int((torch.linalg.svdvals(V[3]) > 1).sum())]
    assert result.matrix().shape == V.shape
    for got, matrix in zip(result.matrix(), V, strict=True):
        torch.testing.assert_close(got.double(), svt(matrix, 1.0)[0], rtol=0, atol=promised(name, V, 1.0))


def test_strides_do_not_matter(name):
    weight = gaussian(12, 4, 3, 5).float()
    filters = weight.flatten(1)
    for V in (
        filters,
        filters.mT,
        weight.permute(0, 2, 1, 3).reshape(36, 20)[::2],
        filters[:, ::3],
        filters.expand(2, 12, 60),
    ):
        assert off(MAKE[name](), V, 6.0) <= promised(name, V, 6.0)


@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e18])
def test_scales_with_the_matrix_in_float32(name, scale):
    V = (with_values([30, 20, 10, 3, 2, 0.9, 0.5, 0.1], 40, 25) * scale).float()
    assert off(MAKE[name](), V, scale) <= promised(name, V, scale)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 0, 3)])
def test_empty_matrices_stay_as_they_are(name, shape):
    result = MAKE[name]()(torch.zeros(shape), 1.0)
    assert result.matrix().shape == shape
    assert result.rank.shape == shape[:-2]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_entries_that_are_not_finite_are_refused_with_a_remedy(name, bad, dtype):
    matrix = torch.ones(3, 4, dtype=dtype)
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match=r"finite entries, got nan or inf: lower lr or clip gradients"):
        MAKE[name]()(matrix, 0.5)


@pytest.mark.parametrize(
    ("matrix", "t", "message"),
    [
        (torch.ones(3), 1.0, r"floating point \(…, m, n\), got torch.float32 \(3,\)"),
        (torch.ones(3, 3, dtype=torch.int64), 1.0, r"floating point \(…, m, n\), got torch.int64"),
        (torch.ones(3, 3, dtype=torch.complex64), 1.0, r"floating point \(…, m, n\), got torch.complex64"),
        (torch.ones(3, 3), -1.0, r"threshold must lie in \[0, inf\), got -1.0"),
        (torch.ones(3, 3), math.nan, r"threshold must lie in \[0, inf\), got nan"),
        (torch.ones(3, 3), math.inf, r"threshold must lie in \[0, inf\), got inf"),
    ],
)
def test_what_is_no_matrix_or_threshold_is_refused(name, matrix, t, message):
    with pytest.raises(ValueError, match=message):
        MAKE[name]()(matrix, t)


@pytest.mark.parametrize("t", [0.0, 0.5, 9.0])
def test_the_matrix_is_left_alone_and_the_result_is_new_memory(name, t):
    V = with_values([4, 3, 0.2], 6, 5).float()
    before = V.clone()
    result = MAKE[name]()(V, t)
    result.matrix().add_(1)
    result.left.add_(1)
    result.right.add_(1)
    assert torch.equal(V, before)


def test_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    MAKE[name]()(gaussian(20, 30).float(), 3.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_gradient_is_recorded_of_a_parameter(name):
    weight = torch.nn.Parameter(gaussian(8, 6).float())
    with torch.no_grad():
        assert not MAKE[name]()(weight, 1.0).matrix().requires_grad


@given(
    m=st.integers(1, 24),
    n=st.integers(1, 24),
    rank=st.integers(1, 24),
    exponent=st.integers(-12, 12),
    share=st.floats(0.01, 1.2),
    seed=st.integers(0, 10**6),
)
def test_agrees_on_any_shape_rank_and_scale(name, m, n, rank, exponent, share, seed):
    V = (gaussian(m, rank, seed=seed) @ gaussian(rank, n, seed=seed + 1) * 10.0**exponent).float()
    t = share * float(torch.linalg.matrix_norm(V, 2))
    assert off(MAKE[name](), V, t) <= promised(name, V, t)


@given(n=st.integers(1, 12), seed=st.integers(0, 10**6), t=st.floats(0.0, 3.0))
def test_is_a_proximal_map(name, n, seed, t):
    """V − W lies in t·∂‖·‖_* at W: spectral norm at most t, ⟨V − W, W⟩ = t ‖W‖_*."""
    V = gaussian(8, n, seed=seed)
    W = MAKE[name]()(V, t).matrix()
    tight = 2e-5 * float(torch.linalg.vector_norm(V))
    assert torch.linalg.matrix_norm(V - W, 2) <= t + tight
    assert abs(((V - W) * W).sum() - t * torch.linalg.svdvals(W).sum()) <= tight * (1 + torch.linalg.vector_norm(W))


def test_the_second_look_is_as_good_as_promised(name):
    """A memory must not make the same matrix worse."""
    engine, V = MAKE[name](), gaussian(60, 40).float()
    for _ in range(3):
        assert error(engine(V, 9.0), V, 9.0) <= 1e-3
