from __future__ import annotations

import pytest
import torch
from torch.nn.functional import max_pool2d, relu

from torch_bregman.models import lenet5_caffe, lenet_300_100


def test_lenet_300_100_has_the_layers_of_its_name() -> None:
    shapes = [tuple(p.shape) for p in lenet_300_100().parameters() if p.ndim > 1]
    assert shapes == [(300, 784), (100, 300), (10, 100)]


@pytest.mark.parametrize("conv_relu", [False, True])
def test_lenet5_caffe_with_and_without_relu_after_convolutions(conv_relu: bool) -> None:
    model, x = lenet5_caffe(conv_relu=conv_relu), torch.randn(2, 1, 28, 28)
    act = relu if conv_relu else torch.nn.Identity()
    hidden = max_pool2d(act(model.features.conv2(max_pool2d(act(model.features.conv1(x)), 2))), 2)
    assert hidden.shape == (2, 50, 4, 4)
    torch.testing.assert_close(model(x), model.classifier.fc2(model.classifier.fc1(hidden.flatten(1)).relu()))


@pytest.mark.parametrize("model", [lenet_300_100, lenet5_caffe])
def test_wrong_arguments_are_refused(model: type) -> None:
    with pytest.raises(ValueError, match="classes must be an integer >= 1, got 0"):
        model(classes=0)


def test_lenet5_caffe_can_be_narrow_from_the_start() -> None:
    shapes = [tuple(p.shape) for p in lenet5_caffe(widths=[2, 5, 50]).parameters() if p.ndim > 1]
    assert shapes == [(2, 1, 5, 5), (5, 2, 5, 5), (50, 80), (10, 50)]


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ((2, 5), r"widths must be three: .* got \(2, 5\)"),
        (7, "widths must be three: .* got 7"),
        ((2, 0, 50), "every one of widths must be an integer >= 1, got 0"),
    ],
)
def test_wrong_widths_are_refused(widths: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lenet5_caffe(widths=widths)  # type: ignore[arg-type]
