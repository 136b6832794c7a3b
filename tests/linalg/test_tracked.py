"""The tracked engine over sequences: within its tolerance at every step, whatever happens to the matrix."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.linalg.reference import error, gaussian, orthonormal, svt, walk, with_hidden_direction, with_values
from torch_bregman.linalg import TrackedEngine
from torch_bregman.linalg.sweep import sweep

TOLERANCE = 1e-3
SHAPES = [(160, 240), (240, 160), (160, 160)]


def follow(engine: TrackedEngine, matrices, t: float = 1.0) -> list[float]:
    """Return the error of every call."""
    return [error(engine(V, t), V, t) for V in matrices]


def same(a: dict, b: dict) -> bool:
    """Return whether two states are equal bit by bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a
    )


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 160, 96)], ids=str)
def test_stays_within_its_tolerance_on_a_walk(shape, tolerance):
    engine = TrackedEngine(tolerance)
    assert max(follow(engine, walk(shape, 40))) <= tolerance
    assert engine.counts["exact"] == 1  # the first


@given(
    m=st.integers(20, 90),
    n=st.integers(20, 90),
    rank=st.integers(0, 12),
    stride=st.sampled_from([1e-3, 0.02, 0.2]),
    exponent=st.integers(-17, 17),
    batch=st.sampled_from([(), (3,)]),
    seed=st.integers(0, 10**6),
)
def test_stays_within_its_tolerance_on_any_walk(m, n, rank, stride, exponent, batch, seed):
    scale = 10.0**exponent
    matrices = [V * scale for V in walk((*batch, m, n), 8, rank=rank, stride=stride, seed=seed)]
    assert max(follow(TrackedEngine(), matrices, scale)) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype):
    assert max(follow(TrackedEngine(), (V.to(dtype) for V in walk((120, 90), 20)))) <= TOLERANCE


@pytest.mark.parametrize("ratio", [1e2, 1e3, 1e5])
def test_ill_conditioned_matrices_are_followed(ratio):
    engine = TrackedEngine()
    S = torch.logspace(0, -1, 12) * torch.tensor([ratio] + [10.0] * 11)
    base = with_values(torch.cat([S, torch.logspace(-0.5, -3, 60)]), 160, 110)
    matrices = [(base + 0.02 * step * with_values([1, 1], 160, 110, seed=1)).float() for step in range(12)]
    assert max(follow(engine, matrices)) <= TOLERANCE
    assert engine.counts["exact"] == 1


def test_a_cluster_at_the_threshold_is_followed():
    """Values within a few per cent of t that cross it to and fro."""
    S = torch.cat([torch.tensor([4.0, 2.0]), 1 + 0.01 * torch.linspace(-3, 3, 9), torch.logspace(-0.2, -2, 60)])
    base = with_values(S, 160, 120)
    drift = (base * (1 + 0.02 * torch.sin(torch.tensor(0.7 * step))) for step in range(25))
    assert max(follow(TrackedEngine(), (V.float() for V in drift))) <= TOLERANCE


def test_rank_jumps_are_followed_at_once():
    engine, t = TrackedEngine(), 1.0
    for rank in (8, 8, 40, 40, 154, 154, 154, 8, 8, 0, 0, 8):
        V = with_values(
            torch.cat([torch.linspace(4, 1.2, rank), torch.logspace(-0.3, -3, 100)]), 420, 400, seed=7
        ).float()
        result = engine(V, t)
        assert error(result, V, t) <= TOLERANCE
        assert int(result.rank) == rank


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_hidden_direction_that_grows_is_found_in_time(shape, noise):
    heights = [0.0] * 12 + torch.linspace(0, 1.6, 60).tolist()
    assert max(follow(TrackedEngine(), with_hidden_direction(shape, noise, heights))) <= TOLERANCE


@pytest.mark.parametrize("height", [1.05, 1.5, 20.0])
@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
def test_a_hidden_direction_that_is_suddenly_there_raises_the_alarm(noise, height):
    engine = TrackedEngine()
    *before, planted, after = with_hidden_direction((160, 240), noise, [0.0] * 14 + [height] * 2)
    assert max(follow(engine, before)) <= TOLERANCE
    assert engine.counts["alarms"] == 0
    assert max(follow(engine, [planted, after])) <= TOLERANCE
    if noise:  # where V is of low rank, random rows in the block see it before any alarm
        assert engine.counts["alarms"] >= 1
    assert engine.counts["exact"] == 1


def test_many_hidden_directions_at_once():
    engine = TrackedEngine()
    quiet = list(walk((160, 240), 13, stride=0.005))
    planted = quiet[-1] + with_values([3.0, 2.5, 2.0, 1.7, 1.5], 160, 240, seed=5).float()
    assert max(follow(engine, [*quiet, planted, planted])) <= TOLERANCE


class Blind(TrackedEngine):
    """Neither energy nor probes tell it anything: only the audit is left."""

    def __init__(self, audit_every: int) -> None:
        super().__init__(audit_every=audit_every, probe_every=10**6)
        self._lookout._risen = lambda *_: False


def test_the_audit_finds_what_nothing_else_sees():
    """The energy outside stays the same: what is planted is taken from the noise."""
    *before, hidden = with_hidden_direction((160, 240), 0.5, [0.0] * 10 + [1.5])
    late = Blind(audit_every=10**6)
    follow(late, before)
    assert error(late(hidden, 1.0), hidden, 1.0) > 0.05  # so it must be the audit
    engine = Blind(audit_every=len(before))
    assert max(follow(engine, before)) <= TOLERANCE
    assert engine.counts["audits"] == engine.counts["alarms"] == 0
    assert error(engine(hidden, 1.0), hidden, 1.0) <= TOLERANCE
    assert engine.counts["alarms"] == 1
    assert engine.counts["audits"] == 2  # it comes again after an alarm


def test_what_cannot_be_found_is_left_to_the_exact_engine(monkeypatch):
    """An audit that never succeeds must end in the exact answer."""
    monkeypatch.setattr("torch_bregman.linalg.lookout.nothing_above", lambda *_: False)
    engine = Blind(audit_every=1)
    matrices = list(with_hidden_direction((160, 240), 0.5, [0.0, 0.0]))
    results = [engine(V, 1.0) for V in matrices]
    assert "alarms" in results[-1].reason
    assert engine.counts["exact"] == 2
    assert error(results[-1], matrices[-1], 1.0) <= 1e-6


def test_without_convergence_the_exact_engine_answers():
    engine = TrackedEngine(tolerance=1e-9, passes=2)
    results = [(V, engine(V, 1.0)) for V in walk((160, 120), 3, stride=0.2)]
    assert results[-1][1].reason.endswith("no convergence in 2 passes")
    assert all(error(result, V, 1.0) <= 1e-6 for V, result in results)


def test_thresholds_may_change_between_calls():
    engine, rises = TrackedEngine(), [1.0, 1.0, 0.7, 0.7, 0.5, 1.4, 5.0, 100.0, 1.0, 0.9]
    for V, t in zip(walk((160, 240), len(rises)), rises, strict=True):
        assert error(engine(V, t), V, t) <= TOLERANCE


def test_a_zero_matrix_in_the_middle_leaves_the_memory():
    engine, matrices = TrackedEngine(), list(walk((160, 240), 6))
    follow(engine, matrices[:3])
    before = engine.state()
    assert not engine(torch.zeros(160, 240), 1.0).matrix().any()
    assert same(before, engine.state())
    assert max(follow(engine, matrices[3:])) <= TOLERANCE
    assert engine.counts["exact"] == 1


def test_sign_flips_cost_nothing():
    engine = TrackedEngine()
    matrices = [V * (-1) ** step for step, V in enumerate(walk((160, 240), 10))]
    assert max(follow(engine, matrices)) <= TOLERANCE
    assert engine.counts["exact"] == 1


def test_a_threshold_of_zero_gives_the_matrix_back():
    engine, V = TrackedEngine(), gaussian(30, 20).float()
    for _ in range(2):
        torch.testing.assert_close(engine(V, 0.0).matrix(), V)


def test_another_shape_or_dtype_costs_time_only():
    engine = TrackedEngine()
    shapes = [(160, 240), (100, 240), (240, 160), (160, 300), (2, 160, 240), (3, 160, 240), (160, 240), (9, 7), (1, 5)]
    for shape in shapes:
        for V in walk(shape, 2):
            assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float64):
        V = next(walk((160, 240), 1)).to(dtype)
        assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_entries_that_are_not_finite_leave_the_memory_as_it_was(bad):
    engine, matrices = TrackedEngine(), list(walk((160, 240), 8, rank=3))
    follow(engine, matrices[:4])
    before = engine.state()
    broken = matrices[4].clone()
    broken[3, 5] = bad
    with pytest.raises(ValueError, match="finite"):
        engine(broken, 1.0)
    assert same(before, engine.state())
    assert max(follow(engine, matrices[4:])) <= TOLERANCE
    assert engine.counts["exact"] == 1


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("cut", [0, 1, 7, 23])
def test_a_loaded_state_goes_on_bit_by_bit(cut, noise, tmp_path):
    matrices = list(with_hidden_direction((160, 240), noise, torch.linspace(0, 2, 40).tolist()))
    through, first, second = TrackedEngine(seed=3), TrackedEngine(seed=3), TrackedEngine(seed=4)
    for V in matrices[:cut]:
        through(V, 1.0)
        first(V, 1.0)
    torch.save(first.state(), tmp_path / "state.pt")
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for V in matrices[cut:]:
        a, b = through(V, 1.0), second(V, 1.0)
        assert torch.equal(a.left, b.left)
        assert torch.equal(a.right, b.right)
    assert same(through.state(), second.state())


def state_after(shape: tuple[int, ...]) -> dict:
    """Return the state of an engine that has followed a walk of that shape."""
    engine = TrackedEngine()
    follow(engine, walk(shape, 3, seed=9))
    return engine.state()


FOREIGN = {
    "of another matrix": lambda state: state,
    "of another shape": lambda state: state_after((50, 40)),
    "of a batch": lambda state: state_after((2, 120, 90)),
    "empty": lambda state: {},
    "in float64": lambda state: {**state, "Q": state["Q"].double()},
    "in bfloat16": lambda state: {**state, "Q": state["Q"].bfloat16()},
    "not orthonormal": lambda state: {**state, "Q": state["Q"] * 3 + 1},
    "zero": lambda state: {**state, "Q": state["Q"] * 0},
    "not finite": lambda state: {**state, "Q": state["Q"] * torch.nan},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_state_costs_time_only(kind):
    engine = TrackedEngine()
    engine.load_state(FOREIGN[kind](state_after((120, 90))))
    assert max(follow(engine, walk((120, 90), 4))) <= TOLERANCE


@pytest.mark.parametrize("height", [1.002, 1.05, 1.5, 10.0])
def test_a_subspace_that_misses_all_there_is_is_not_believed(height):
    """Q orthogonal to, or a random cut through, the one direction above t."""
    V = with_values([height, *torch.logspace(-0.2, -3, 50).tolist()], 120, 90)
    right = torch.linalg.svd(V).Vh
    for Q in (right[1:9], right[20:28], orthonormal(90, 8, torch.Generator().manual_seed(1)).mT):
        engine = TrackedEngine()
        follow(engine, [V.float()])
        engine.load_state({**engine.state(), "Q": Q.float().contiguous()})
        assert max(follow(engine, [V.float()] * 2)) <= TOLERANCE


def test_equal_seeds_give_equal_results_and_others_not_the_same_draws():
    matrices = list(with_hidden_direction((160, 240), 0.5, torch.linspace(0, 2, 20).tolist()))
    one, two, three = (TrackedEngine(seed=seed) for seed in (5, 5, 6))
    for V in matrices:
        torch.manual_seed(int(V.sum() * 1e3) % 1000)  # nothing may depend on the global generator
        assert torch.equal(one(V, 1.0).matrix(), two(V, 1.0).matrix())
        three(V, 1.0)
    assert same(one.state(), two.state())
    assert not torch.equal(one.state()["generator"], three.state()["generator"])


def test_the_block_grows_at_once_and_shrinks_after_patience():
    engine = TrackedEngine()

    def block(rank: int) -> int:
        S = torch.cat([torch.linspace(4, 1.5, rank), torch.logspace(-0.5, -3, 80)])
        engine(with_values(S, 240, 200, seed=2).float(), 1.0)
        return engine.state()["Q"].shape[-2]

    assert block(3) == block(3) == 8
    assert block(30) >= 32
    sizes = [block(3) for _ in range(25)]
    assert sizes[0] >= 32
    assert sizes[-1] == 8
    assert all(b <= a for a, b in pairwise(sizes))


def test_the_error_it_reports_is_of_the_right_size():
    """Between the true error and the tolerance, on a walk as in training."""
    engine = TrackedEngine()
    for V in walk((160, 240), 30, stride=0.1):
        result = engine(V, 1.0)
        exact, S = svt(V, 1.0)
        true = float(torch.linalg.vector_norm(result.matrix() - exact))
        if result.reason.startswith("tracked"):
            assert true <= result.error <= TOLERANCE * float(torch.linalg.vector_norm((S - 1).clamp_min(0)))


def test_rank_deficient_matrices_are_followed():
    """As at the start of training: rank 5, and then a little more of it at every step."""
    engine = TrackedEngine()
    start, growth = with_values([3, 2, 2, 2, 1.5], 160, 240), gaussian(160, 2) @ gaussian(2, 240, seed=1) / 300
    assert max(follow(engine, ((start + step * growth).float() for step in range(12)))) <= TOLERANCE
    assert engine.counts["exact"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0.0}, "tolerance of the tracked engine must be above 0, got 0.0"),
        ({"tolerance": float("nan")}, "tolerance of the tracked engine must be above 0, got nan"),
        ({"passes": 0}, "passes of the tracked engine must be an integer of at least 1, got 0"),
        ({"audit_every": 0}, "audit_every of the tracked engine must be an integer of at least 1, got 0"),
        ({"probe_every": 0}, "probe_every of the tracked engine must be an integer of at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrackedEngine(**arguments)


def told(shape, steps: int = 30, rows: int = 3, seed: int = 0):
    """Yield V and the thin update that made it what it is, as (V, A, B); float32."""
    V, generator = next(walk(shape, 1, seed=seed)), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        A, B = (0.1 * torch.randn(rows, side, generator=generator) for side in shape)
        yield V.addmm_(A.mT, B, alpha=0.3), A, B


def products(engine: TrackedEngine, monkeypatch) -> list[bool]:
    """Return a list that will tell of every pass whether its images were at hand."""
    known: list[bool] = []

    def watched(X, Q, images=None):
        known.append(images is not None)
        return sweep(X, Q, images)

    monkeypatch.setattr("torch_bregman.linalg.tracked.sweep", watched)
    return known


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_of_updates_it_is_told_a_product_with_v_is_saved(shape, monkeypatch):
    engine, other = TrackedEngine(told=True), TrackedEngine()
    known = products(engine, monkeypatch)
    for V, A, B in told(shape):
        engine.add(A, B, 0.3)
        found = engine(V, 1.0)
        assert error(found, V, 1.0) <= TOLERANCE
    assert all(known)
    monkeypatch.undo()
    for V, *_ in told(shape):  # and the answers are those without, but for rounding
        expected = other(V, 1.0)
    torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=1e-4, atol=1e-4)
    assert engine.counts == other.counts


def test_several_updates_between_two_calls_add_up():
    engine = TrackedEngine(told=True)
    for step, (V, A, B) in enumerate(told((160, 240))):
        engine.add(A, B, 0.3)
        if step % 3 == 0:
            assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE


@pytest.mark.parametrize("change", [lambda V: V.mul_(1.1), lambda V: V.copy_(gaussian(160, 240, seed=5)), Tensor.zero_])
def test_a_change_it_was_not_told_of_costs_time_only(change):
    engine = TrackedEngine(told=True)
    for step, (V, A, B) in enumerate(told((160, 240), steps=8)):
        engine.add(A, B, 0.3)
        if step == 4:
            change(V)
        assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE


def test_nothing_that_was_returned_changes_by_what_is_told_later():
    engine = TrackedEngine(told=True)
    V, A, B = next(told((160, 240), 1))
    engine(V, 1.0)
    result = engine(V, 1.0)
    before = result.matrix()
    engine.add(A, B, 1.0)
    assert torch.equal(result.matrix(), before)


def test_updates_as_large_as_a_product_with_v_are_left_to_the_product():
    engine = TrackedEngine(told=True)
    for V, A, B in told((160, 240), steps=4, rows=100):
        engine.add(A, B, 0.3)
        assert engine.followed() is None
        assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE
        assert engine.followed() is not None


def test_what_it_was_told_survives_a_checkpoint_bit_by_bit():
    first, second = TrackedEngine(told=True, seed=3), None
    for step, (V, A, B) in enumerate(told((160, 240), steps=12)):
        for engine in filter(None, (first, second)):
            engine.add(A, B, 0.3)
        result = first(V, 1.0)
        if second is not None:
            assert torch.equal(result.right, second(V, 1.0).right)
        if step == 5:
            file = io.BytesIO()
            torch.save(first.state(), file)
            file.seek(0)
            second = TrackedEngine(told=True, seed=4)
            second.load_state(torch.load(file, weights_only=True))


def test_an_update_that_is_not_finite_is_refused_and_forgiven():
    engine = TrackedEngine(told=True)
    for step, (V, A, B) in enumerate(told((160, 240), steps=6)):
        if step == 3:
            kept, bad = V.clone(), torch.full((1, 240), torch.nan)
            engine.add(A[:1], bad, 1.0)
            with pytest.raises(ValueError, match="finite"):
                engine(V + bad, 1.0)
            assert error(engine(kept, 1.0), kept, 1.0) <= TOLERANCE
            continue
        engine.add(A, B, 0.3)
        assert error(engine(V, 1.0), V, 1.0) <= TOLERANCE
    assert engine.counts["exact"] == 1
