"""Dense layers become low-rank ones and come back, with the same outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import torch_bregman as tb
from torch_bregman.layers import LowRankLinear, from_factored, to_factored


def model(rank=3):
    return tb.low_rank_(tb.models.mlp([30, 24, 20, 10]), rank=rank)


def kinds(net):
    return [type(m).__name__ for m in net.modules() if isinstance(m, nn.Linear | LowRankLinear)]


@pytest.fixture
def x():
    return torch.randn(6, 30, generator=torch.Generator().manual_seed(0))


def test_all_but_the_last_layer_become_low_rank_and_outputs_stay(x):
    net = model()
    before, biases = net(x), [net.fc1.bias, net.fc2.bias]
    assert to_factored(net, 0.5) is net
    assert kinds(net) == ["LowRankLinear", "LowRankLinear", "Linear"]
    torch.testing.assert_close(net(x), before)
    assert [net.fc1.bias, net.fc2.bias] == biases
    assert [net.fc1.rank, net.fc2.rank] == [3, 3]


def test_the_dual_is_where_linbreg_starts(x):
    net = model()
    expected = tb.Nuclear(0.5).inverse_mirror(net.fc1.weight.detach(), 2.0)
    to_factored(net, 0.5, delta=2.0)
    torch.testing.assert_close(net.fc1.subgrad, expected)


def test_the_way_back_gives_dense_layers_with_equal_outputs(x):
    net = to_factored(model(), 0.5)
    for layer in (net.fc1, net.fc2):
        layer.options["lr"] = 0.02
    for _ in range(3):
        net(x).square().sum().backward()
        net.fc1.step()
        net.fc2.step()
    before = net(x)
    assert from_factored(net) is net
    assert kinds(net) == ["Linear"] * 3
    torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-4)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in net.parameters())
    assert len(list(net.parameters())) == 6


def test_options_reach_the_layers():
    net = to_factored(model(), 0.5, delta=2.0, lr=0.3, refresh=7)
    assert (net.fc1.lam, net.fc1.delta, net.fc1.lr, net.fc1.refresh) == (0.5, 2.0, 0.3, 7)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["fc2"], ["Linear", "LowRankLinear", "Linear"]),
        ("fc[13]", ["LowRankLinear", "Linear", "LowRankLinear"]),
        (["*"], ["LowRankLinear"] * 3),
    ],
)
def test_layers_are_chosen_by_name(layers, expected):
    assert kinds(to_factored(model(), 0.5, layers=layers)) == expected


def test_lam_may_differ_by_layer():
    net = to_factored(to_factored(model(), 0.5, layers=["fc1"]), 0.25, layers=["fc2"])
    assert (net.fc1.lam, net.fc2.lam) == (0.5, 0.25)


def test_a_layer_used_twice_stays_one_layer(x):
    shared = nn.Linear(30, 30)
    net = tb.low_rank_(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(30, 4)), rank=2)
    before = net(x)
    to_factored(net, 0.5)
    assert net[0] is net[2]
    torch.testing.assert_close(net(x), before)
    from_factored(net)
    assert net[0] is net[2]


def test_a_bare_layer_comes_back_as_a_new_one(x):
    linear = tb.low_rank_(nn.Linear(30, 20, bias=False), rank=3)
    layer = to_factored(linear, 0.5)
    assert isinstance(layer, LowRankLinear)
    assert layer.bias is None
    dense = from_factored(layer)
    assert isinstance(dense, nn.Linear)
    assert dense.bias is None
    torch.testing.assert_close(dense(x), linear(x))


def test_mode_dtype_and_frozen_biases_are_kept():
    net = tb.low_rank_(tb.models.mlp([30, 24, 20, 10]).double(), rank=3).eval()
    net.fc1.bias.requires_grad_(False)
    to_factored(net, 0.5)
    assert (net.fc1.training, net.fc1.subgrad.dtype, net.fc1.bias.requires_grad) == (False, torch.float64, False)
    from_factored(net)
    assert (net.fc1.training, net.fc1.weight.dtype, net.fc1.bias.requires_grad) == (False, torch.float64, False)


def test_neither_way_draws_random_numbers():
    net, state = model(), torch.random.get_rng_state()
    from_factored(to_factored(net, 0.5))
    assert torch.equal(torch.random.get_rng_state(), state)


def full_rank():
    return tb.models.mlp([30, 24, 10])


def tied():
    net = model()
    net.other = nn.Linear(30, 24)
    net.other.weight = net.fc1.weight
    return net


def frozen():
    net = model()
    net.fc1.weight.requires_grad_(False)
    return net


def computed():
    net = model()
    parametrizations.orthogonal(net.fc1)
    return net


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (full_rank, {}, "'fc1'.*full rank.*low_rank_"),
        (model, {"layers": ["fc7"]}, "'fc7' fits no nn.Linear of fc1, fc2, fc3"),
        (model, {"lam": 0.0}, "'fc1'.*lam"),
        (lambda: model().half(), {}, "'fc1'.*float32 or float64"),
        (tied, {}, "'fc1' is tied"),
        (frozen, {}, "'fc1' is frozen"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), {}, "name what to replace"),
        (lambda: nn.Sequential(nn.ReLU()), {}, "0 nn.Linear"),
        (computed, {"layers": ["fc1"]}, "'fc1' fits no nn.Linear"),
    ],
)
def test_what_cannot_be_replaced_is_refused_and_the_model_left_alone(build, options, message):
    net = build()
    before = kinds(net)
    with pytest.raises(ValueError, match=message):
        to_factored(net, **{"lam": 0.5, **options})
    assert kinds(net) == before


def test_subclasses_of_linear_stay_dense():
    net = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8), nn.Linear(8, 2))
    tb.low_rank_(net, rank=2)
    to_factored(net, 0.5)
    assert type(net[0].out_proj).__name__ == "NonDynamicallyQuantizableLinear"
    assert isinstance(net[1], LowRankLinear)
