from __future__ import annotations

import inspect
import pkgutil
import re

import pytest
import torch

import torch_bregman.models as models
from torch_bregman.models import MODELS, build

IMAGE_MODELS = [name for name, model in MODELS.items() if "in_channels" in inspect.signature(model).parameters]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_the_number_of_parameters_is_the_documented_one(name: str) -> None:
    documented = re.search(r"has\s+([\d,]+)\s+parameters", inspect.getdoc(MODELS[name]) or "")
    assert documented is not None
    assert sum(p.numel() for p in build(name).parameters()) == int(documented[1].replace(",", ""))


CLASSIFIERS = [name for name in IMAGE_MODELS if name != "denoiser"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_take_the_same_options(name: str) -> None:
    model = build(name, in_channels=3, size=32, classes=4)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_outputs_are_free_in_sign(name: str) -> None:
    torch.manual_seed(0)
    out = build(name, **({"classes": 50} if name in CLASSIFIERS else {}))(torch.randn(8, 1, 28, 28))
    assert (out < 0).any()
    assert (out > 0).any()


def test_names_are_those_of_the_functions() -> None:
    assert all(getattr(models, name) is function for name, function in MODELS.items())
    assert set(IMAGE_MODELS) == set(MODELS) - {"mlp"}


def test_no_file_is_named_as_something_exported_beside_it() -> None:
    assert not {info.name for info in pkgutil.iter_modules(models.__path__)} & {*models.__all__, *MODELS}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "model 'vgg' is unknown: use one of mlp, convnet"),
        ("convnet", {"width": 2}, "model 'convnet' takes in_channels, classes, size: it has no option 'width'"),
        ("mlp", {}, "model 'mlp' takes sizes, activation, dropout: it needs sizes"),
    ],
)
def test_errors_name_what_there_is(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)
