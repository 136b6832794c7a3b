from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_bregman.metrics import count_nonzeros, density, layer_densities, named_weights


def zero_at_random(model: nn.Module, odds: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(torch.rand(param.shape, generator=generator) >= odds)


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=4), odds=st.floats(0, 1), seed=st.integers(0, 99))
def test_density_counts_what_numpy_counts(sizes: list[int], odds: float, seed: int) -> None:
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    zero_at_random(model, odds, seed)
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters() if p.ndim > 1}
    nonzeros = sum(np.count_nonzero(a) for a in arrays.values())
    assert density(model) == nonzeros / sum(a.size for a in arrays.values())
    assert layer_densities(model) == {name: np.count_nonzero(a) / a.size for name, a in arrays.items()}


def test_biases_and_norms_do_not_count() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.fill_(0.0 if name in {"0.bias", "1.weight", "3.bias"} else 1.0)
    assert density(model) == 1.0
    assert list(layer_densities(model)) == ["0.weight", "3.weight"]


def test_tied_weights_count_once_under_the_first_name() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[2].weight.zero_()
    assert density(model) == 0.5
    assert list(named_weights(model)) == ["0.weight", "2.weight"]


def test_frozen_and_half_precision_weights_count() -> None:
    model = nn.Linear(4, 4).to(torch.bfloat16).requires_grad_(False)
    model.weight[:2] = 0
    assert density(model) == 0.5


@pytest.mark.parametrize("model", [nn.ReLU(), nn.BatchNorm1d(3), nn.Sequential()])
def test_models_without_weights_are_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no weights with 2 or more dimensions"):
        density(model)


def test_lazy_layers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'0.weight' has no shape yet: run the model once"):
        layer_densities(nn.Sequential(nn.LazyLinear(3)))


def test_counting_nothing_gives_nothing() -> None:
    assert count_nonzeros([]) == []
