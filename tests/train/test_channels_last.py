"""Convolutions with the channels of an image beside each other: the same training, faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_bregman.experiments.methods import METHODS
from torch_bregman.train import Conf, fit

CAFFE = {"name": "lenet5_caffe", "hidden": None, "options": {"conv_relu": True}}
SLOW = {"lr": 0.002}
DENSE = {"kind": "dense", "density": 0.01}
"""Few weights make equal maxima, of which pooling takes another one in another format."""
TRAINED: dict[str, dict[str, Any]] = {
    "adabreg": {"target": {"density": 0.02, "every": 2}},
    "rows": {
        "regularizer": {"name": "group_l2", "lam": 0.05, "options": {"view": "rows"}},
        "optim": SLOW,
        "start": DENSE,
    },
    "units": {"target": {"units": 0.4, "every": 2, "ramp": "none"}, "start": DENSE},
    "nuclear": {
        "regularizer": {"name": "nuclear", "lam": 0.02},
        "start": {"kind": "low_rank", "density": 0.01},
        "optim": SLOW,
    },
    "masks": {"optim": {**SLOW, "momentum": 0.9, "multilevel": {"m": 2}}},
    "cycles over units": {
        "optim": {"multilevel": {"m": 2}},
        "target": {"units": 0.4, "every": 2, "ramp": "none"},
        "start": {"kind": "units", "density": 0.4},
    },
}


@pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)
def test_it_is_the_same_training(changes: dict[str, Any], tiny: Callable[..., Conf]) -> None:
    runs = [
        fit(tiny(epochs=2, dtype="float64", model=CAFFE, channels_last=last, **changes), observers=[])
        for last in (False, True)
    ]
    for left, right in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-8)
    weight = runs[1].model.get_parameter("features.conv2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize("method", ["set", "rigl", "static", "pruning-sgd", "one-shot", "proxsgd"])
def test_so_it_is_for_baselines(method: str, tiny: Callable[..., Conf]) -> None:
    chosen = METHODS[method]
    variant = chosen.variant("v", "v", chosen.usual, 0.1)
    models = []
    for last in (False, True):
        conf = tiny(epochs=2, dtype="float64", model=CAFFE, channels_last=last, **without_start(variant.changes))
        models.append(fit(conf, observers=[], controls=variant.controls).model)
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-8)


def without_start(changes: Any) -> dict[str, Any]:
    return {**changes, "start": DENSE}


def test_without_convolutions_it_is_refused(tiny: Callable[..., Conf]) -> None:
    with pytest.raises(ValueError, match="channels_last has no effect on model 'mlp', without convolutions"):
        fit(tiny(channels_last=True), observers=[])
