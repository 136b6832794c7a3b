"""The nuclear norm under a rank cap: against brute force, in an optimizer, and through copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import torch_bregman as tb


def capped_svt(x, threshold, rank):
    """The minimiser of ½‖y − x‖² + t‖y‖_* over rank y ≤ k, by numpy."""
    U, S, Vh = np.linalg.svd(x.double().numpy(), full_matrices=False)
    S = np.maximum(S - threshold, 0)
    S[rank:] = 0
    return torch.from_numpy((U * S) @ Vh)


@pytest.mark.parametrize("rank", [1, 3, 7, 20])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (9, 9)])
def test_prox_keeps_the_leading_triplets(rank, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    regularizer = tb.DynamicRankNuclear(0.4, rank=rank)
    torch.testing.assert_close(regularizer.prox(x, 2.0), capped_svt(x, 0.8, rank))
    torch.testing.assert_close(regularizer.prox(x, lam=0.0), capped_svt(x, 0.0, rank))


def test_prox_beats_every_other_matrix_of_that_rank_tried():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 7, generator=generator, dtype=torch.float64)
    regularizer = tb.DynamicRankNuclear(0.3, rank=2)

    def objective(y):
        return 0.5 * (y - x).square().sum() + regularizer.value(y)

    best = regularizer.prox(x)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        left, right = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (6, 7))
        U, S, Vh = torch.linalg.svd(best)
        moved = (U[:, :2] * S[:2] + scale * left) @ (Vh[:2].mT + scale * right).mT
        assert objective(best) <= objective(moved)


def test_the_cap_moves_within_its_limits():
    regularizer = tb.DynamicRankNuclearRegularizer(0.1, rank=4, max_rank=8)
    regularizer.set_rank(8)
    assert regularizer.get_rank() == 8
    for rank in (0, -1, 9, 2.5, True):
        with pytest.raises(ValueError, match=rf"from 1 to 8.*{rank}"):
            regularizer.set_rank(rank)
    with pytest.raises(ValueError, match="max_rank"):
        tb.DynamicRankNuclear(0.1, max_rank=0)
    assert regularizer.get_rank() == 8


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_have_a_cap_of_their_own(duplicate):
    regularizer = tb.DynamicRankNuclear(0.1, rank=4)
    regularizer.set_rank(6)
    twin = duplicate(regularizer)
    twin.set_rank(9)
    assert (regularizer.get_rank(), twin.get_rank()) == (6, 9)
    assert twin == regularizer


def training(**options):
    model = torch.nn.Linear(30, 20, bias=False)
    tb.low_rank_(model, 2, seed=0)
    regularizer = tb.DynamicRankNuclear(0.05, **options)
    optimizer = tb.LinBreg(tb.param_groups(model, {torch.nn.Linear: regularizer}), lr=0.1)
    x = torch.randn(64, 30, generator=torch.Generator().manual_seed(1))
    y = x @ torch.randn(30, 20, generator=torch.Generator().manual_seed(2))

    def step():
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    return model, optimizer, regularizer, step


def test_the_rank_fills_the_cap_and_wakes_at_once_when_it_rises():
    model, optimizer, regularizer, step = training(rank=3)
    for _ in range(200):
        step()
    assert tb.metrics.rank(model.weight) == 3
    regularizer.set_rank(9)
    step()
    assert tb.metrics.rank(model.weight) == 9
    assert optimizer.mirror_residual() < 1e-5


def test_the_cap_travels_in_checkpoints():
    _, optimizer, regularizer, step = training(rank=3)
    step()
    regularizer.set_rank(7)
    state = optimizer.state_dict()
    _, other, its, _ = training(rank=3)
    other.load_state_dict(state)
    assert its.get_rank() == 7


def test_a_start_of_higher_rank_is_refused_with_the_remedy():
    model = torch.nn.Linear(10, 10)
    optimizer = tb.LinBreg([model.weight], regularizer=tb.DynamicRankNuclear(0.1, rank=4))
    model.weight.grad = torch.zeros_like(model.weight)
    with pytest.raises(ValueError, match=r"rank 4 cannot start at a weight of rank 10.*low_rank_"):
        optimizer.step()
