"""The default engine says what it chose, and why, in every regime."""

from __future__ import annotations

import pytest
import torch

from tests.linalg.reference import error, walk, with_values
from torch_bregman.linalg import AutoEngine


def matrix(rank: int, height: float = 4.0, seed: int = 0) -> torch.Tensor:
    """Return 150 × 200 with that many values above 1, the largest `height`."""
    S = torch.cat([torch.linspace(height, 1.3, rank), torch.logspace(-0.3, -3, 150 - rank)])
    return with_values(S, 150, 200, seed=seed).float()


def test_small_matrices_are_decomposed():
    engine = AutoEngine()
    assert engine.reason == "auto: not called yet"
    for shape, short in (((128, 900), 128), ((900, 5), 5), ((1, 1), 1)):
        V = next(walk(shape, 1))
        assert error(engine(V, 1.0), V, 1.0) <= 1e-6
        assert engine.reason == f"auto: shorter side of {short} <= 128 -> Gram eigendecomposition in float64"


def test_a_threshold_of_zero_is_decomposed():
    engine = AutoEngine()
    engine(matrix(3), 0.0)
    assert engine.reason == "auto: threshold of 0 -> Gram eigendecomposition in float64"


def test_low_ranks_are_tracked_from_the_second_call_on():
    engine = AutoEngine()
    reasons = [engine(V, 1.0).reason for V in walk((150, 200), 3, stride=0.01)]
    assert reasons[0] == (
        "auto: rank 0 <= 0.35 of the shorter side of 150 -> Gram eigendecomposition in float64: no subspace yet"
    )
    assert reasons[1].startswith("auto: rank 8 <= 0.35 of the shorter side of 150 -> tracked in 1 pass")
    assert reasons[2] == engine.reason


def test_high_ranks_are_decomposed_in_the_precision_they_need():
    mild, steep = AutoEngine(), AutoEngine()
    for engine, height in ((mild, 90.0), (steep, 110.0)):
        engine(matrix(60, height), 1.0)
        engine(matrix(60, height), 1.0)
    why = "auto: rank 60 > 0.35 of the shorter side of 150 -> Gram eigendecomposition in"
    assert mild.reason == f"{why} float32"
    assert steep.reason == f"{why} float64"


def test_it_goes_over_and_back_as_the_rank_rises_and_falls():
    engine, kinds = AutoEngine(), []
    for step, rank in enumerate((5, 5, 60, 60, 60, 5, 5, 5, 20, 20)):
        V = matrix(rank, seed=step // 3)
        result = engine(V, 1.0)
        assert error(result, V, 1.0) <= 1e-3
        kinds.append(
            "tracked" if "tracked" in result.reason else "float32" if "float32" in result.reason else "float64"
        )
    assert kinds == [
        *("float64", "tracked"),  # 5
        *("tracked", "float32", "float32"),  # 60: seen by the tracked engine, which grows
        *("float32", "float64", "tracked"),  # 5: a new subspace
        *("tracked", "tracked"),  # 20
    ]


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_loaded_state_goes_on_bit_by_bit(cut):
    ranks = (5, 5, 60, 60, 5, 5, 5, 20, 20, 20)
    through, first, second = AutoEngine(seed=1), AutoEngine(seed=1), AutoEngine(seed=2)
    for step, rank in enumerate(ranks):
        V = matrix(rank, seed=step)
        if step < cut:
            first(V, 1.0)
        if step == cut:
            second.load_state(first.state())
        got = through(V, 1.0)
        if step >= cut:
            again = second(V, 1.0)
            assert torch.equal(got.matrix(), again.matrix())
            assert got.reason == again.reason


def test_a_refused_matrix_leaves_the_choice_as_it_was():
    engine = AutoEngine()
    for V in walk((150, 200), 3):
        engine(V, 1.0)
    before, reason = engine.state(), engine.reason
    with pytest.raises(ValueError, match="finite"):
        engine(torch.full((150, 200), torch.nan), 1.0)
    assert engine.reason == reason
    assert torch.equal(before["Q"], engine.state()["Q"])
    assert before["rank"] == engine.state()["rank"]


def test_the_tolerance_is_that_of_the_tracked_engine():
    engine = AutoEngine(tolerance=1e-5)
    assert max(error(engine(V, 1.0), V, 1.0) for V in walk((150, 200), 6)) <= 1e-5
    with pytest.raises(ValueError, match="tolerance"):
        AutoEngine(tolerance=-1.0)
