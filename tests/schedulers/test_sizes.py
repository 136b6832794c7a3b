"""Sizes: what a budget leaves awake, against sorting everything; what each target counts."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.schedulers import Bytes, Density, LamByQuantile, MultiplyAdds, Parameters, Rank, Size, Units
from torch_bregman.schedulers.quantile import Rated, crossing, spent
from torch_bregman.schedulers.same_ranks import same_ranks

LEVELS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 8, width=32))


def by_sorting(levels: list[np.ndarray], costs: list[np.ndarray], budget: float) -> tuple[float, float]:
    """Return the lowest level kept and the first one dropped, by sorting all."""
    x, c = np.concatenate(levels).astype(float), np.concatenate(costs)
    order = np.argsort(-x, kind="stable")
    kept = int((np.cumsum(c[order]) <= budget * (1 + 1e-12)).sum())
    return (x[order[kept - 1]] if kept else math.inf), (x[order[kept]] if kept < len(x) else 0.0)


@given(
    levels=st.lists(LEVELS, min_size=1, max_size=3),
    cost=st.sampled_from([1.0, 5.0, 0.25]),
    share=st.floats(0, 1.2),
    guess=st.floats(0, 10),
)
def test_the_crossing_is_that_of_sorting_whatever_the_guess(
    levels: list[np.ndarray], cost: float, share: float, guess: float
) -> None:
    costs = [np.full(len(x), cost * (i + 1)) for i, x in enumerate(levels)]
    budget = share * sum(c.sum() for c in costs)
    rated = [Rated(torch.from_numpy(x), cost * (i + 1)) for i, x in enumerate(levels)]
    assert tuple(crossing(rated, budget, guess)) == by_sorting(levels, costs, budget)
    by_entry = [Rated(torch.from_numpy(x), torch.from_numpy(c)) for x, c in zip(levels, costs, strict=True)]
    assert tuple(crossing(by_entry, budget, guess)) == by_sorting(levels, costs, budget)


@pytest.mark.parametrize("guess", [0.0, 0.01, 0.7, 0.704, 50.0])
@pytest.mark.parametrize("digits", [None, 2])
def test_of_many_levels_too_it_is_that_of_sorting(digits: int | None, guess: float) -> None:
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(0)).abs()
    x = x if digits is None else x.round(decimals=digits)  # many are equal
    parts = [x[:30_000], x[30_000:]]
    for share in (0.001, 0.01, 0.48, 0.9, 0.9999):
        budget = share * (30_000 + 3 * 10_000)
        costs = [np.full(30_000, 1.0), np.full(10_000, 3.0)]
        expected = by_sorting([part.numpy() for part in parts], costs, budget)
        assert tuple(crossing([Rated(parts[0], 1.0), Rated(parts[1], 3.0)], budget, guess)) == expected


@given(levels=LEVELS, lam=st.floats(0, 8))
def test_what_is_spent_is_what_lies_above(levels: np.ndarray, lam: float) -> None:
    lam = float(np.float32(lam))
    assert spent([Rated(torch.from_numpy(levels), 3.0)], lam) == 3 * int((levels > lam).sum())


def test_levels_that_are_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="nan: lower lr"):
        crossing([Rated(torch.tensor([math.nan, 1.0, math.nan]), 1.0)], budget=1.5)


def conv() -> Tensor:
    return torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("size", "regularizer", "param", "whole", "levels", "cost"),
    [
        (Density(0.5), tb.L1(), torch.zeros(6, 4), 24, 24, 1),
        (Density(0.5), tb.GroupL2(view="kernels"), conv(), 216, 24, 9),
        (Density(0.5), tb.SparseGroup(view="rows"), torch.zeros(6, 4), 24, 24, 1),
        (Units(0.5), tb.GroupL2(view="columns"), torch.zeros(6, 4), 4, 4, 1),
        (Units(0.5), tb.L1(), torch.zeros(6, 4), 6, 6, 1),
        (Units(0.5, view="columns"), tb.L1(), torch.zeros(6, 4), 4, 4, 1),
        (Parameters(9.0), tb.GroupL2(view="filters"), conv(), 216, 6, 36),
        (MultiplyAdds(0.5), tb.L1(), torch.zeros(6, 4), 24, 24, 1),
        (Bytes(0.5), tb.L1(), torch.zeros(6, 4), 96, 24, 8),
        (Bytes(0.5), tb.GroupL2(), torch.zeros(6, 4, dtype=torch.float64), 192, 6, 32),
    ],
)
def test_what_is_counted(size: Size, regularizer: Any, param: Tensor, whole: float, levels: int, cost: float) -> None:
    assert size.whole(param, regularizer) == whole
    rated = size.rate(regularizer, param, param)
    assert (len(rated.levels), rated.cost) == (levels, cost)


@pytest.mark.parametrize("size", [Parameters(9.0), MultiplyAdds(9.0), Bytes(9.0)])
def test_a_rank_costs_its_factors_until_the_dense_weight_is_less(size: Size) -> None:
    weight, regularizer = torch.zeros(6, 4), tb.Nuclear()
    costs = size.rate(regularizer, weight, weight).cost
    unit = 4 if isinstance(size, Bytes) else 1
    assert isinstance(costs, Tensor)
    assert costs.tolist() == [10 * unit, 10 * unit, 4 * unit, 0]
    assert float(costs.sum()) == size.whole(weight, regularizer)


def test_multiply_adds_count_every_use() -> None:
    weight = nn.Parameter(conv())
    size = MultiplyAdds(0.5, {weight: 100})
    assert size.whole(weight, tb.L1()) == 21600
    assert size.rate(tb.GroupL2(view="kernels"), weight.detach(), weight).cost == 900


@pytest.mark.parametrize("kind", [Density, Units, Rank, Parameters, MultiplyAdds, Bytes])
@pytest.mark.parametrize("goal", [0.0, -1.0, math.nan, math.inf])
def test_a_goal_must_be_above_zero(kind: Any, goal: float) -> None:
    with pytest.raises(ValueError, match=rf"a target of {kind.name} must be a number > 0, got {goal!r}"):
        kind(goal)


@pytest.mark.parametrize(
    ("size", "regularizer", "message"),
    [
        (Density(0.5), tb.Nuclear(), "nuclear makes no single weights sleep: set a target of rank or params"),
        (Units(0.5), tb.Nuclear(), "nuclear makes no units sleep"),
        (Rank(5.0), tb.L1(), "a target of rank needs the nuclear norm, got l1"),
    ],
)
def test_what_a_regularizer_does_not_make_sleep(size: Size, regularizer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        size.whole(torch.zeros(3, 3), regularizer)


def stored(shapes: list[tuple[int, int]], ranks: list[int]) -> int:
    return sum(min(r * (m + n), m * n) for (m, n), r in zip(shapes, ranks, strict=True))


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    share=st.floats(0.05, 1.0),
    free=st.integers(0, 20),
)
def test_the_same_rank_in_every_weight_is_the_largest_that_fits(
    shapes: list[tuple[int, int]], share: float, free: int
) -> None:
    """Against all common ranks, tried one after the other."""
    groups = [{"regularizer": tb.Nuclear(1.0), "params": [torch.zeros(shape)]} for shape in shapes]
    budget = share * (sum(m * n for m, n in shapes) + free)
    size, beside = Parameters(max(budget, 1.5)), [torch.zeros(free, 1)]
    full = [min(shape) for shape in shapes]
    common = [[min(r, each) for each in full] for r in range(1, max(full) + 1)]
    fitting = [ranks for ranks in common if stored(shapes, ranks) + free <= size.goal]
    if stored(shapes, common[0]) + free > size.goal:
        with pytest.raises(ValueError, match="the least that keeps rank 1 in every weight is"):
            same_ranks(size, groups, beside)
        return
    found = [round(share * each) for share, each in zip(same_ranks(size, groups, beside), full, strict=True)]
    assert stored(shapes, found) + free <= size.goal
    above = common[len(fitting)] if len(fitting) < len(common) else full
    assert all(low <= rank <= high for low, rank, high in zip(fitting[-1], found, above, strict=True))
    assert found == full or any(
        stored(shapes, [r + (i == which) for i, r in enumerate(found)]) + free > size.goal
        for which in range(len(found))
        if found[which] < above[which]
    )


def test_ranks_are_shared_out_only_among_weights_under_a_nuclear_norm_of_their_own() -> None:
    weight = nn.Parameter(torch.zeros(4, 5))
    low = {"regularizer": tb.Nuclear(1.0), "params": [weight]}
    assert same_ranks(Parameters(20.0), [low, {**low, "params": [weight, weight]}], []) == []
    assert same_ranks(Parameters(20.0), [low, {**low, "regularizer": tb.L1(1.0)}], []) == []
    assert [rank.goal for rank in Parameters(18.0).apart([low, low], [])] == [0.25, 0.25]
    assert Rank(3.0).apart([low, low], []) == [Rank(3.0), Rank(3.0)]
    optimizer = tb.LinBreg([low], lr=0.1)
    with pytest.raises(ValueError, match="makes no single weights sleep"):
        LamByQuantile(optimizer, Density(0.5), scope="group")
