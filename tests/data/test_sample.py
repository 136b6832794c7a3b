from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from torch_bregman.data import load

FULL = os.environ.get("TORCH_BREGMAN_DATA")  # before the tests' own fixture takes it away


def test_shapes_balance_and_source():
    data = load()
    assert data.name == "sample"
    assert data.source == "embedded sample"
    assert data.shape == (1, 28, 28)
    assert data.train.images.shape == (6000, 1, 28, 28)
    assert data.test.images.shape == (1000, 1, 28, 28)
    assert data.train.labels.bincount().tolist() == [600] * 10
    assert data.test.labels.bincount().tolist() == [100] * 10
    assert data.train.labels.dtype == torch.int64


def test_moments_of_the_full_set_describe_it():
    data = load()
    x = data.train.images.double() / 255
    assert abs(x.mean() - data.mean[0]) < 0.002
    assert abs(x.std() - data.std[0]) < 0.002


def test_no_image_is_there_twice_or_in_both_parts():
    data = load()
    images = torch.cat([data.train.images, data.test.images])
    assert len({image.numpy().tobytes() for image in images}) == 7000


def test_it_is_small_and_its_licence_lies_beside_it():
    folder = files("torch_bregman.data") / "sample"
    sizes = {path.name: len(path.read_bytes()) for path in folder.iterdir()}
    assert sum(sizes.values()) < 1_500_000
    assert set(sizes) == {
        "LICENSE",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    }
    licence = (folder / "LICENSE").read_text()
    assert all(word in licence for word in ("Yann LeCun", "Corinna Cortes", "NIST", "CC BY-SA 3.0"))


def test_a_pixel_network_of_one_layer_learns_it():
    """Labels belong to their images: a linear classifier gets far beyond chance."""
    data = load()
    x, y = (part.images.flatten(1).float() / 255 for part in (data.train, data.test))
    targets = torch.nn.functional.one_hot(data.train.labels).float()
    ridge = 10.0 * torch.eye(784)
    weights = torch.linalg.solve(x.T @ x + ridge, x.T @ (targets - 0.1))
    assert ((y @ weights).argmax(1) == data.test.labels).float().mean() > 0.75


@pytest.mark.skipif(FULL is None, reason="the full MNIST is needed: name its folder in TORCH_BREGMAN_DATA")
def test_every_image_is_one_of_mnist(monkeypatch):
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(Path(str(FULL)).absolute()))
    sample, full = load("sample"), load("mnist", download=False)
    for part in ("train", "test"):
        ours, theirs = getattr(sample, part), getattr(full, part)
        known = set(zip(map(bytes, theirs.images.numpy()), theirs.labels.tolist(), strict=True))
        assert set(zip(map(bytes, ours.images.numpy()), ours.labels.tolist(), strict=True)) < known
