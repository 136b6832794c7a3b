"""Targets over units that several tensors share: outgoing groups of a net with a skip, incoming ones with a bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import UnitL2
from torch_bregman.schedulers import Consolidation, Density, LamByQuantile, Units


class Skip(nn.Module):
    """Two layers read the same units."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.one, self.other = nn.Linear(12, 5), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.one(h) + torch.tanh(self.other(h))


def build(kind: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = Skip()
    rules = {"outgoing": tb.outgoing_groups, "incoming": tb.incoming_groups}[kind](model, torch.zeros(1, 6), lam=0.01)
    optimizer = tb.LinBreg(tb.param_groups(model, rules), lr=0.05)
    assert any(isinstance(group["regularizer"], UnitL2) for group in optimizer.param_groups)
    return model, optimizer


def step(model: nn.Module, optimizer: Any, number: int) -> None:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    (model(x) - x[:, :5].square()).square().mean().backward()
    optimizer.step()


def live(optimizer: Any) -> int:
    group = next(g for g in optimizer.param_groups if "members" in g)
    return int((group["members"].levels_all([p.detach() for p in group["params"]]) > 0).sum())


@pytest.mark.parametrize("kind", ["outgoing", "incoming"])
def test_units_are_met_and_stay(kind: str) -> None:
    model, optimizer = build(kind)
    for group in optimizer.param_groups:
        if isinstance(group["regularizer"], UnitL2):
            group["members"] = group["regularizer"]  # remembered beyond the freeze
    control = LamByQuantile(optimizer, Units(5), relaxation=1.0, every=1)
    assert control.watched[0].wholes == [12]
    for number in range(60):
        for group in optimizer.param_groups:
            group["lr"] *= 0.95
        step(model, optimizer, number)
        control.step()
    assert abs(live(optimizer) - 5) <= 1
    Consolidation(optimizer, Units(5)).freeze()
    assert live(optimizer) == 5
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    for number in range(60, 70):
        step(model, optimizer, number)
    assert live(optimizer) == 5


def test_density_counts_the_entries_of_units_in_all_tensors() -> None:
    model, optimizer = build("outgoing")
    watched = LamByQuantile(optimizer, Density(0.75)).watched[0]
    assert watched.wholes == [12 * 6 + 2 * 12 * 5]
    assert watched.budgets() == [round(0.75 * 192) - 72]
    step(model, optimizer, 0)
    Consolidation(optimizer, Density(0.75)).freeze()
    weights = [p for p in model.parameters() if p.ndim == 2]
    left = sum(int(p.count_nonzero()) for p in weights)
    assert round(0.75 * 192) - 10 < left <= round(0.75 * 192)
