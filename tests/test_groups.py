from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from torch_bregman.groups import ParamGroups, param_groups
from torch_bregman.models import convnet, mlp
from torch_bregman.regularizers import L1, GroupL2, NoRegularizer, Nuclear
from torch_bregman.views import Heads


def names(groups: ParamGroups) -> list[list[str]]:
    return [group["param_names"] for group in groups]


def test_one_group_a_rule_and_one_for_the_rest() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    kernels, sparse = GroupL2(0.1, view="kernels"), L1(0.2)
    groups = param_groups(model, {nn.Linear: sparse, nn.Conv2d: kernels})
    assert names(groups) == [["3.weight"], ["0.weight"], ["0.bias", "1.weight", "1.bias", "3.bias"]]
    assert [group["regularizer"] for group in groups] == [sparse, kernels, NoRegularizer()]


def test_every_trainable_parameter_comes_exactly_once() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16)
    model.linear1.weight.requires_grad_(False)
    groups = param_groups(model, {nn.Linear: L1(0.1), "self_attn.in_proj_weight": L1(0.1), "norm1.*": L1(0.2)})
    listed = [(name, param) for group in groups for name, param in zip(*_pair(group), strict=True)]
    expected = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert len(listed) == len(expected)
    assert all(expected[name] is param for name, param in listed)


def _pair(group: dict[str, list]) -> tuple[list[str], list[nn.Parameter]]:
    return group["param_names"], group["params"]


def test_equal_regularizers_of_two_rules_stay_two_groups() -> None:
    assert len(param_groups(mlp((4, 3, 2)), {"fc1": L1(0.1), "fc2": L1(0.1)})) == 3


def test_no_rest_no_group_for_it() -> None:
    assert names(param_groups(nn.Linear(3, 2, bias=False), {nn.Linear: L1()})) == [["weight"]]


def test_no_rules_leave_all_unregularised() -> None:
    (group,) = param_groups(nn.Linear(3, 2), {}, lr=0.1)
    assert group["regularizer"] == NoRegularizer()
    assert group["lr"] == 0.1


def test_one_set_of_rules_serves_models_with_and_without_what_its_types_name() -> None:
    rules = {nn.Linear: L1(lam=0.1), nn.Conv2d: GroupL2(lam=0.1, view="kernels"), nn.Module: L1(0.2)}
    assert names(param_groups(mlp((4, 3, 2)), rules)) == [["fc1.weight", "fc2.weight"], ["fc1.bias", "fc2.bias"]]
    assert len(param_groups(convnet(), rules)) == 3
    frozen = convnet()
    frozen.features.requires_grad_(False)
    assert [group["regularizer"] for group in param_groups(frozen, rules)] == [L1(lam=0.1), NoRegularizer()]
    with pytest.raises(ValueError, match=r"'features.\*' applies to nothing"):
        param_groups(mlp((4, 3, 2)), {nn.Linear: L1(), "features.*": L1()})


def test_options_of_rules_go_before_defaults() -> None:
    rules = {"fc1": {"regularizer": L1(0.1), "lr": 0.01, "nesterov": True}, "*.bias": {"regularizer": L1(), "lr": 0.5}}
    groups = param_groups(mlp((4, 3, 2)), rules, lr=0.1, momentum=0.9)
    assert names(groups) == [["fc1.weight"], ["fc1.bias", "fc2.bias"], ["fc2.weight"]]
    assert [group["lr"] for group in groups] == [0.01, 0.5, 0.1]
    assert [group["momentum"] for group in groups] == [0.9] * 3
    assert "nesterov" not in groups[1]


def test_the_rules_given_are_not_changed() -> None:
    rule = {"regularizer": L1(0.1), "lr": 0.01}
    torch.optim.SGD(param_groups(nn.Linear(2, 2), {nn.Linear: rule}), lr=0.1, momentum=0.9)
    assert rule == {"regularizer": L1(0.1), "lr": 0.01}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_torch_optimizers_take_the_groups_with_their_names(optimizer: type[torch.optim.Optimizer]) -> None:
    model = mlp((4, 3, 2))
    opt = optimizer(param_groups(model, {nn.Linear: L1(0.1), "fc1.bias": L1(0.2)}), lr=0.1)
    assert [g["param_names"] for g in opt.param_groups] == [["fc1.weight", "fc2.weight"], ["fc1.bias"], ["fc2.bias"]]
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(1, 4)).sum().backward()
    opt.step()
    assert not torch.equal(before["fc2.bias"], model.fc2.bias)
    assert opt.state_dict()["param_groups"][1]["param_names"] == ["fc1.bias"]


def test_tied_weights_come_once_under_the_first_name() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "decoder": nn.Linear(3, 4, bias=False)})
    model["decoder"].weight = model["embedding"].weight
    assert names(param_groups(model, {"embedding": L1()})) == [["embedding.weight"]]
    with pytest.raises(ValueError, match="tied"):
        param_groups(model, {"decoder.*": L1()})


def test_attention_as_a_key_covers_both_projections() -> None:
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, add_bias_kv=True), "fc": nn.Linear(8, 8)})
    key = nn.MultiheadAttention
    assert names(param_groups(model, {key: L1()}))[0] == ["attn.in_proj_weight", "attn.out_proj.weight"]
    assert names(param_groups(model, {nn.Linear: L1()}))[0] == ["attn.out_proj.weight", "fc.weight"]
    both = names(param_groups(model, {nn.Linear: L1(), key: GroupL2(0.1, view=Heads(6))}))
    assert both[:2] == [["attn.out_proj.weight", "fc.weight"], ["attn.in_proj_weight"]]
    assert names(param_groups(model, {key: L1(), nn.Linear: L1()}))[1] == ["fc.weight"]


def test_attention_with_keys_of_another_width_has_three_projections() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2, kdim=4, vdim=6))
    projections = [f"0.{p}_proj_weight" for p in "qkv"]
    assert names(param_groups(model, {"*proj_weight": L1()}))[0] == projections


@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        (GroupL2(view="kernels"), r"parameter 'classifier.fc1.weight': view 'kernels' needs a convolution's weight"),
        (
            Nuclear(view="spatial"),
            r"parameter 'classifier.fc1.weight': view 'spatial' needs a weight with 4 dimensions",
        ),
        (GroupL2(view="heads(3)"), r"parameter 'features.conv1.weight': view 'heads\(3\)' does not fit"),
    ],
)
def test_views_that_do_not_fit_are_refused_here_by_name(regularizer: GroupL2, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        param_groups(convnet(), {"*": regularizer})


def test_rules_for_frozen_parameters_are_refused() -> None:
    model = mlp((4, 3, 2))
    model.fc1.requires_grad_(False)
    assert names(param_groups(model, {nn.Linear: L1()})) == [["fc2.weight"], ["fc2.bias"]]
    with pytest.raises(ValueError, match="'fc1' applies to nothing: all it matches is frozen"):
        param_groups(model, {"fc1": L1()})
    with pytest.raises(ValueError, match="Sequential has no trainable parameters"):
        param_groups(model.requires_grad_(False), {})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (0.1, r"the rule for Linear must be a regularizer such as L1\(0.1\).*got 0.1"),
        (L1, "the rule for Linear must be a regularizer"),
        ({"lr": 0.1}, "or a dict with one under 'regularizer'"),
        ({"regularizer": L1(), "params": []}, "the rule for Linear must not set 'params'"),
    ],
)
def test_rules_that_are_none_are_refused(rule: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        param_groups(nn.Linear(2, 2), {nn.Linear: rule})  # type: ignore[dict-item]


def test_reserved_defaults_are_refused() -> None:
    with pytest.raises(ValueError, match="param_groups must not set 'regularizer'"):
        param_groups(nn.Linear(2, 2), {}, regularizer=L1())


def test_groups_print_as_a_table_of_all_parameters() -> None:
    groups = param_groups(convnet(), {nn.Conv2d: GroupL2(0.1, view="kernels"), "*.fc1": L1(0.2)})
    lines = str(groups).splitlines()
    assert lines[0].split() == ["parameter", "shape", "regulariser"]
    assert len(lines) == 2 + 8
    assert lines[2].startswith("features.conv1.weight  64 × 1 × 5 × 5   GroupL2(lam=0.1,")
    assert sum(line.endswith("L1(lam=0.2)") for line in lines) == 1
    assert sum(line.endswith("none") for line in lines) == 5
    assert repr(groups) == str(groups)


def test_groups_survive_pickle_and_deepcopy() -> None:
    groups = param_groups(mlp((4, 3, 2)), {nn.Linear: L1(0.1)})
    for twin in (pickle.loads(pickle.dumps(groups)), copy.deepcopy(groups)):
        assert str(twin) == str(groups)
        assert isinstance(twin, ParamGroups)
