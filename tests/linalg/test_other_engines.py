"""What is special about the full, the Gram, the randomised and the matmul engine, and the table of names."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.linalg.reference import error, gaussian, svt, walk, with_values
from torch_bregman.linalg import (
    ENGINES,
    Engine,
    FullEngine,
    GramEngine,
    MatmulEngine,
    RandomizedEngine,
    TrackedEngine,
    new_engine,
)


def test_full_without_convergence_takes_the_gram_engine_and_warns_once(monkeypatch):
    def diverge(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    V = gaussian(12, 9).float()
    expected = svt(V, 2.0)[0]
    monkeypatch.setattr(torch.linalg, "svd", diverge)
    engine = FullEngine()
    with pytest.warns(UserWarning, match="did not converge: the Gram engine took over"):
        result = engine(V, 2.0)
    assert "Gram" in result.reason
    torch.testing.assert_close(result.matrix().double(), expected, rtol=0, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(V, 2.0)


def test_gram_in_float32_loses_only_what_is_far_below_the_largest():
    for ratio, allowed in ((10, 2e-6), (100, 1e-5)):
        V = with_values(torch.logspace(0, -3, 30) * ratio, 60, 50).float()
        assert error(GramEngine(torch.float32)(V, 1.0), V, 1.0) <= allowed
    with pytest.raises(ValueError, match=r"dtype of the gram engine must be torch\.float32 or torch\.float64"):
        GramEngine(torch.float16)


@pytest.mark.parametrize("cap", [1, 4, 8])
def test_randomized_cuts_at_its_cap_and_errs_by_what_it_cuts(cap):
    V = with_values([10, 9, 8, 7, 6, 5, 4, 3, 2, 1.5, 0.5, 0.1], 60, 40).float()
    result = RandomizedEngine(rank=cap)(V, 1.0)
    exact, S = svt(V, 1.0)
    assert int(result.rank) == cap
    missing = torch.linalg.vector_norm(result.matrix() - exact)
    cut = torch.linalg.vector_norm((S[cap:] - 1).clamp_min(0))
    assert cut > 0.05 * torch.linalg.vector_norm(exact)
    torch.testing.assert_close(missing, cut, rtol=1e-2, atol=0)


def test_randomized_above_the_rank_is_close():
    V = with_values(torch.cat([torch.linspace(5, 1.5, 8), torch.logspace(-0.3, -2, 60)]), 200, 150).float()
    assert error(RandomizedEngine(rank=8, oversampling=8)(V, 1.0), V, 1.0) <= 5e-3
    assert error(RandomizedEngine(rank=8, oversampling=8, iterations=5)(V, 1.0), V, 1.0) <= 1e-5


def test_randomized_goes_on_where_its_state_says():
    V, one, two = gaussian(40, 30).float(), RandomizedEngine(rank=3), RandomizedEngine(rank=3)
    first, second = one(V, 1.0).matrix(), one(V, 1.0).matrix()
    assert not torch.equal(first, second)
    two.load_state({"calls": 1})
    assert torch.equal(two(V, 1.0).matrix(), second)
    assert one.state() == two.state() == {"calls": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "rank of the randomized engine must be an integer of at least 1, got 0"),
        ((4, -1), "oversampling of the randomized engine must be an integer of at least 0, got -1"),
        ((4, 8, -1), "iterations of the randomized engine must be an integer of at least 0, got -1"),
    ],
)
def test_randomized_refuses_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomizedEngine(*arguments)


@pytest.mark.parametrize("ratio", [1e1, 1e2, 1e3, 1e4, 1e5])
def test_matmul_promises_so_much_of_the_norm(ratio):
    V = with_values(torch.logspace(0, -7, 60) * ratio, 90, 70).float()
    off = torch.linalg.vector_norm(MatmulEngine()(V, 1.0).matrix() - svt(V, 1.0)[0])
    assert off <= (3e-6 if ratio < 100 else 2e-5) * torch.linalg.vector_norm(V.double())


def test_matmul_follows_as_well_as_it_sees_at_once():
    engine = MatmulEngine()
    assert max(error(engine(V, 1.0), V, 1.0) for V in walk((90, 130), 3, rank=20)) <= 1e-5


def test_matmul_with_too_few_passes_is_wrong():
    """So that the accuracy above is not for free."""
    V = with_values(torch.logspace(0, -7, 60) * 1e3, 90, 70).float()
    assert error(MatmulEngine(4)(V, 1.0), V, 1.0) > 1e-3
    with pytest.raises(ValueError, match="passes of the matmul engine must be an integer of at least 1, got 0"):
        MatmulEngine(0)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_by_its_bare_name(name):
    engine = new_engine(name)
    assert isinstance(engine, ENGINES[name])
    assert engine.name == name
    assert str(engine).startswith(name)
    assert type(new_engine(str(engine))) is type(engine)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("auto(1e-4)", "auto(0.0001)"),
        ("randomized(16)", "randomized(16, 8, 2)"),
        ("randomized(16, 4)", "randomized(16, 4, 2)"),
        (" randomized ( 16,4 , 1 ) ", "randomized(16, 4, 1)"),
        ("tracked(1e-4)", "tracked(0.0001)"),
        ("tracked(0.01)", "tracked(0.01)"),
        ("matmul(12)", "matmul(12)"),
        ("gram()", "gram"),
    ],
)
def test_numbers_in_brackets_are_taken_in_order(text, shown):
    engine = new_engine(text)
    assert str(engine) == shown
    assert str(new_engine(str(engine))) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "engine '' is unknown: use one of auto, full, gram, matmul, randomized, tracked"),
        ("svd", "engine 'svd' is unknown"),
        ("Tracked", "engine 'Tracked' is unknown"),
        ("tracked(1e-4", "engine 'tracked(1e-4' is unknown"),
        ("tracked(a)", "is unknown"),
        ("tracked(0)", "engine 'tracked(0)' cannot be made: tolerance"),
        ("tracked(--1)", "cannot be made"),
        ("randomized(0)", "cannot be made: rank of the randomized engine must be an integer of at least 1, got 0"),
        ("randomized(1.5)", "must be an integer of at least 1, got 1.5"),
        ("full(3)", "engine 'full(3)' cannot be made"),
        ("gram(32)", "cannot be made: dtype"),
        (3, "engine 3 is unknown"),
    ],
)
def test_other_names_are_refused(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        new_engine(text)
    assert message in str(caught.value)


def test_an_engine_of_ones_own_needs_a_call_only():
    class Nothing(Engine):
        name = "nothing"

        def __call__(self, matrix, threshold):
            return TrackedEngine()(matrix * 0, threshold)

    engine = Nothing()
    engine.load_state({"anything": 1})
    assert engine.state() == {}
    assert str(engine) == "nothing"
    assert not engine(torch.ones(3, 3), 1.0).matrix().any()
