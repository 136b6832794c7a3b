"""Every engine of the table against a float64 decomposition, at the accuracy it promises."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from torch_bregman.linalg import ENGINES, TrackedEngine, new_engine

PROMISED = {"full": 1e-5, "gram": 2e-6, "auto": 1e-3, "tracked": 1e-3, "matmul": 1e-3}


def exact(V, t):
    """SVT_t by numpy in float64."""
    U, S, Vh = np.linalg.svd(V.double().numpy(), full_matrices=False)
    return torch.from_numpy((U * np.maximum(S - t, 0)[..., None, :]) @ Vh)


def off(result, V, t):
    """The error relative to ‖(S − t)₊‖, or to 0.02 t where that is larger."""
    right = exact(V, t)
    return float((result.matrix().double() - right).norm()) / max(float(right.norm()), 0.02 * t)


def made(m, n, values, seed=0):
    """A matrix with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    U, W = (torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q for d in (m, n))
    S = torch.zeros(k, dtype=torch.float64)
    S[: len(values)] = torch.as_tensor(values, dtype=torch.float64)[:k]
    return ((U * S) @ W.mT).float()


CASES = {
    "random": (torch.randn(150, 190, generator=torch.Generator().manual_seed(1)), 20.0),
    "low rank": (made(180, 140, [5, 4, 3, 2]), 1.0),
    "rank deficient, all above": (made(150, 150, [3, 2]), 0.1),
    "clustered at t": (made(160, 160, [3, 2, *np.linspace(1.002, 0.998, 12), *np.linspace(0.9, 0.1, 40)]), 1.0),
    "ill-conditioned": (made(140, 150, [1e3, 30, 3, 1.5, *np.linspace(0.9, 0.0, 60)]), 1.0),
    "nothing above": (made(140, 150, [0.5, 0.4]), 1.0),
    "zero": (torch.zeros(140, 150), 1.0),
    "one row": (torch.randn(1, 200, generator=torch.Generator().manual_seed(2)), 3.0),
    "one column": (torch.randn(200, 1, generator=torch.Generator().manual_seed(3)), 3.0),
    "tall": (made(400, 40, np.linspace(3, 0.1, 40)), 1.0),
    "wide": (made(40, 400, np.linspace(3, 0.1, 40)), 1.0),
    "small scale": (made(150, 140, [5e-15, 4e-15, 1e-15]), 2e-15),
    "large scale": (made(150, 140, [5e15, 4e15, 1e15]), 2e15),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PROMISED)
def test_agrees_with_the_decomposition_call_after_call(name, case):
    V, t = CASES[case]
    engine = new_engine(name)
    for _ in range(3):
        result = engine(V, t)
        assert off(result, V, t) <= PROMISED[name]
        assert result.left.shape[-1], result.right.shape[-1] == V.shape
        assert torch.isfinite(result.matrix()).all()


def test_the_table_is_covered():
    assert {*PROMISED, "randomized"} == set(ENGINES)


@pytest.mark.parametrize("name", PROMISED)
def test_a_batch_is_thresholded_one_by_one(name):
    batch = torch.stack([made(140, 150, [5, 4, 3][:k], seed=k) for k in (1, 2, 3)])
    engine = new_engine(name)
    for _ in range(2):
        result = engine(batch, 1.0)
        assert result.rank.tolist() == [1, 2, 3]
        for V, W in zip(batch, result.matrix(), strict=True):
            assert (W - exact(V, 1.0)).norm() <= PROMISED[name] * exact(V, 1.0).norm()


def test_the_randomized_engine_is_exact_above_its_cap_and_cut_below():
    V = made(150, 140, [5, 4, 3, 2, *np.linspace(0.3, 0, 20)])
    assert off(new_engine("randomized(8)")(V, 1.0), V, 1.0) < 1e-4
    cut = new_engine("randomized(2)")(V, 1.0)
    assert int(cut.rank) == 2
    assert 0.3 < off(cut, V, 1.0) < 0.5  # (2, 1) of (4, 3, 2, 1) are missing


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_entries_that_are_not_finite_are_refused_and_nothing_is_forgotten(name, entry):
    V = made(150, 140, [5, 4, 3])
    engine = new_engine(name)
    engine(V, 1.0)
    before = copy.deepcopy(engine.state())
    broken = V.clone()
    broken[3, 5] = entry
    with pytest.raises(ValueError, match="finite"):
        engine(broken, 1.0)
    after = engine.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(torch.as_tensor(before[key]), torch.as_tensor(after[key])) for key in before)


class TestTracked:
    def drifting(self, steps, m=200, n=220, seed=0):
        """A noisy matrix whose leading part turns a little at a time."""
        generator = torch.Generator().manual_seed(seed)
        V = made(m, n, [4, 3, 2.5, 2, 1.6, *np.linspace(0.6, 0, 120)], seed)
        for _ in range(steps):
            left, right = (torch.randn(d, 4, generator=generator) for d in (m, n))
            V = V + 3e-4 * left @ right.mT
            yield V

    def test_it_follows_without_exact_help(self):
        engine = TrackedEngine()
        for V in self.drifting(60):
            assert off(engine(V, 1.0), V, 1.0) <= 1e-3
        assert engine.counts["exact"] <= 3

    def test_rank_jumps(self):
        engine = TrackedEngine()
        noise = made(240, 300, np.linspace(0.4, 0, 200), seed=9)
        for rank in (8, 8, 40, 40, 154, 154, 8, 8, 40):
            V = made(240, 300, np.linspace(3, 1.2, rank), seed=rank) + noise
            result = engine(V, 1.0)
            assert off(result, V, 1.0) <= 1e-3
            assert int(result.rank) == rank

    @pytest.mark.parametrize("noise", [0.0, 0.2])
    def test_a_hidden_direction_that_grows_across_t(self, noise):
        generator = torch.Generator().manual_seed(5)
        u, v = (torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0) for d in (180, 160))
        base = made(180, 160, [4, 3, 2, *np.linspace(noise, 0, 100)])
        engine = TrackedEngine()
        for strength in np.linspace(0.0, 2.0, 60):
            V = base + float(strength) * torch.outer(u, v)
            assert off(engine(V, 1.0), V, 1.0) <= 1e-3

    def test_a_direction_planted_above_t_is_found(self):
        base = made(180, 160, [4, 3, 2, *np.linspace(0.3, 0, 100)])
        engine = TrackedEngine()
        for _ in range(5):
            engine(base, 1.0)
        planted = base + made(180, 160, [2.0], seed=11)
        for _ in range(12):  # at the latest when the next probe is due
            result = engine(planted, 1.0)
        assert off(result, planted, 1.0) <= 1e-3

    def test_its_memory_goes_through_a_checkpoint_bit_for_bit(self):
        first, second = TrackedEngine(), TrackedEngine()
        matrices = list(self.drifting(12))
        for V in matrices[:6]:
            first(V, 1.0)
        second.load_state(first.state())
        for V in matrices[6:]:
            assert torch.equal(first(V, 1.0).matrix(), second(V, 1.0).matrix())

    def test_a_foreign_memory_costs_time_only(self):
        other, engine = TrackedEngine(), TrackedEngine()
        other(made(200, 160, [5, 4]), 1.0)
        for V in (made(140, 150, [3, 2]), made(200, 160, [3, 2], seed=8)):
            engine.load_state(other.state())
            assert off(engine(V, 1.0), V, 1.0) <= 1e-3

    def test_a_threshold_that_moves(self):
        engine = TrackedEngine()
        V = made(200, 160, [5, 4, 3, 2, *np.linspace(0.9, 0, 60)])
        for t in (2.5, 2.5, 1.5, 0.95, 3.5, 4.5, 0.7):
            assert off(engine(V, t), V, t) <= 1e-3
