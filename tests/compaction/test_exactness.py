"""The compact model says what the original says, is really smaller, and can be trained on."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.graph import UnitGraph, trace_units

from .architectures import ARCHITECTURES, build, loss_of

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().amax() / a.abs().amax())


@torch.no_grad()
def silence(model: nn.Module, graph: UnitGraph, units: set[int], side: str) -> None:
    """Set all that reads, or all that makes some units to zero; biases stay on the reading side."""
    state = dict(model.named_parameters())
    for axis in graph.readers() if side == "outgoing" else graph.makers():
        if axis.name in state:
            hit = torch.tensor([unit in units for unit in axis.units.tolist()])
            state[axis.name].movedim(axis.dim, 0)[hit] = 0


def expected_parameters(model: nn.Module, graph: UnitGraph, dead: set[int]) -> int:
    """Count what is left when the slices of dead units are cut off every axis."""
    total = 0
    for name, param in model.named_parameters():
        shape = list(param.shape)
        for axis in {a.dim: a for a in graph.axes if a.name == name}.values():
            shape[axis.dim] = sum(unit not in dead for unit in axis.units.tolist())
        total += torch.Size(shape).numel()
    return total


def same_outputs(model: nn.Module, small: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        draws = [x, torch.randn_like(x), torch.rand_like(x) * 3]
        return all(relative(model(each), small(each)) <= 1e-5 for each in draws)


@every_architecture
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_units_that_nothing_reads_are_gone_and_nothing_else(name: str, data: st.DataObject) -> None:
    model, x = build(name, seed=data.draw(st.integers(0, 3)))
    graph = trace_units(model, x)
    share = data.draw(st.sampled_from([0.2, 0.5, 0.8]))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    chosen = {unit for unit in graph.units() if float(torch.rand((), generator=draw)) < share}
    # a layer keeps its first unit: a network without any would be another test
    chosen -= {int(axis.units[axis.units >= 0][0]) for axis in graph.makers() if bool((axis.units >= 0).any())}
    silence(model, graph, chosen, "outgoing")
    small, report = tb.compact(model, x, batch_sizes=(), low_rank=False, sparse="never")
    assert same_outputs(model, small, x)
    assert report.error <= 1e-5
    assert sum(p.numel() for p in small.parameters()) == report.parameters[1]
    assert report.parameters[1] == expected_parameters(model, graph, chosen)


@every_architecture
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_units_that_are_always_the_same_are_folded_into_biases(name: str, data: st.DataObject) -> None:
    model, x = build(name, seed=data.draw(st.integers(0, 3)))
    graph = trace_units(model, x)
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    chosen = {unit for unit in graph.units() if float(torch.rand((), generator=draw)) < 0.4}
    weights = {axis.name for axis in graph.makers() if dict(model.named_parameters()).get(axis.name, x).ndim > 1}
    biases = {n: p.detach().clone() for n, p in model.named_parameters() if n not in weights}
    silence(model, graph, chosen, "incoming")
    if data.draw(st.booleans()):
        with torch.no_grad():  # constants that are not zero
            for n, p in model.named_parameters():
                if n in biases:
                    p.copy_(biases[n])
    small, report = tb.compact(model, x, batch_sizes=(), low_rank=False, sparse="never")
    assert same_outputs(model, small, x)
    assert report.parameters[1] <= report.parameters[0]


def test_a_constant_unit_adds_to_the_next_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight[1] = 0
    small, _ = tb.compact(model, torch.randn(2, 3), batch_sizes=())
    expected = model[2].weight[:, 1] * torch.sigmoid(model[0].bias[1])
    torch.testing.assert_close(small[2].bias, expected.detach())
    assert small[0].out_features == 3


def test_a_bias_that_is_added_is_cut_with_its_filters() -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    model, x = nn.Sequential(*layers), torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        model[0].weight[1] = 0
        model[4].weight[:, 2] = 0
    small, _ = tb.compact(model, x, batch_sizes=(), low_rank=False)
    assert small[2].bias.shape == (3,)
    assert same_outputs(model, small, x)


def test_a_constant_behind_zero_padding_stays() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 2, 3, padding=1))
    with torch.no_grad():
        model[0].weight[1] = 0
    small, _ = tb.compact(model, torch.randn(2, 1, 8, 8), batch_sizes=(), low_rank=False)
    assert small[0].out_channels == 3
    model[2].padding = (0, 0)
    small, _ = tb.compact(model, torch.randn(2, 1, 8, 8), batch_sizes=(), low_rank=False)
    assert small[0].out_channels == 2


@every_architecture
def test_training_on_outgoing_groups_then_compaction_then_training(name: str) -> None:
    model, x = build(name)
    x = x.repeat(4, *[1] * (x.ndim - 1)) + 0.3 * torch.randn(4 * len(x), *x.shape[1:], generator=torch.manual_seed(0))
    model.train()
    rules = tb.outgoing_groups(model, x[:2], lam=0.05 if name == "resnet" else 0.3)
    optimizer = tb.ProxSGD(tb.param_groups(model, rules), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model, x).backward()
        optimizer.step()
    small, report = tb.compact(model, x[:3], optimizer=optimizer, batch_sizes=())
    assert small.training
    assert report.parameters[1] < report.parameters[0]
    model.eval()
    small.eval()
    assert same_outputs(model, small, x)
    small.train()
    later = tb.LinBreg(small.parameters(), lr=0.01)
    before, first = [p.detach().clone() for p in small.parameters()], float(loss_of(small, x).detach())
    for _ in range(5):
        later.zero_grad()
        loss_of(small, x).backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in small.parameters())
        later.step()
    assert float(loss_of(small, x).detach()) < first
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


@every_architecture
def test_the_original_is_left_as_it_is(name: str) -> None:
    model, x = build(name)
    before = copy.deepcopy(model.state_dict())
    model.train()
    tb.compact(model, x, batch_sizes=(1,), fold_norms=True, sparse="never")
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["resnet", "separable", "densenet"])
def test_normalisation_is_folded_where_asked(name: str) -> None:
    model, x = build(name)
    small, _ = tb.compact(model, x, batch_sizes=(), fold_norms=True)
    left = sum(isinstance(m, nn.BatchNorm2d) for m in small.modules())
    # in the dense network the normalisation comes before the layers that read it
    assert left == (3 if name == "densenet" else 0)
    assert same_outputs(model, small, x)


def test_widths_are_rounded_up() -> None:
    model = tb.models.mlp([8, 30, 20, 3])
    with torch.no_grad():
        model.fc2.weight[:, 5:] = 0  # pyright: ignore
        model.fc3.weight[:, 17:] = 0  # pyright: ignore
    x = torch.randn(4, 8)
    small, _ = tb.compact(model, x, round_to=8, batch_sizes=())
    assert (small.fc1.out_features, small.fc2.out_features) == (8, 20)
    assert same_outputs(model, small, x)


def test_a_layer_without_a_living_unit_keeps_one() -> None:
    model = tb.models.convnet(size=16)
    with torch.no_grad():
        model.features.conv2.weight.zero_()  # pyright: ignore
    x = torch.randn(2, 1, 16, 16)
    small, _ = tb.compact(model, x, batch_sizes=())
    assert small.features.conv1.out_channels == 1
    assert same_outputs(model, small, x)


class Tied(nn.Module):
    """An embedding tied to the output layer, a shared block, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.out.weight = self.table.weight
        self.shared, self.frozen = nn.Linear(8, 8), nn.Linear(8, 8)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x).mean(1)
        h = h + relu_twice(self.shared, h)
        return self.out(self.frozen(h))


def relu_twice(layer: nn.Module, h: Tensor) -> Tensor:
    return torch.relu(layer(torch.relu(layer(h))))


def test_tied_shared_and_frozen_stay_so() -> None:
    model = Tied()
    x = torch.randint(11, (4, 3))
    graph = trace_units(model, x)
    silence(model, graph, set(graph.units()[2:5]), "outgoing")
    small, report = tb.compact(model, x, batch_sizes=(), low_rank=False)
    assert report.parameters[1] < report.parameters[0]
    assert small.out.weight is small.table.weight
    assert small.table.embedding_dim == small.out.in_features == 5
    assert not any(p.requires_grad for p in small.frozen.parameters())
    assert all(p.requires_grad for p in small.shared.parameters())
    with torch.no_grad():
        assert relative(model(x), small(x)) <= 1e-5


class Numbers(nn.Module):
    """Code that counts on the number of channels."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.head, self.sizes = nn.Conv2d(1, 4, 3), nn.Linear(16, 2), sizes

    def forward(self, x: Tensor) -> Tensor:
        return self.head(relu_of(self.conv(x)).view(*self.sizes))


def relu_of(x: Tensor) -> Tensor:
    return torch.relu(x)


@pytest.mark.parametrize(("sizes", "channels"), [((-1, 16), 4), ((3, -1), 2)])
def test_lengths_written_as_numbers_keep_their_units(sizes: tuple[int, ...], channels: int) -> None:
    model, x = Numbers(sizes), torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        model.head.weight[:, 8:] = 0
    small, report = tb.compact(model, x, batch_sizes=(), low_rank=False)
    assert small.conv.out_channels == channels
    assert channels == 2 or "gives the length 16 to 'view'" in report.left["conv.weight"]


def test_double_precision_is_compacted_in_its_own() -> None:
    model, x = build("resnet")
    small, _ = tb.compact(model.double(), x.double(), batch_sizes=(), tolerance=1e-12, low_rank=False)
    assert next(small.parameters()).dtype == torch.float64


def test_a_difference_is_refused_with_the_name_of_a_layer() -> None:
    torch.manual_seed(0)
    model = tb.models.mlp([30, 20, 3])
    with torch.no_grad():
        model.fc1.weight.copy_(torch.randn(20, 2) @ torch.randn(2, 30))  # pyright: ignore
    with pytest.raises(ValueError, match=r"differs from the original by .* layer 'fc1' on"):
        tb.compact(model, torch.randn(2, 30), batch_sizes=(), tolerance=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"round_to": 0}, "round_to must be"),
        ({"batch_sizes": (0,)}, "batch_sizes must be"),
        ({"sparse": "yes"}, "sparse must be"),
        ({"tolerance": 0.0}, "tolerance must be"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tb.compact(tb.models.mlp([4, 3, 2]), torch.zeros(1, 4), **options)


def test_the_report_is_a_table() -> None:
    model, x = build("convnet")
    _, report = tb.compact(model, x, batch_sizes=(1, 4))
    text = str(report)
    assert "features.conv1" in text
    assert "ms at batch 4" in text
    assert [each.batch for each in report.latencies] == [1, 4]
    assert report.macs[0] == tb.metrics.cost_report(model, x).macs


def test_no_warnings_about_sparse_layers_reach_the_user() -> None:
    model, x = tb.models.mlp([40, 30, 3]), torch.randn(2, 40)
    with torch.no_grad():
        model.fc1.weight.mul_(torch.rand(30, 40) < 0.1)  # pyright: ignore
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small, report = tb.compact(model, x, batch_sizes=(), sparse="always", low_rank=False)
    assert isinstance(small.fc1, tb.layers.CSRLinear)
    assert same_outputs(model, small, x)
    assert report.bytes[1] < report.bytes[0]
