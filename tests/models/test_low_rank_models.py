"""Networks that are factored from the start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bregman.models import build


@pytest.mark.parametrize(
    ("base", "ranks", "numbers"),
    [
        ("lenet_300_100", {"fc1": 24, "fc2": 9}, 24 * 1084 + 9 * 400 + 1000),
        ("lenet5_caffe", {"features.conv2": 13, "classifier.fc1": 13}, 500 + 13 * 550 + 13 * 1300 + 5000),
    ],
)
def test_it_has_the_numbers_of_its_factors_and_the_variance_of_a_start(
    base: str, ranks: dict[str, int], numbers: int
) -> None:
    torch.manual_seed(0)
    model = build("factored", base=base, ranks=ranks)
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == numbers
    assert model(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    for name, rank in ranks.items():
        first, second = model.get_submodule(name)
        product = second.weight.double().flatten(1) @ first.weight.double().flatten(1)
        assert torch.linalg.matrix_rank(product) == rank
        assert float(product.detach().var()) == pytest.approx(2 / product.shape[1], rel=0.25)
    assert len([m for m in model.modules() if isinstance(m, nn.ReLU)]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "resnet"}, "base 'resnet' is unknown: use one of lenet_300_100, lenet5_caffe, convnet"),
        ({"ranks": {"fc9": 3}}, "ranks must name layers of lenet_300_100, got 'fc9': use some of fc1, fc2, fc3"),
        ({"ranks": {"fc1": 0}}, "the rank of fc1 must be an integer >= 1, got 0"),
        ({"options": {"conv_relu": True}}, "model 'lenet_300_100' takes .*: it has no option 'conv_relu'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("factored", **options)


def test_the_network_it_is_made_of_has_the_options_given() -> None:
    relus = [
        sum(isinstance(layer, nn.ReLU) for layer in build("factored", base="lenet5_caffe", options=options).modules())
        for options in ({}, {"conv_relu": True})
    ]
    assert relus == [1, 3]
