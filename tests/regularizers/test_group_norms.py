"""Group norms where squares leave the range of the dtype, and the ways not to pay for that where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_bregman.regularizers import group_l2
from torch_bregman.regularizers.group_l2 import GroupL2, group_norms

INNERS = [(1,), (0,), (1, 2), (0, 2), (2,), (0, 1, 2)]


def with_scales(scales, dtype):
    """Return a tensor whose entry [i, j, k] is of the order of scales[i]·scales[j]."""
    x = torch.randn(len(scales), len(scales), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    s = torch.tensor(scales, dtype=torch.float64)
    return (x * s[:, None, None] * s[:, None]).to(dtype)


@pytest.mark.parametrize("inner", INNERS, ids=str)
@pytest.mark.parametrize(
    ("scales", "dtype"),
    [
        ([1.0, 2.0], torch.float32),
        ([1.0, 0.0, 2.0], torch.float32),
        ([1.0, 1e-12, 1e-15], torch.float32),
        ([1.0, 1e-20, 1e-22], torch.float32),  # squares that are subnormal, not yet 0
        ([1.0, 1e12, 1e15], torch.float32),
        ([1.0, 1e-15, 1e15, 0.0], torch.float32),
        ([1.0, 1e-100, 1e100, 0.0], torch.float64),
        ([1.0, 100.0, 0.0], torch.float16),
        ([1.0, 1e15, 0.0], torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize("grad", [False, True])
def test_agree_with_scaled_norms_in_float64(scales, dtype, inner, grad):
    x = with_scales(scales, dtype)
    exact = x.double().numpy()
    peaks = np.abs(exact).max(axis=inner, keepdims=True)
    expected = np.sqrt(((exact / np.where(peaks > 0, peaks, 1)) ** 2).sum(axis=inner, keepdims=True)) * peaks
    norms = group_norms(x.requires_grad_(grad), inner)
    assert norms.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    least = torch.finfo(norms.dtype).tiny * torch.finfo(norms.dtype).eps
    np.testing.assert_allclose(norms.detach().numpy(), expected, rtol=1e-5, atol=2 * least)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("inner", INNERS, ids=str)
def test_only_groups_with_a_bad_entry_are_bad(bad, inner):
    x = with_scales([1.0, 2.0, 3.0], torch.float32)
    x[1, 1, 1] = bad
    norms = group_norms(x, inner)
    touched = (~torch.isfinite(x)).any(dim=inner, keepdim=True) if len(inner) < 3 else torch.ones(1, 1, 1).bool()
    assert torch.equal(~torch.isfinite(norms), touched)


@pytest.mark.parametrize("scale", [1.0, 0.0])
@pytest.mark.parametrize("inner", INNERS, ids=str)
def test_zero_groups_are_no_reason_to_take_norms_twice(inner, scale, monkeypatch):
    x = with_scales([1.0, 0.0, 2.0], torch.float32) * scale
    expected = torch.linalg.vector_norm(x.double(), dim=inner, keepdim=True).float()
    monkeypatch.setattr(group_l2, "_scaled_norms", lambda *_: pytest.fail("took the slow path"))
    torch.testing.assert_close(group_norms(x, inner), expected)


def test_squares_that_vanish_are_told_from_zeros():
    x = torch.tensor([[3e-30, 4e-30], [0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(group_norms(x, (1,)).flatten(), torch.tensor([5e-30, 0.0, 5.0]), rtol=1e-6, atol=0)


def test_norms_are_not_written_into_the_weights():
    x = torch.randn(3, 4)
    before = x.clone()
    group_norms(x, ()).add_(1)
    assert torch.equal(x, before)
    GroupL2(0.1, "elements").prox(x)
    assert torch.equal(x, before)
