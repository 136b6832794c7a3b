"""The denoising autoencoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bregman.models import denoiser


def test_it_has_as_many_layers_of_as_many_units_as_asked_for() -> None:
    model = denoiser(in_channels=2, size=5, layers=4, width=9)
    linear = [module for module in model if isinstance(module, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in linear] == [(50, 9), (9, 9), (9, 9), (9, 50)]
    assert sum(isinstance(module, nn.ReLU) for module in model) == 3
    assert model(torch.zeros(3, 2, 5, 5)).shape == (3, 2, 5, 5)


def test_by_default_it_is_as_wide_as_an_image() -> None:
    assert {p.shape for p in denoiser().parameters() if p.ndim == 2} == {(784, 784)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 1}, "layers must be an integer >= 2, got 1"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"size": 2.5}, "size must be an integer >= 1, got 2.5"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoiser(**options)
