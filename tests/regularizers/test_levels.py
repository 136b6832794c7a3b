"""Levels, for every row of the table: what lies above λ is awake, and the largest is the dual norm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.regularizers.cases import PENALTIES, problems
from torch_bregman.regularizers import ElasticNet, NoRegularizer, Nuclear, SoftBernoulli

SLEEPERS = [setting for setting in PENALTIES if setting.kind is not NoRegularizer]
every_sleeper = pytest.mark.parametrize("setting", SLEEPERS, ids=str)


def lets_sleep(reg):
    return not (isinstance(reg, ElasticNet) and reg.l1_ratio == 0)


@every_sleeper
@given(data=st.data())
def test_the_largest_level_is_the_dual_norm(setting, data):
    reg, v = data.draw(problems(setting).filter(lambda drawn: lets_sleep(drawn[0])))
    levels = reg.levels(v)
    expected = reg.dual_norm(v)
    torch.testing.assert_close(levels.amax() if levels.numel() else torch.zeros(()).double(), expected)


@every_sleeper
@given(data=st.data(), delta=st.sampled_from([0.5, 1.0, 4.0]), share=st.floats(0.05, 0.95))
def test_what_lies_above_lam_is_awake_and_nothing_else(setting, data, delta, share):
    reg, v = data.draw(problems(setting).filter(lambda drawn: lets_sleep(drawn[0])))
    levels = reg.levels(v)
    lam = share * float(levels.amax()) if levels.numel() else 1.0
    theta = reg.mirror(v, delta, lam=lam)
    clear = (levels - lam).abs() > 1e-9
    if isinstance(reg, Nuclear):
        rank = int((torch.linalg.svdvals(reg.matrix(theta)) > 1e-9).sum())
        cap = reg.get_rank() if hasattr(reg, "get_rank") else len(levels)
        assert not clear.all() or rank == min(int((levels > lam).sum()), cap)
        return
    awake, sure = reg.spread(levels > lam, v), reg.spread(clear, v)
    expected = awake & (v != 0)  # in a group that is awake, an entry that is 0 stays 0
    assert torch.equal((theta != 0)[sure], expected[sure])


@pytest.mark.parametrize("reg", [NoRegularizer(), SoftBernoulli(), ElasticNet(1.0, l1_ratio=0.0)])
def test_where_nothing_sleeps_there_are_no_levels(reg):
    with pytest.raises(ValueError, match="nothing sleeps and wakes by λ"):
        reg.levels(torch.zeros(2, 2))
