"""Regularisers as values: plain descriptions, equality, immutability, and the refusal of wrong arguments."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.regularizers.cases import ALL, PENALTIES
from torch_bregman.regularizers import (
    L1,
    REGULARIZERS,
    ElasticNet,
    GroupL2,
    NonNegativeL1,
    Nuclear,
    SoftBernoulli,
    SparseGroup,
    from_spec,
)
from torch_bregman.views import Blocks, Heads, Rows

every_row = pytest.mark.parametrize("kind", list(REGULARIZERS.values()), ids=list(REGULARIZERS))


class TestSpec:
    @pytest.mark.parametrize("setting", ALL, ids=str)
    @given(data=st.data())
    def test_describes_the_regulariser_in_plain_values(self, setting, data):
        reg = data.draw(setting.strategy())
        spec = json.loads(json.dumps(reg.spec()))
        assert "lam" not in spec
        assert from_spec(spec, reg.lam) == reg
        assert from_spec(spec, 7.0) == dataclasses.replace(reg, lam=7.0)

    @pytest.mark.parametrize(
        ("reg", "spec"),
        [
            (L1(0.3), {"name": "l1"}),
            (ElasticNet(0.3, 0.25), {"name": "elastic_net", "l1_ratio": 0.25}),
            (GroupL2(0.3, Heads(4)), {"name": "group_l2", "view": "heads(4)", "weighted": True}),
            (SparseGroup(0.3, 0.25, "kernels"), {"name": "sparse_group", "l1_ratio": 0.25, "view": "kernels"}),
            (
                Nuclear(0.3, Blocks(2, 3), weighted=True),
                {"name": "nuclear", "view": "blocks(2, 3)", "engine": "auto(0.001)", "weighted": True},
            ),
            (SoftBernoulli(0.3, seed=5), {"name": "soft_bernoulli", "seed": 5}),
        ],
        ids=str,
    )
    def test_known_descriptions(self, reg, spec):
        assert reg.spec() == spec

    def test_from_spec_leaves_the_description_as_it_was(self):
        spec = {"name": "group_l2", "view": "columns"}
        from_spec(spec, 1.0)
        assert spec == {"name": "group_l2", "view": "columns"}

    @every_row
    def test_a_true_penalty_has_no_state_to_save(self, kind):
        reg = kind(0.5)
        if kind.deterministic and kind.convex:
            assert reg.state() == {}
        assert all(isinstance(value, (torch.Tensor, int)) for value in reg.state().values())
        reg.load_state(reg.state())


class TestValueSemantics:
    @every_row
    def test_names_are_those_of_the_table(self, kind):
        assert REGULARIZERS[kind.name] is kind

    @every_row
    def test_equal_when_alike(self, kind):
        assert kind(0.5) == kind(0.5)
        assert hash(kind(0.5)) == hash(kind(0.5))
        assert kind(0.5) != kind(0.6)

    @every_row
    def test_immutable(self, kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind(0.5).lam = 1.0

    @pytest.mark.parametrize("setting", ALL, ids=str)
    def test_copies_and_pickles_are_equal(self, setting):
        reg = setting.make()
        for twin in (copy.copy(reg), copy.deepcopy(reg), pickle.loads(pickle.dumps(reg))):
            assert twin == reg
            assert twin.spec() == reg.spec()

    def test_views_may_be_names_or_objects(self):
        assert GroupL2(1.0, "rows") == GroupL2(1.0, Rows())
        assert repr(GroupL2(1.0, "heads(2)")) == "GroupL2(lam=1.0, view=Heads(count=2), weighted=True)"

    def test_one_serves_tensors_of_any_shape(self):
        reg = GroupL2(0.5)
        for shape in [(3,), (2, 5), (4, 1, 3, 3), (2, 5)]:
            assert reg.prox(torch.ones(shape)).shape == shape


class TestRefusals:
    @every_row
    @pytest.mark.parametrize("lam", [-1.0, -1e-30, math.nan, math.inf, -math.inf])
    def test_of_a_strength_that_is_negative_or_not_finite(self, kind, lam):
        with pytest.raises(ValueError, match=f"lam must be a finite number >= 0, got {lam}: 0 switches"):
            kind(lam)

    @pytest.mark.parametrize("setting", [s for s in PENALTIES if s.kind.name != "none"], ids=str)
    @pytest.mark.parametrize("lam", [-1.0, math.nan])
    def test_of_such_a_strength_in_force(self, setting, lam):
        reg, x = setting.make(), torch.ones(setting.shapes()[-1])
        for method in (reg.value, reg.prox, reg.mirror, reg.subgradient, reg.inverse_mirror):
            with pytest.raises(ValueError, match=f"lam must be a finite number >= 0, got {lam}"):
                method(x, lam=lam)

    @pytest.mark.parametrize("kind", [ElasticNet, SparseGroup])
    @pytest.mark.parametrize("ratio", [-0.1, 1.5, math.nan])
    def test_of_a_ratio_outside_its_range(self, kind, ratio):
        with pytest.raises(ValueError, match=rf"l1_ratio must lie in \[0, 1\], got {ratio}: 1 .*0 "):
            kind(0.5, l1_ratio=ratio)

    @pytest.mark.parametrize("kind", [GroupL2, SparseGroup, Nuclear])
    def test_of_an_unknown_view(self, kind):
        with pytest.raises(ValueError, match="view 'diagonals' is unknown: use one of elements, rows"):
            kind(0.5, view="diagonals")

    @pytest.mark.parametrize("kind", [GroupL2, SparseGroup, Nuclear])
    @pytest.mark.parametrize(
        ("view", "message"),
        [("filters", r"shape \(4, 3\): use 'rows'"), ("spatial", "use 'rows'"), ("heads(3)", "3 must divide 4")],
    )
    def test_of_tensors_without_such_groups(self, kind, view, message):
        reg = kind(0.5, view=view)
        for method in (reg.value, reg.prox, reg.mirror, reg.subgradient, reg.dual_norm):
            with pytest.raises(ValueError, match=message):
                method(torch.ones(4, 3))

    def test_of_a_negative_start_for_non_negative_weights(self):
        with pytest.raises(ValueError, match=r"smallest entry of -0\.25: start from .*abs_\(\)"):
            NonNegativeL1().inverse_mirror(torch.tensor([1.0, -0.25]))
        assert NonNegativeL1().value(torch.tensor([1.0, -0.25])) == math.inf

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"name": "l0"}, "regularizer 'l0' is unknown: use one of none, l1"),
            ({}, "regularizer None is unknown: use one of none, l1"),
            ({"name": "l1", "view": "rows"}, "regularizer 'l1' has no option 'view': it has no options"),
            ({"name": "nuclear", "rank": 3}, "regularizer 'nuclear' has no option 'rank': use view"),
            ({"name": "nuclear", "lam": 3}, "regularizer 'nuclear' has no option 'lam'"),
            ({"name": "group_l2", "view": "diagonals"}, "view 'diagonals' is unknown"),
        ],
    )
    def test_of_descriptions_that_fit_no_row(self, spec, message):
        with pytest.raises(ValueError, match=message):
            from_spec(spec, 1.0)
