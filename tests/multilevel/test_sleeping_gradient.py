"""The gradient on sleeping units from two forward passes and a small backward one is that of the whole model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, relu

import torch_bregman as tb
from tests.multilevel.agreement import assert_same, by_masks
from torch_bregman.multilevel import UnitForm
from torch_bregman.multilevel.sleeping_gradient import SleepingGradient

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "linear on sequences": (lambda: nn.Linear(6, 5), (3, 4, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 5, 3, stride=2, padding=1), (3, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(6, 5, (3, 2), padding=(2, 0), dilation=(2, 1), bias=False), (3, 6, 7, 8)),
    "conv2d without a batch": (lambda: nn.Conv2d(6, 5, 3, padding=1), (6, 7, 8)),
    "conv3d": (lambda: nn.Conv3d(6, 5, 2), (2, 6, 4, 4, 3)),
}


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_that_of_autograd(name: str, calls: int):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    model = nn.Sequential(make()).double()
    small = copy.deepcopy(model)
    small[0].weight = nn.Parameter(model[0].weight.detach()[:3].clone())  # two of five outputs sleep
    if model[0].bias is not None:
        small[0].bias = nn.Parameter(model[0].bias.detach()[:3].clone())
    own, data = SleepingGradient(model, small, ["0.weight"]), [torch.randn(shape).double() for _ in range(calls)]
    assert own.knows(data[0])
    with torch.no_grad(), own.inputs():
        for x in data:
            model(x)
    with own.outputs():
        loss = torch.stack([small(x).square().sum() * (i + 1) for i, x in enumerate(data)]).sum()
    loss.backward()
    torch.testing.assert_close(own.of("0.weight"), small[0].weight.grad, rtol=1e-10, atol=1e-10)


class InOtherWays(nn.Module):
    """Uses the weight of a layer beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(64, 20), nn.Linear(20, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.one(x.flatten(1)))
        return self.three(relu(self.two(h) + linear(h, self.two.weight)))


class ByName(InOtherWays):
    """Calls a layer with its input by name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.three(input=relu(self.two(relu(self.one(x.flatten(1))))))


@pytest.mark.parametrize("make", [InOtherWays, ByName])
def test_a_weight_that_is_used_in_other_ways_is_not_known(make: Callable[[], nn.Module]):
    model = make()
    small, x = copy.deepcopy(model), torch.zeros(2, 64)
    assert not SleepingGradient(model, small, ["two.weight", "three.weight"]).knows(x)


def test_tied_weights_and_padding_of_other_kinds_are_not_known():
    x = torch.zeros(1, 3, 6, 6)
    tied = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    tied[1].weight = tied[0].weight
    around = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"))
    same = nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"))
    for model in (tied, around, same):
        small = copy.deepcopy(model)
        assert not SleepingGradient(model, small, ["0.weight"]).knows(x)


@pytest.mark.parametrize(("make", "known"), [(InOtherWays, False), (lambda: tb.models.mlp([64, 20, 12, 4]), True)])
def test_units_are_trained_as_by_masks_either_way(make: Callable[[], nn.Module], known: bool):
    example, rng = torch.zeros(2, 1, 8, 8).double(), torch.Generator().manual_seed(0)
    data = [(torch.randn(16, 1, 8, 8, generator=rng).double(), torch.randint(0, 4, (16,), generator=rng))] * 14
    pairs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = tb.start_units_(make().double(), example, 0.4)
        rules = tb.outgoing_groups(model, example, lam=0.1)
        options = {"lr": 0.2, "momentum": 0.9, "m": 3}
        pairs.append((model, tb.MultilevelLinBreg(tb.param_groups(model, rules), **options)))
    (model, optimizer), (twin, other) = pairs
    form = UnitForm(twin, other, example)
    assert (form._sleeping is not None) == known
    for x, y in data:
        by_masks(model, optimizer, x, y)
        form.step(x, y, cross_entropy)
    form.write()
    assert_same((model, optimizer), (twin, other))
