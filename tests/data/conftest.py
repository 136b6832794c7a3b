"""Tests of data see no data of this machine, and a small set of their own."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from torch_bregman.data import catalog

# a busy machine is no failure
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def idx_bytes(array: np.ndarray) -> bytes:
    """An idx file of uint8 items, spelt out after the format's description."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(name="idx_bytes")
def _idx_bytes():
    return idx_bytes


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No data folder, a cache and a working directory of the test's own."""
    monkeypatch.delenv("TORCH_BREGMAN_DATA", raising=False)
    monkeypatch.setenv("TORCH_BREGMAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@dataclass
class Made:
    """A made-up data set: its record, its arrays and its files."""

    info: catalog.SetInfo
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path, **changed: bytes | None) -> Path:
        """Its files in a folder; `changed` by part of the name, None to leave one out."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            key = next((key for key in changed if key in name.replace("-", "_")), None)
            content = content if key is None else changed[key]
            if content is not None:
                (folder / name).write_bytes(content)
        return folder

    def server(self, suffix: str = ".gz"):
        """A downloader that knows the files of every mirror, and the list of addresses asked for."""
        asked: list[str] = []

        def downloader(url: str, path: Path) -> None:
            asked.append(url)
            path.write_bytes(gzip.compress(self.contents[url.rsplit("/", 1)[1].removesuffix(suffix)]))

        return downloader, asked


def _record(name: str, content: bytes) -> catalog.DataFile:
    return catalog.DataFile(name, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def tiny(monkeypatch) -> Made:
    """A set `tiny` of 12 + 6 images, 5 × 4 pixels, three classes, in idx files, with two mirrors."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", 12), ("t10k", 6)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 3
    contents = {name: idx_bytes(array) for name, array in arrays.items()}
    files = [_record(name, content) for name, content in contents.items()]
    info = catalog.SetInfo(
        name="tiny",
        about="made up",
        licence="none",
        format="idx",
        train=(files[0], files[1]),
        test=(files[2], files[3]),
        sizes=(12, 6),
        shape=(1, 5, 4),
        num_classes=3,
        mean=(0.5,),
        std=(0.25,),
        mirrors=("https://one.invalid/", "https://two.invalid/"),
        folders=("data/Tiny/raw",),
    )
    monkeypatch.setitem(catalog.CATALOG, "tiny", info)
    return Made(info, arrays, contents)


@pytest.fixture
def tiny_cifar(monkeypatch) -> Made:
    """A set `tiny-cifar` in CIFAR-10's format: files of four records."""
    rng = np.random.default_rng(1)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    contents, arrays = {}, {}
    for name in names:
        records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] = rng.integers(0, 10, 4)
        arrays[name], contents[name] = records, records.tobytes()
    files = tuple(catalog.DataFile(name, 4 * 3073) for name in names)
    info = catalog.SetInfo(
        name="tiny-cifar",
        about="made up",
        licence="none",
        format="cifar",
        train=files[:5],
        test=files[5:],
        sizes=(20, 4),
        shape=(3, 32, 32),
        num_classes=10,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        mirrors=("https://one.invalid/",),
        archive=catalog.Archive("tiny.tar.gz", md5="unset"),
    )
    monkeypatch.setitem(catalog.CATALOG, "tiny-cifar", info)
    return Made(info, arrays, contents)
