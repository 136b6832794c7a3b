"""What units become on their way through a model: each case is also cut, and must then say the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

import torch_bregman as tb
from torch_bregman.graph import trace_units


class Case(nn.Module):
    """A convolution that makes six units, what happens to them, and a linear layer that reads what is left."""

    def __init__(self, middle: Callable[[Case, Tensor], Tensor], width: int, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(width, 3)
        for name, part in parts.items():
            setattr(self, name, part)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, torch.relu(self.first(x))).mean((2, 3)))


def gate(shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape))


FREE = {
    "in place": (lambda m, x: x.mul_(2).relu_().add_(1), 6, {}),
    "dropout and others": (lambda m, x: F.gelu(F.dropout(x.contiguous(), 0.5, m.training)).clamp(max=2), 6, {}),
    "prelu": (lambda m, x: m.act(x), 6, {"act": nn.PReLU(6)}),
    "instance norm": (lambda m, x: m.norm(x), 6, {"norm": nn.InstanceNorm2d(6, affine=True)}),
    "a gain for each": (lambda m, x: x * m.gain, 6, {"gain": gate((6, 1, 1))}),
    "a gain for all": (lambda m, x: x * m.gain, 6, {"gain": gate((1,))}),
    "a mask over pixels": (lambda m, x: x * torch.ones(4, 4), 6, {}),
    "interpolation": (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), 6, {}),
    "pooling": (lambda m, x: F.avg_pool2d(F.max_pool2d(x, 2, 1, 1), 3, 1, 1), 6, {}),
    "reflection": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 6, {}),
    "there and back": (lambda m, x: x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2).unflatten(2, (4, 4)), 6, {}),
    "sizes of its own": (lambda m, x: x.view(*x.shape[:2], -1).view(x.shape), 6, {}),
    "crops": (lambda m, x: x[:, :, 1:, ::2], 6, {}),
    "concatenation": (lambda m, x: torch.cat([x, x.tanh()], 1), 12, {}),
    "upward": (lambda m, x: m.up(x), 4, {"up": nn.ConvTranspose2d(6, 4, 2, stride=2)}),
    "a sum with a sum": (lambda m, x: x + m.second(x) - m.second(x.tanh()), 6, {"second": nn.Conv2d(6, 6, 1)}),
    "one pixel for all": (lambda m, x: x * torch.sigmoid(m.one(x)), 6, {"one": nn.Conv2d(6, 1, 1)}),
    "softmax over pixels": (lambda m, x: x.flatten(2).softmax(-1).unflatten(2, (4, 4)), 6, {}),
    "zero channels": (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1)) + m.wide(x), 8, {"wide": nn.Conv2d(6, 8, 1)}),
    "a bias for each pixel": (lambda m, x: x + m.fixed, 6, {"fixed": gate((2, 6, 4, 4))}),
    "a shuffle": (lambda m, x: F.pixel_shuffle(m.wide(x), 2), 2, {"wide": nn.Conv2d(6, 8, 1)}),
}


@pytest.mark.parametrize("name", FREE)
def test_units_that_pass_can_be_cut(name: str) -> None:
    torch.manual_seed(0)
    middle, width, parts = FREE[name]
    model, x = Case(middle, width, **parts).eval(), torch.randn(2, 2, 4, 4)
    graph = trace_units(model, x)
    made = next(axis for axis in graph.axes if (axis.name, axis.dim) == ("first.weight", 0))
    assert bool((made.units >= 0).all())
    dead = set(made.units[1:4].tolist())
    state = dict(model.named_parameters())
    with torch.no_grad():
        for axis in graph.readers():
            hit = torch.tensor([unit in dead for unit in axis.units.tolist()])
            state[axis.name].movedim(axis.dim, 0)[hit] = 0
    small, _ = tb.compact(model, x, batch_sizes=(), low_rank=False)
    assert small.first.out_channels == 6 - 3
    assert all(p.numel() <= state[n].numel() for n, p in small.named_parameters())


PINNED = {
    "layer norm": (lambda m, x: m.norm(x.movedim(1, 3)).movedim(3, 1), 6, {"norm": nn.LayerNorm(6)}, "mixes it with"),
    "group norm": (lambda m, x: m.norm(x), 6, {"norm": nn.GroupNorm(2, 6)}, "mixes it with other"),
    "softmax over units": (lambda m, x: x.softmax(1), 6, {}, "mixes it with other"),
    "halves": (lambda m, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], 3, {}, "picks some of its units by 'chunk'"),
    "one unit": (lambda m, x: x[:, :1], 1, {}, "picks some of its units by 'getitem'"),
    "a constant": (lambda m, x: x + torch.ones(6, 1, 1), 6, {}, "it belongs to the input"),
    "a sum over units": (lambda m, x: x.sum(1, keepdim=True), 1, {}, "adds up its units by 'sum'"),
    "products": (lambda m, x: (x.flatten(2) @ x.flatten(2).mT)[:, None].expand(-1, 6, -1, -1), 6, {}, "multiplied by"),
}


@pytest.mark.parametrize("name", PINNED)
def test_units_that_others_depend_on_are_left_with_the_reason(name: str) -> None:
    torch.manual_seed(0)
    middle, width, parts, reason = PINNED[name]
    model, x = Case(middle, width, **parts).eval(), torch.randn(2, 2, 4, 4)
    graph = trace_units(model, x)
    made = next(axis for axis in graph.axes if (axis.name, axis.dim) == ("first.weight", 0))
    assert bool((made.units < 0).any())
    assert reason in graph.pinned["first.weight"]
    small, _ = tb.compact(model, x, batch_sizes=(), low_rank=False)
    assert small.first.out_channels == 6


class Transposed(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.encoder(x)), self.encoder.weight.t())


def test_weights_used_in_ways_of_their_own_are_locked() -> None:
    graph = trace_units(Transposed(), torch.randn(2, 6))
    assert all(bool((axis.units < 0).all()) for axis in graph.axes)
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 2))
    graph = trace_units(computed, torch.randn(2, 4))
    assert not graph.units()
    with torch.no_grad():
        computed[2].weight[:, 1] = 0
    small, report = tb.compact(computed, torch.randn(2, 4), batch_sizes=(), low_rank=False)
    assert report.parameters[0] == report.parameters[1]
    assert small[2].in_features == 5


def test_modes_are_left_as_they_were_and_hooks_are_gone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1)).train()
    model[1].eval()
    trace_units(model, torch.randn(2, 3))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    broken = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        trace_units(broken, torch.randn(2, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in broken.modules())
