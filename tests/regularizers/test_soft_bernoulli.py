"""The random map: its odds, its seed, its generator, and what it does not have."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch

from torch_bregman.regularizers import SoftBernoulli

X = torch.linspace(-2, 2, 50)


@pytest.mark.parametrize(
    ("lam", "step", "force"), [(1.0, 1.0, None), (0.5, 1.0, None), (0.3, 2.0, None), (9, 1.0, 0.7)]
)
@pytest.mark.parametrize("x", [0.01, 0.5, -1.0, 1.7, -3.0])
def test_entries_survive_with_the_odds_of_the_formula(x, lam, step, force):
    draws = 40_000
    reg = SoftBernoulli(lam, seed=3)
    result = reg.prox(torch.full((draws,), x), step, lam=force)
    assert set(result.unique().tolist()) <= {0.0, math.copysign(1.0, x)}
    odds = (1 + math.tanh(abs(x) - step * (lam if force is None else force))) / 2
    deviation = math.sqrt(odds * (1 - odds) / draws)
    assert float(result.abs().mean()) == pytest.approx(odds, abs=4 * deviation)


def test_zero_stays_zero_and_large_entries_become_their_sign():
    result = SoftBernoulli(1.0).prox(torch.tensor([0.0, 50.0, -50.0, math.inf, -math.inf] * 100).reshape(100, 5))
    assert torch.equal(result, torch.tensor([0.0, 1.0, -1.0, 1.0, -1.0]).expand(100, 5))


def test_mirror_is_the_map_of_the_scaled_point():
    assert torch.equal(SoftBernoulli(0.3).mirror(X, 4.0), SoftBernoulli(0.3).prox(4.0 * X, 4.0))


def test_inverse_mirror_is_the_start_of_the_reference_code():
    theta = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(SoftBernoulli(0.5).inverse_mirror(theta, 4.0), torch.tensor([1.0, 0.0, -0.75]))
    torch.testing.assert_close(SoftBernoulli(9).inverse_mirror(theta, 4.0, lam=0.5), torch.tensor([1.0, 0.0, -0.75]))


def test_draws_follow_from_the_seed_alone():
    first, again, other = SoftBernoulli(seed=1), SoftBernoulli(seed=1), SoftBernoulli(seed=2)
    torch.manual_seed(5)
    drawn = first.prox(X)
    torch.manual_seed(6)
    assert torch.equal(again.prox(X), drawn)
    assert not torch.equal(other.prox(X), drawn)
    assert not torch.equal(first.prox(X), drawn)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    SoftBernoulli(seed=1).prox(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_state_takes_up_the_draws_where_they_were():
    reg, other = SoftBernoulli(seed=1), SoftBernoulli(seed=2)
    reg.prox(X)
    buffer = io.BytesIO()
    torch.save(reg.state(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    drawn = reg.prox(X)
    reg.prox(X)
    reg.load_state(state)
    other.load_state(state)
    assert torch.equal(reg.prox(X), drawn)
    assert torch.equal(other.prox(X), drawn)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda reg: pickle.loads(pickle.dumps(reg))])
def test_a_copy_draws_the_same_and_for_itself(twin_of):
    reg = SoftBernoulli(0.5, seed=1)
    reg.prox(X)
    twin = twin_of(reg)
    assert twin == reg
    drawn = [reg.prox(X) for _ in range(2)]
    assert torch.equal(twin.prox(X), drawn[0])
    assert torch.equal(twin.prox(X), drawn[1])


def test_what_is_shared_stays_shared_in_a_deep_copy():
    reg = SoftBernoulli(seed=1)
    one, two = copy.deepcopy([reg, reg])
    assert one is two
    assert one is not reg


@pytest.mark.parametrize("method", ["value", "subgradient", "dual_norm"])
def test_there_is_no_penalty(method):
    with pytest.raises(TypeError, match="random map without a penalty J: it has no"):
        getattr(SoftBernoulli(), method)(X)


def test_there_is_no_first_activation():
    with pytest.raises(TypeError, match="random map without a penalty J"):
        SoftBernoulli().first_activation(X, 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (4, 3), (2, 2, 3, 3)], ids=str)
def test_shape_and_dtype_are_kept(dtype, shape):
    x = torch.full(shape, 30.0, dtype=dtype)
    result = SoftBernoulli().prox(x)
    assert result.dtype == dtype
    assert torch.equal(result, torch.ones(shape, dtype=dtype))
    assert torch.equal(x, torch.full(shape, 30.0, dtype=dtype))


def test_out_may_be_the_argument_and_of_any_layout_or_dtype():
    x = X.reshape(5, 10).T
    expected = SoftBernoulli(seed=1).prox(x)
    for out in (x.clone(), torch.empty(5, 10).T, torch.empty(10, 5, dtype=torch.float64)):
        strides = out.stride()
        assert SoftBernoulli(seed=1).prox(x, out=out) is out
        assert out.stride() == strides
        assert torch.equal(out, expected.to(out.dtype))
    inplace = x.clone()
    assert torch.equal(SoftBernoulli(seed=1).prox(inplace, out=inplace), expected)
    assert torch.equal(inplace, expected)


def test_nan_is_never_hidden():
    x = torch.tensor([torch.nan, 40.0, -40.0])
    result = SoftBernoulli().prox(x)
    assert result[0].isnan()
    assert result[1:].tolist() == [1.0, -1.0]
    assert SoftBernoulli().inverse_mirror(x)[0].isnan()
