"""Multiply-adds of units: against the compacted network, and against the best threshold found by trying all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.metrics import cost_report
from torch_bregman.regularizers import GroupL2, UnitL2
from torch_bregman.schedulers import Consolidation, LamByFeedback, LamByQuantile, UnitMultiplyAdds
from torch_bregman.schedulers.watched import Watched, steered


class Skip(nn.Module):
    """A convolution with normalisation, two readers of the same channels, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.one, self.other = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.last, self.out = nn.Linear(5 * 16, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.first(x)))
        h = torch.relu(self.one(h) + self.other(h))
        return self.out(torch.relu(self.last(h.flatten(1))))


IMAGE = torch.zeros(1, 1, 4, 4)
MODELS: dict[str, Any] = {
    "mlp": lambda: tb.models.mlp([16, 12, 9, 3]),
    "skip": Skip,
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    ),
}  # fmt: skip
RULES = {"outgoing": tb.outgoing_groups, "incoming": tb.incoming_groups}


def build(name: str, kind: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = MODELS[name]()
    rules = RULES[kind](model, IMAGE, lam=1e-3)
    return model, tb.LinBreg(tb.param_groups(model, rules), lr=0.05)


def step(model: nn.Module, optimizer: Any, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    x, y = torch.randn(32, 1, 4, 4, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def macs(model: nn.Module) -> int:
    small, _ = tb.compact(model, IMAGE, batch_sizes=())
    return cost_report(small, IMAGE).macs


@torch.no_grad()
def switched_off(optimizer: Any, lam: float) -> None:
    """Set all groups to zero whose level is at most λ."""
    for group in optimizer.param_groups:
        norm, params = group["regularizer"], group["params"]
        if isinstance(norm, UnitL2):
            levels = norm.levels_all(params)
            for param, mask in zip(params, norm.spread_all(levels <= lam, params), strict=True):
                param.masked_fill_(mask, 0.0)
        elif isinstance(norm, GroupL2):
            params[0].masked_fill_(norm.spread(norm.levels(params[0]) <= lam, params[0]), 0.0)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_charged_is_what_compacting_leaves(name: str, kind: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    optimizer = tb.ProxSGD(
        tb.param_groups(model, RULES[kind](model, IMAGE, lam=1e-3)), lr=0.05
    )  # no duals: levels of θ
    indices, beside = steered(optimizer, None)
    each = Watched(optimizer, indices, [UnitMultiplyAdds.of(model, IMAGE, 0.5)], beside)
    rated = each.rated(0)
    levels = torch.cat([r.levels for r in rated]).sort().values
    for cut in levels[[0, len(levels) // 5, len(levels) // 3]].tolist():
        if any(len(r.levels) and not (r.levels > cut).any() for r in rated):
            break  # of a layer without units compacting leaves one
        said = each._costs[0].always + sum(float((r.cost * (r.levels > cut)).sum()) for r in rated)
        switched_off(optimizer, cut)
        assert macs(model) == pytest.approx(said)
    assert each.wholes == [cost_report(MODELS[name](), IMAGE).macs]


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("goal", [0.3, 0.6])
def test_the_compacted_network_has_what_was_asked_for_within_a_unit(name: str, kind: str, goal: float) -> None:
    model, optimizer = build(name, kind)
    dense, size = macs(model), UnitMultiplyAdds.of(model, IMAGE, goal)
    control = LamByQuantile(optimizer, size, relaxation=0.3, every=1)
    for number in range(40):
        step(model, optimizer, number)
        control.step()
    (each,) = control.watched
    largest = max(float(r.cost.max()) for r in each.rated(0) if len(r.levels))
    Consolidation(optimizer, size).freeze()
    for number in range(3):
        step(model, optimizer, number)
    assert goal * dense - largest < macs(model) <= goal * dense


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("name", ["mlp", "skip"])
@pytest.mark.parametrize("goal", [0.2, 0.35, 0.6])
def test_by_group_all_keep_the_same_share_of_their_units(name: str, kind: str, goal: float) -> None:
    model, optimizer = build(name, kind)
    dense, size = macs(model), UnitMultiplyAdds.of(model, IMAGE, goal)
    control = LamByQuantile(optimizer, size, relaxation=0.3, every=1, scope="group")
    wholes = [each.wholes[0] for each in control.watched]
    shares = [each.budgets()[0] / each.wholes[0] for each in control.watched]
    assert max(shares) - min(shares) <= 1 / min(wholes)
    for number in range(25):
        step(model, optimizer, number)
        control.step()
    Consolidation(optimizer, size, scope="group").freeze()
    step(model, optimizer, 0)
    assert macs(model) <= goal * dense


@pytest.mark.parametrize("goal", [0.1, 0.25, 0.5, 0.75, 150.0, 1.0])
def test_by_group_the_share_is_the_largest_that_fits(goal: float) -> None:
    """Against all shares of a perceptron with 12 and 9 units: 16·a + a·b + 3·b multiply-adds."""
    model, optimizer = build("mlp", "outgoing")
    control = LamByQuantile(optimizer, UnitMultiplyAdds.of(model, IMAGE, goal), scope="group")
    turns = sorted([((i + 0.5) / 12, 0) for i in range(12)] + [((i + 0.5) / 9, 1) for i in range(9)])
    best = [0, 0]
    for count in range(len(turns) + 1):
        a, b = (sum(layer == which for _, layer in turns[:count]) for which in (0, 1))
        if 16 * a + a * b + 3 * b <= (goal * 327 if goal <= 1 else goal):
            best = [a, b]
    assert [each.budgets()[0] for each in control.watched] == best


def test_by_group_what_leaves_a_layer_without_units_or_has_two_weights_in_one_group_is_refused() -> None:
    model, optimizer = build("mlp", "outgoing")
    with pytest.raises(ValueError, match=r"macs 0.05 cannot be met: it is 16.35 of 327, and the least .* is 20: raise"):
        LamByQuantile(optimizer, UnitMultiplyAdds.of(model, IMAGE, 0.05), scope="group")
    together = tb.LinBreg([model.fc2.weight, model.fc3.weight], lr=0.1, regularizer=tb.GroupL2(0.1, view="columns"))
    with pytest.raises(ValueError, match="must have one weight to meet multiply-adds by itself, got 2"):
        LamByQuantile(together, UnitMultiplyAdds.of(model, IMAGE, 0.5), scope="group")


def test_feedback_steers_by_the_same_costs() -> None:
    model, optimizer = build("mlp", "outgoing")
    size = UnitMultiplyAdds.of(model, IMAGE, 0.4)
    control = LamByFeedback(optimizer, size, relaxation=0.1, every=1)
    for number in range(150):
        step(model, optimizer, number)
        control.step()
    assert abs(control.watched[0].gap()) < 0.2


def test_what_is_no_unit_is_refused() -> None:
    model, _ = build("mlp", "outgoing")
    size = UnitMultiplyAdds.of(model, IMAGE, 0.5)
    single = tb.LinBreg(model.parameters(), lr=0.1, regularizer=tb.L1(0.1))
    with pytest.raises(ValueError, match="multiply-adds of units need groups of whole units, got l1"):
        LamByQuantile(single, size)
    kernels = tb.LinBreg(tb.param_groups(model, {"fc2.weight": tb.GroupL2(0.1, view="blocks(3, 3)")}), lr=0.1)
    with pytest.raises(ValueError, match="are no units of the model"):
        LamByQuantile(kernels, size)


def test_a_goal_below_what_no_unit_can_save_is_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 2))
    rules = tb.outgoing_groups(model, torch.zeros(1, 6), lam=0.1)
    optimizer = tb.LinBreg(tb.param_groups(model, rules), lr=0.1)
    with pytest.raises(ValueError, match="cannot be met"):
        LamByQuantile(optimizer, UnitMultiplyAdds.of(model, torch.zeros(1, 6), 0.01))
