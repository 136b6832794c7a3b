"""Rules for units that can be removed: what they cover, and that they train."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from torch_bregman.graph import trace_units


class Block(nn.Module):
    """A residual block with a second reader of its sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.outer = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


X = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_readers_of_one_unit_make_one_group() -> None:
    rules = tb.outgoing_groups(Block(), X, lam=0.2)
    assert rules == {
        ("inner.weight", "head.weight"): tb.UnitL2(0.2, members="1:0-3;1:0-3"),
        "outer.weight": tb.GroupL2(0.2, view="columns"),
    }


def test_what_makes_one_unit_makes_one_group() -> None:
    rules = tb.incoming_groups(Block(), X, lam=0.2, weighted=False)
    names = ("stem.weight", "stem.bias", "norm.weight", "norm.bias", "outer.weight", "outer.bias")
    assert rules == {
        names: tb.UnitL2(0.2, members=";".join(["0:0-3"] * 6), weighted=False),
        ("inner.weight", "inner.bias"): tb.UnitL2(0.2, members="0:0-5;0:0-5", weighted=False),
    }


def test_heads_and_hidden_units_of_a_transformer() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 4, 16, batch_first=True), nn.Linear(8, 2))
    assert tb.outgoing_groups(model, torch.randn(2, 5, 8)) == {
        "0.self_attn.out_proj.weight": tb.GroupL2(view="blocks(8, 2)"),
        "0.linear2.weight": tb.GroupL2(view="columns"),
    }


def test_frozen_readers_keep_their_units() -> None:
    model = Block()
    model.head.weight.requires_grad_(False)
    assert list(tb.outgoing_groups(model, X)) == ["outer.weight"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable units"):
        tb.outgoing_groups(model, X)


def test_a_model_without_hidden_units_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"'weight': it reaches the output of the model"):
        tb.outgoing_groups(nn.Linear(3, 2), torch.zeros(1, 3))


class Fourier(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).abs()


def test_what_cannot_be_followed_is_refused_by_the_name_of_its_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(Fourier()), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    with pytest.raises(ValueError, match=r"through module '1\.0' \(Fourier\): torch's 'fft_fft'"):
        tb.outgoing_groups(model, torch.zeros(1, 3))
    assert list(tb.outgoing_groups(model, torch.zeros(1, 3), unsupported="leave")) == ["4.weight"]
    with pytest.raises(ValueError, match="'refuse' or 'leave'"):
        tb.outgoing_groups(model, torch.zeros(1, 3), unsupported="ignore")  # pyright: ignore[reportArgumentType]


def test_rules_of_a_tuple_must_name_free_parameters() -> None:
    model = Block()
    rules = tb.outgoing_groups(model, X)
    groups = tb.param_groups(model, {**rules, nn.Linear: tb.L1(0.1)})
    assert groups[0]["param_names"] == ["inner.weight", "head.weight"]
    with pytest.raises(ValueError, match=r"'inner\.weight'"):
        tb.param_groups(model, {("inner.weigth", "head.weight"): tb.UnitL2(0.1, members="1;1")})
    with pytest.raises(ValueError, match="falls under"):
        tb.param_groups(model, {"head.*": tb.L1(0.1), **rules})
    model.head.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="is frozen"):
        tb.param_groups(model, rules)


@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg, tb.ProxSGD])
def test_sleeping_units_wake_and_stay_removable(kind: type) -> None:
    torch.manual_seed(0)
    model = Block()
    graph = trace_units(model, X)
    with torch.no_grad():
        for axis in graph.readers():
            if bool((axis.units >= 0).all()):
                dict(model.named_parameters())[axis.name][:, 1:] = 0  # all but the first unit of each
    optimizer = kind(tb.param_groups(model, tb.outgoing_groups(model, X, lam=0.001)), lr=0.1)
    x, y = torch.randn(32, 1, 6, 6), torch.randint(3, (32,))
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        live = [model.inner.weight[:, u].any() for u in range(4)]
        assert live == [model.head.weight[:, u].any() for u in range(4)]
    assert sum(map(bool, live)) > 1
