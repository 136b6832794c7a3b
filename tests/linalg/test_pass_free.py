"""The sketch follows a matrix it does not read, and knows when it no longer can."""

from __future__ import annotations

import io

import pytest
import torch

from torch_bregman.linalg.full import FullEngine
from torch_bregman.linalg.pass_free import PassFreeEngine
from torch_bregman.linalg.sketch import Sketch
from torch_bregman.linalg.tracked import TrackedEngine

T = 1.0


def orthonormal(n, k, rng):
    return torch.linalg.qr(torch.randn(n, k, generator=rng, dtype=torch.float64)).Q.mT


def matrix(values, m, n, rng):
    """A matrix with these singular values, and its singular vectors as rows."""
    left, right = orthonormal(m, len(values), rng), orthonormal(n, len(values), rng)
    return (left.mT * torch.tensor(values, dtype=torch.float64)) @ right, left, right


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def followed(rng):
    """V, a sketch of it whose block holds all but the last two of its values, and its singular vectors."""
    V, left, right = matrix([5.0, 4.0, 3.0, 2.0, 0.6, 0.5, 0.4, 0.3, 0.02, 0.01], 40, 30, rng)
    return V, Sketch(V, right[:8], right[:8] @ V.mT, generator=rng), left, right


def relative_error(found, V):
    exact = FullEngine()(V, T).matrix()
    return float((found.matrix() - exact).norm() / exact.norm())


def move(V, sketch, A, B, alpha):
    V.addmm_(A.mT, B, alpha=alpha)
    sketch.add(A, B, alpha)


def test_a_matrix_of_the_rank_of_the_block_is_followed_exactly_however_it_turns(rng):
    V, _, right = matrix([5.0, 4.0, 3.0, 0.5, 0.4, 0.3], 40, 30, rng)
    sketch = Sketch(V, right, right @ V.mT, generator=rng)
    for turn in (0.2, 0.4, 0.6):
        # V (I + turn·S) has the rank of V
        S = torch.randn(30, 30, generator=rng, dtype=torch.float64) / 30
        move(V, sketch, V.mT.clone(), turn * S, 1.0)
    result = sketch.threshold(T)
    assert result is not None
    assert relative_error(result, V) < 1e-9


def test_a_basis_of_the_left_side_will_do(rng):
    V, left, right = matrix([5.0, 4.0, 3.0, 2.0, 0.6, 0.5, 0.4, 0.3, 0.02], 40, 30, rng)
    sketch = Sketch(V, left[:8], left[:8] @ V, True, generator=rng)
    move(V, sketch, left[4:6], right[4:6], 1.0)
    assert relative_error(sketch.threshold(T), V) < 1e-12


def test_values_grow_and_cross_the_threshold_within_the_block(followed):
    V, sketch, left, right = followed
    move(V, sketch, left[4:6], right[4:6], 1.0)
    result = sketch.threshold(T)
    assert int(result.rank) == 6
    assert relative_error(result, V) < 1e-12
    assert result.values.tolist() == pytest.approx([5.0, 4.0, 3.0, 2.0, 1.6, 1.5])


def test_the_error_is_of_second_order_in_what_moves_out_of_the_block(followed, rng):
    V, sketch, left, _ = followed
    errors = []
    for _ in range(2):
        move(V, sketch, left[:1], 0.01 * torch.randn(1, 30, generator=rng, dtype=torch.float64), 1.0)
        errors.append(relative_error(sketch.threshold(T), V))
    assert max(errors) < 1e-4


def test_a_new_direction_above_the_threshold_is_noticed(followed, rng):
    V, sketch, *_ = followed
    u, w = orthonormal(40, 1, rng), orthonormal(30, 1, rng)
    move(V, sketch, u, w, 0.05)
    assert sketch.threshold(T) is not None
    move(V, sketch, u, w, 1.5)
    assert sketch.threshold(T) is None


def test_a_weak_block_that_updates_couple_to_is_noticed(rng):
    # the Schur complement divides what left the block by its weakest value
    V, left, right = matrix([5.0, 4.0, 0.02, 0.015, 0.012], 40, 30, rng)
    sketch = Sketch(V, right, right @ V.mT, generator=rng)
    assert sketch.holds(T)
    move(V, sketch, left[4:5], orthonormal(30, 1, rng), 0.2)
    move(V, sketch, orthonormal(40, 1, rng), right[4:5], 0.2)
    assert sketch.threshold(T) is None


def test_too_few_values_below_the_threshold_have_no_answer(followed):
    V, sketch, left, right = followed
    move(V, sketch, left[4:7], right[4:7], 1.0)
    assert sketch.threshold(T) is None


@pytest.mark.parametrize("last", [0.91, 0.005])
def test_a_block_too_shallow_or_too_weak_is_not_worth_following(rng, last):
    V, _, right = matrix([5.0, 4.0, 0.95, last], 40, 30, rng)
    assert not Sketch(V, right, right @ V.mT, generator=rng).holds(T)


def test_what_is_not_finite_has_no_answer(followed):
    _, sketch, left, right = followed
    sketch.add(left[:1] * float("nan"), right[:1], 1.0)
    assert sketch.threshold(T) is None


def test_a_sketch_survives_a_checkpoint(followed, rng):
    V, sketch, left, right = followed
    move(V, sketch, left[4:6], right[4:6], 1.0)
    file = io.BytesIO()
    torch.save(sketch.state(), file)
    file.seek(0)
    other = Sketch.from_state(torch.load(file, weights_only=True))
    for each in (sketch, other):
        each.add(left[:1], right[:1], 0.5)
    assert torch.equal(sketch.threshold(T).matrix(), other.threshold(T).matrix())


def updates(rng, steps=30, m=120, n=100):
    """Yield V and the thin update it has just taken."""
    V, *_ = matrix([*torch.linspace(5, 2, 8).tolist(), *(0.7 * 0.9**i for i in range(40))], m, n, rng)
    for _ in range(steps):
        A = 0.03 * torch.randn(4, m, generator=rng, dtype=torch.float64)
        B = 0.03 * torch.randn(4, n, generator=rng, dtype=torch.float64)
        yield V.addmm_(A.mT, B), A, B


def test_between_two_readings_the_matrix_is_not_read(rng):
    engine, read = PassFreeEngine(refresh=5), []
    for V, A, B in updates(rng):
        engine.add(A, B, 1.0)
        try:
            result = engine(torch.full_like(V, float("nan")), T)
        except ValueError:
            result = engine(V, T)
        read.append(not result.reason.startswith("sketch"))
        assert relative_error(result, V) < 2e-3
    assert read == [True, False, False, False, False] * 6


def test_with_refresh_1_it_is_the_tracked_engine(rng):
    engine, tracked = PassFreeEngine(refresh=1), TrackedEngine(told=True)
    for V, A, B in updates(rng, steps=5):
        engine.add(A, B, 1.0)
        tracked.add(A, B, 1.0)
        assert torch.equal(engine(V, T).matrix(), tracked(V, T).matrix())


def test_a_jump_is_answered_at_once_and_followed_again(rng):
    engine = PassFreeEngine(refresh=100)
    for step, (V, A, B) in enumerate(updates(rng, steps=12)):
        engine.add(A, B, 1.0)
        if step == 6:
            u, w = 3 * orthonormal(120, 1, rng), orthonormal(100, 1, rng)
            V.addmm_(u.mT, w)
            engine.add(u, w, 1.0)
        result = engine(V, T)
        assert result.reason.startswith("sketch") == (step not in {0, 6})
        assert relative_error(result, V) < 2e-3


def test_a_low_rank_start_is_read_at_every_call_until_its_block_is_full(rng):
    engine, (V, *_) = PassFreeEngine(refresh=3), matrix([5.0, 4.0], 120, 100, rng)
    assert not any(engine(V, T).reason.startswith("sketch") for _ in range(6))
    noise = 0.01 * torch.randn(120, 100, generator=rng, dtype=torch.float64)
    reasons = []
    for _ in range(6):
        engine.add(noise.mT, torch.eye(100, dtype=torch.float64), 1.0)
        reasons.append(engine(V.add_(noise), T).reason.split()[0])
        noise.zero_()
    assert reasons[-3:].count("sketch") == 2


def test_the_engine_goes_on_from_a_checkpoint_bit_for_bit(rng):
    engine, other = PassFreeEngine(refresh=4), None
    for step, (V, A, B) in enumerate(updates(rng, steps=20)):
        engine.add(A, B, 1.0)
        if other is not None:
            other.add(A, B, 1.0)
            assert torch.equal(engine(V, T).matrix(), other(V, T).matrix())
        else:
            engine(V, T)
        if step == 9:
            file = io.BytesIO()
            torch.save(engine.state(), file)
            file.seek(0)
            other = PassFreeEngine(refresh=4)
            other.load_state(torch.load(file, weights_only=True))


def test_what_is_not_finite_is_refused(rng):
    engine = PassFreeEngine(refresh=10)
    for V, A, B in updates(rng, steps=2):
        engine.add(A, B, 1.0)
        engine(V, T)
    bad = torch.full((1, 120), float("nan"), dtype=torch.float64)
    engine.add(bad, bad[:, :100], 1.0)
    with pytest.raises(ValueError, match="finite"):
        engine(V.addmm_(bad.mT, bad[:, :100]), T)
