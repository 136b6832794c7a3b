"""The methods sizes on request are compared with: densities, masks, and going on after a stop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.experiments.baselines import GradualPruning, Masked, SparseEvolution
from torch_bregman.experiments.baselines.evolution import erdos_renyi

MAKE: dict[str, Callable[[nn.Module, Any], Masked]] = {
    "pruning": lambda model, optimizer: GradualPruning(model, optimizer, 0.1, 40, every=4),
    "evolution": lambda model, optimizer: SparseEvolution(model, optimizer, 0.1, 40, every=4),
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_evolution_keeps_the_number_of_each_layer_and_moves_the_masks(optimizer: str) -> None:
    model, moving, masked = build("evolution", optimizer)
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
