"""Convex analysis, for every row of the table: what makes a map a proximal map and a vector a subgradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.regularizers import reference
from tests.regularizers.cases import NORMS, PENALTIES, STEP, in_domain, problems

TINY = 1e-10


def dot(x, y):
    return float((x * y).sum())


@pytest.mark.parametrize("setting", PENALTIES, ids=str)
class TestEveryPenalty:
    @given(data=st.data())
    def test_value_is_a_number_never_negative_and_zero_at_zero(self, setting, data):
        reg, x = data.draw(problems(setting))
        assert reg.value(x).shape == ()
        assert reg.value(x) >= 0
        assert reg.value(torch.zeros_like(x)) == 0

    @given(data=st.data(), step=STEP)
    def test_prox_minimises(self, setting, data, step):
        # (x − z)/step is a subgradient at z = prox(x): the definition, for any convex J
        reg, x, y = data.draw(problems(setting, 2))
        z = reg.prox(x, step)
        y = in_domain(reg, y)
        assert step * reg.value(y) >= step * reg.value(z) + dot(x - z, y - z) - TINY

    @given(data=st.data(), step=STEP)
    def test_prox_is_firmly_nonexpansive(self, setting, data, step):
        reg, x, y = data.draw(problems(setting, 2))
        moved = reg.prox(x, step) - reg.prox(y, step)
        assert dot(moved, moved) <= dot(moved, x - y) + TINY

    @given(data=st.data(), step=STEP)
    def test_prox_agrees_with_the_projection_onto_the_dual_ball(self, setting, data, step):
        if setting.kind.name not in reference.PROJECTIONS:
            pytest.skip(f"no projection was written for {setting.kind.name}; test_prox_minimises covers it")
        reg, x = data.draw(problems(setting))
        expected = reference.prox(reg, x.numpy(), step * reg.lam, setting.groups(x.shape))
        np.testing.assert_allclose(reg.prox(x, step).numpy(), expected, rtol=0, atol=1e-10)

    @given(data=st.data())
    def test_subgradient_supports_the_graph(self, setting, data):
        reg, x, y = data.draw(problems(setting, 2))
        x = in_domain(reg, x)
        p = reg.subgradient(x)
        assert p.shape == x.shape
        assert reg.value(y) >= reg.value(x) + dot(p, y - x) - TINY

    @given(data=st.data())
    def test_subgradient_vanishes_at_zero(self, setting, data):
        reg, x = data.draw(problems(setting))
        assert not reg.subgradient(torch.zeros_like(x)).any()

    @given(data=st.data())
    def test_zero_strength_is_the_identity_on_the_domain(self, setting, data):
        reg, x = data.draw(problems(setting))
        x = in_domain(reg, x)
        assert torch.equal(reg.prox(x, lam=0.0), x)
        assert torch.equal(reg.prox(x, 0.0), x)
        assert reg.value(x, lam=0.0) == 0
        assert not reg.subgradient(x, lam=0.0).any()

    @given(data=st.data(), step=STEP)
    def test_zero_groups_stay_zero(self, setting, data, step):
        reg, x = data.draw(problems(setting))
        asleep = torch.zeros_like(x, dtype=torch.bool)
        for group in setting.groups(x.shape)[::2]:
            asleep.view(-1)[torch.from_numpy(group)] = True
        x[asleep] = 0
        for result in (reg.prox(x, step), reg.mirror(x), reg.subgradient(in_domain(reg, x))):
            assert torch.isfinite(result).all()
            assert result[asleep].abs().sum() <= (1e-12 if setting.kind.name == "nuclear" else 0)

    @given(data=st.data(), step=STEP, lam=st.floats(0, 3))
    def test_lam_in_force_replaces_the_own(self, setting, data, step, lam):
        reg, x = data.draw(problems(setting))
        twin = type(reg)(lam, **{key: value for key, value in reg.spec().items() if key != "name"})
        theta = in_domain(reg, x)
        assert torch.equal(reg.prox(x, step, lam=lam), twin.prox(x, step))
        assert torch.equal(reg.mirror(x, step, lam=lam), twin.mirror(x, step))
        assert torch.equal(reg.value(x, lam=lam), twin.value(x))
        assert torch.equal(reg.subgradient(theta, lam=lam), twin.subgradient(theta))
        assert torch.equal(reg.inverse_mirror(theta, step, lam=lam), twin.inverse_mirror(theta, step))
        assert reg.first_activation(x, 0.1, lam=lam) == twin.first_activation(x, 0.1)

    @given(data=st.data(), delta=st.sampled_from([0.3, 1.0, 10.0]))
    def test_mirror_map_is_the_prox_of_the_scaled_penalty(self, setting, data, delta):
        reg, v = data.draw(problems(setting))
        torch.testing.assert_close(reg.mirror(v, delta), reg.prox(delta * v, delta), rtol=0, atol=1e-11)

    @given(data=st.data())
    def test_coupled_entries_are_those_that_a_change_can_reach(self, setting, data):
        reg, x = data.draw(problems(setting, lam=st.floats(0.05, 0.5)))
        mask = torch.zeros(x.shape, dtype=torch.bool)
        mask.view(-1)[data.draw(st.integers(0, x.numel() - 1))] = True
        reached = reg.coupled(mask)
        assert reached.shape == mask.shape
        assert reached.dtype == torch.bool
        assert reached[mask].all()
        changed = reg.prox(torch.where(mask, x + 1.5, x)) != reg.prox(x)
        assert not (changed & ~reached).any()
        assert not reg.coupled(torch.zeros_like(mask)).any()


@pytest.mark.parametrize("setting", NORMS, ids=str)
class TestEveryNorm:
    @given(data=st.data(), scale=st.sampled_from([0.1, 1.0, 7.0]))
    def test_value_and_dual_norm_are_homogeneous(self, setting, data, scale):
        reg, x = data.draw(problems(setting))
        x = in_domain(reg, x)
        torch.testing.assert_close(reg.value(scale * x), scale * reg.value(x), rtol=1e-12, atol=0)
        torch.testing.assert_close(reg.dual_norm(scale * x), scale * reg.dual_norm(x), rtol=1e-12, atol=0)

    @given(data=st.data())
    def test_value_obeys_the_triangle_inequality(self, setting, data):
        reg, x, y = data.draw(problems(setting, 2))
        assert reg.value(x + y) <= reg.value(x) + reg.value(y) + TINY

    @given(data=st.data())
    def test_dual_norm_of_a_subgradient_is_one(self, setting, data):
        reg, x = data.draw(problems(setting))
        x = in_domain(reg, x)
        norm = float(reg.dual_norm(reg.subgradient(x) / reg.lam))
        assert norm == pytest.approx(1.0 if x.any() else 0.0, abs=1e-9)

    @given(data=st.data())
    def test_subgradient_touches_the_graph(self, setting, data):
        reg, x = data.draw(problems(setting))
        x = in_domain(reg, x)
        assert dot(reg.subgradient(x), x) == pytest.approx(float(reg.value(x)), abs=TINY)

    @given(data=st.data())
    def test_cauchy_schwarz(self, setting, data):
        reg, x, y = data.draw(problems(setting, 2))
        x = in_domain(reg, x)
        assert dot(x, y) <= float(reg.value(x, lam=1.0) * reg.dual_norm(y)) + TINY

    @given(data=st.data())
    def test_dual_norm_is_the_strength_that_just_puts_all_to_sleep(self, setting, data):
        # with λ a little below it the proximal point is the maximiser of ⟨·, y⟩ over the unit ball: equality above
        reg, y = data.draw(problems(setting))
        threshold = float(reg.dual_norm(y))
        assume(threshold > 1e-3)
        assert not reg.prox(y, lam=threshold * (1 + 1e-6)).any()
        x = reg.prox(y, lam=threshold * (1 - 1e-6))
        assert x.any()
        assert dot(x, y) >= (1 - 2e-6) * float(reg.value(x, lam=1.0)) * threshold


def test_the_suite_runs_over_penalties_and_norms():
    assert {"l1", "group_l2", "sparse_group", "nuclear", "nonnegative_l1"} <= {s.kind.name for s in NORMS}
    assert {"none", "elastic_net"} <= {s.kind.name for s in PENALTIES} - {s.kind.name for s in NORMS}
    assert "soft_bernoulli" not in {s.kind.name for s in PENALTIES}
