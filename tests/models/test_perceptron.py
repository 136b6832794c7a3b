from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_bregman.models import mlp
from torch_bregman.models.perceptron import ACTIVATIONS


@given(sizes=st.lists(st.integers(1, 20), min_size=2, max_size=5), batch=st.integers(1, 3))
def test_shapes_and_number_of_parameters_follow_from_the_sizes(sizes: list[int], batch: int) -> None:
    model = mlp(sizes)
    assert model(torch.zeros(batch, 1, sizes[0])).shape == (batch, sizes[-1])
    assert sum(p.numel() for p in model.parameters()) == sum((a + 1) * b for a, b in pairwise(sizes))


def test_is_the_composition_it_says_it_is() -> None:
    model, x = mlp((6, 5, 4, 3), activation="tanh"), torch.randn(2, 2, 3)
    hidden = torch.tanh(model.fc2(torch.tanh(model.fc1(x.reshape(2, 6)))))
    torch.testing.assert_close(model(x), model.fc3(hidden))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_stand_after_hidden_layers_only(activation: str) -> None:
    kinds = [type(module) for module in mlp((4, 3, 3, 2), activation)]
    act = ACTIVATIONS[activation]
    assert kinds == [nn.Flatten, nn.Linear, act, nn.Linear, act, nn.Linear]


def test_dropout_works_in_training_only_and_never_on_the_output() -> None:
    model, x = mlp((50, 400, 7), dropout=0.5), torch.randn(8, 50)
    assert [name for name, _ in model.named_children()] == ["flatten", "fc1", "act1", "dropout1", "fc2"]
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("sizes", [(), (3,), "34", (3, 0), (3, -1), (3, 2.0), (True, 2)])
def test_wrong_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sizes must"):
        mlp(sizes)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_wrong_dropout_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\)"):
        mlp((2, 2), dropout=dropout)


def test_unknown_activations_are_refused_naming_the_known() -> None:
    with pytest.raises(ValueError, match="activation 'relu6' is unknown: use one of relu, leaky_relu"):
        mlp((2, 2), activation="relu6")
