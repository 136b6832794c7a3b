from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from torch_bregman.models import convnet


def test_is_the_network_of_the_paper() -> None:
    model, x = convnet(), torch.randn(2, 1, 28, 28)
    conv1, conv2 = model.features.conv1, model.features.conv2
    hidden = max_pool2d(conv2(max_pool2d(conv1(x), 2).relu()), 2).relu().flatten(1)
    assert hidden.shape == (2, 1024)
    torch.testing.assert_close(model(x), model.classifier.fc2(model.classifier.fc1(hidden).relu()))
    assert isinstance(model.classifier[-1], nn.Linear)


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 10, 28), (3, 7, 32), (2, 1, 16), (1, 2, 17)])
def test_fits_other_images(channels: int, classes: int, size: int) -> None:
    assert convnet(channels, classes, size)(torch.zeros(2, channels, size, size)).shape == (2, classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "size must be an integer >= 16, got 15"),
        ({"in_channels": 0}, "in_channels must be an integer >= 1, got 0"),
        ({"classes": 2.5}, "classes must be an integer >= 1, got 2.5"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convnet(**options)
