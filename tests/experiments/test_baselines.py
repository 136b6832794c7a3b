"""The methods sizes on request are compared with: densities, masks, and going on after a stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.experiments.baselines import (
    GradualPruning,
    LassoPruning,
    Masked,
    OneShotPruning,
    ProximalPruning,
    RigL,
    SparseEvolution,
    StaticMasks,
    two_phases,
)
from torch_bregman.experiments.baselines.random_masks import erdos_renyi

MAKE: dict[str, Callable[[nn.Module, Any], Masked]] = {
    "pruning": lambda model, optimizer: GradualPruning(model, optimizer, 0.1, 40, every=4),
    "evolution": lambda model, optimizer: SparseEvolution(model, optimizer, 0.1, 40, every=4),
    "rigl": lambda model, optimizer: RigL(model, optimizer, 0.1, 40, every=4),
    "static": lambda model, optimizer: StaticMasks(model, optimizer, 0.1),
    "one-shot": lambda model, optimizer: OneShotPruning(model, optimizer, 0.1, 40),
    "proximal": lambda model, optimizer: ProximalPruning(model, optimizer, 0.1, 40, lam=0.01, at=0.5),
    "lasso": lambda model, optimizer: LassoPruning(model, optimizer, 0.1, 40, lam=0.01, at=0.5),
}
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
}


def build(method: str, optimizer: str) -> tuple[nn.Module, Any, Masked]:
    torch.manual_seed(0)
    model = tb.models.mlp([20, 30, 10])
    moving = OPTIMIZERS[optimizer](model.parameters())
    return model, moving, MAKE[method](model, moving)


def train(model: nn.Module, optimizer: Any, masked: Masked, steps: range) -> list[int]:
    counts = []
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(16, 20, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :10].argmax(1)).backward()
        optimizer.step()
        masked.step()
        counts.append(sum(int(p.count_nonzero()) for p in model.parameters() if p.ndim > 1))
    return counts


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruning_falls_to_the_goal_and_stays(optimizer: str) -> None:
    model, moving, masked = build("pruning", optimizer)
    counts = train(model, moving, masked, range(40))
    assert counts[:7] == [900] * 7
    assert counts == sorted(counts, reverse=True)
    assert counts[23:] == [90] * 17


def test_what_is_pruned_is_smallest() -> None:
    model, moving, masked = build("pruning", "sgd")
    masked.steps = 23
    before = torch.cat([p.detach().abs().flatten() for p in masked.weights])
    masked.step()
    after = torch.cat([p.detach().flatten() for p in masked.weights])
    assert torch.equal(after.nonzero().flatten(), before.topk(90).indices.sort().values)
    assert moving.param_groups[0]["lr"] == 0.05
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("method", ["one-shot", "proximal", "lasso"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_cut_keeps_exactly_the_largest_for_good(method: str, optimizer: str) -> None:
    model, moving, masked = build(method, optimizer)
    counts = train(model, moving, masked, range(40))
    assert counts[19:] == [90] * 21
    assert min(counts[:19]) > 90
    assert counts[0] == 900 or method == "proximal"


def test_proximal_steps_with_sgd_are_proximal_sgd() -> None:
    model, moving, masked = build("proximal", "sgd")
    torch.manual_seed(0)
    other = tb.models.mlp([20, 30, 10])
    groups = tb.param_groups(other, {nn.Linear: tb.L1(0.01)})
    optimizer = tb.ProxSGD(groups, lr=0.05, momentum=0.9)
    for number in range(19):  # up to the cut
        train(model, moving, masked, range(number, number + 1))
        x = torch.randn(16, 20, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(x), x[:, :10].argmax(1)).backward()
        optimizer.step()
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    assert tb.density(model) < 1


def test_the_penalty_is_that_of_the_loss_and_ends_with_the_cut() -> None:
    model, _, masked = build("lasso", "sgd")
    twin = copy.deepcopy(model)
    x = torch.randn(8, 20)
    model(x).square().mean().backward()
    (twin(x).square().mean() + 0.01 * sum(p.abs().sum() for p in twin.parameters() if p.ndim > 1)).backward()
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)
    masked.steps = 20
    before = masked.weights[0].grad
    model.zero_grad()
    model(x).square().mean().backward()
    torch.testing.assert_close(masked.weights[0].grad, before - 0.01 * masked.weights[0].detach().sign())


def test_one_shot_pruning_is_a_bregman_method_without_regulariser_that_is_frozen() -> None:
    model, moving, masked = build("one-shot", "adam")
    torch.manual_seed(0)
    other = tb.models.mlp([20, 30, 10])
    its = tb.AdaBreg(tb.param_groups(other, {nn.Linear: tb.L1(0.0)}), lr=0.01)
    freeze: Any = tb.schedulers.Consolidation(its, tb.schedulers.Density(0.1), at=20)
    train(model, moving, masked, range(30))
    train(other, its, freeze, range(30))
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest(optimizer: str) -> None:
    model, moving, masked = build("rigl", optimizer)
    train(model, moving, masked, range(3))
    old = [mask.clone() for mask in masked.masks]
    x = torch.randn(16, 20)
    moving.zero_grad()
    nn.functional.cross_entropy(model(x), x[:, :10].argmax(1)).backward()
    moving.step()
    moved = [weight.detach().clone() for weight in masked.weights]
    grads = [weight.grad.abs() for weight in masked.weights if weight.grad is not None]
    masked.step()
    share = 0.15 * (1 + math.cos(math.pi * 4 / 30))
    for weight, mask, before, its, grad in zip(masked.weights, masked.masks, old, moved, grads, strict=True):
        count = round(share * int(before.sum()))
        sizes = sorted(float(each) for each in its[before].abs())
        kept = before & (its.abs() > sizes[count - 1])
        assert int(kept.sum()) == int(before.sum()) - count
        assert bool(mask[kept].all())
        grown = mask & ~kept
        assert int(grown.sum()) == count
        assert float(grad[grown].min()) >= float(grad[~mask].max())
        assert not weight[grown].any()
        for value in masked._moments(weight):
            assert not value[~kept].any()
            assert value[kept].any()


def test_what_rigl_exchanges_falls_to_nothing() -> None:
    model, moving, masked = build("rigl", "sgd")
    changed = []
    for number in range(40):
        before = [mask.clone() for mask in masked.masks]
        train(model, moving, masked, range(number, number + 1))
        changed.append(sum(int((a & ~b).sum()) for a, b in zip(before, masked.masks, strict=True)))
    assert [number + 1 for number, count in enumerate(changed) if count] == [4, 8, 12, 16, 20, 24]
    assert changed[3] > changed[15] > changed[23]
    assert not any(changed[28:])


def test_static_masks_never_move() -> None:
    model, moving, masked = build("static", "sgd")
    first = [mask.clone() for mask in masked.masks]
    train(model, moving, masked, range(40))
    assert all(torch.equal(mask, old) for mask, old in zip(masked.masks, first, strict=True))
    assert sum(int(mask.sum()) for mask in first) == pytest.approx(90, abs=1)


def test_in_two_phases_the_rate_falls_twice_and_survives_a_stop() -> None:
    weight = nn.Parameter(torch.zeros(1))

    def rates(schedule: Any, optimizer: Any, count: int) -> list[float]:
        seen = []
        for _ in range(count):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

    optimizer = torch.optim.SGD([weight], lr=2.0)
    schedule = two_phases(optimizer, 10, at=0.6, floor=0.1, again=0.5)
    seen = rates(schedule, optimizer, 10)
    assert seen[0] == 2.0
    assert seen[6] == 1.0
    assert seen[:6] == sorted(seen[:6], reverse=True)
    assert seen[6:] == sorted(seen[6:], reverse=True)
    assert seen[5] > 0.2
    assert seen[9] < 0.2
    first = torch.optim.SGD([weight], lr=2.0)
    stopped = two_phases(first, 10, at=0.6, floor=0.1, again=0.5)
    head = rates(stopped, first, 7)
    other = torch.optim.SGD([weight], lr=2.0)
    again = two_phases(other, 10, at=0.6, floor=0.1, again=0.5)
    again.load_state_dict(copy.deepcopy(stopped.state_dict()))
    other.load_state_dict(first.state_dict())
    assert head + rates(again, other, 3) == seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["evolution", "rigl"])
def test_the_number_of_each_layer_stays_and_the_masks_move(method: str, optimizer: str) -> None:
    model, moving, masked = build(method, optimizer)
    first = [mask.clone() for mask in masked.masks]
    sizes = [int(mask.sum()) for mask in first]
    assert sum(sizes) == pytest.approx(90, abs=1)
    train(model, moving, masked, range(40))
    assert [int(mask.sum()) for mask in masked.masks] == sizes
    assert all(not torch.equal(mask, old) for mask, old in zip(masked.masks, first, strict=True))
    assert all(not weight[~mask].any() for weight, mask in zip(masked.weights, masked.masks, strict=True))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.3, 0.9])
def test_densities_of_layers_make_that_of_all(density: float) -> None:
    shapes = [(300, 784), (100, 300), (10, 100)]
    parts = erdos_renyi(shapes, density)
    total = sum(part * a * b for part, (a, b) in zip(parts, shapes, strict=True))
    assert total == pytest.approx(density * sum(a * b for a, b in shapes))
    assert all(0 < part <= 1 for part in parts)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", MAKE)
def test_stopped_it_goes_on_bit_for_bit(method: str, optimizer: str) -> None:
    model, moving, masked = build(method, optimizer)
    train(model, moving, masked, range(14))
    saved = copy.deepcopy((model.state_dict(), moving.state_dict(), masked.state_dict()))
    other, its, mask = build(method, optimizer)
    other.load_state_dict(saved[0])
    its.load_state_dict(saved[1])
    mask.load_state_dict(saved[2])
    train(model, moving, masked, range(14, 30))
    train(other, its, mask, range(14, 30))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
