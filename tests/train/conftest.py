"""Tests of training see no data of this machine, and train on a few hundred images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_bregman.data import load
from torch_bregman.data.idx import write_idx
from torch_bregman.train import Conf


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder, a cache and a working directory of the test's own."""
    monkeypatch.delenv("TORCH_BREGMAN_DATA", raising=False)
    monkeypatch.setenv("TORCH_BREGMAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 200 training and 60 test images of the sample, as idx files."""
    folder, data = tmp_path_factory.mktemp("few"), load("sample")
    for part, split, every in (("train", data.train, 30), ("t10k", data.test, 16)):
        images, labels = split.images[::every, 0].numpy(), split.labels[::every].numpy().astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", np.ascontiguousarray(images))
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture
def tiny(few: Path, tmp_path: Path) -> Callable[..., Conf]:
    """A configuration that trains in no time, with changes: `tiny(optim={"name": "adabreg"})`."""

    def make(**changes: Any) -> Conf:
        plain: dict[str, Any] = {
            "name": "tiny",
            "epochs": 3,
            "out": str(tmp_path / "runs"),
            "threads": 1,
            "data": {"dir": str(few), "batch_size": 30},
            "model": {"hidden": [16]},
            "start": {"density": 0.1},
        }
        for key, value in changes.items():
            merge = isinstance(value, dict) and isinstance(plain.get(key), dict)
            plain[key] = {**plain[key], **value} if merge else value
        return Conf.from_dict(plain)

    return make
