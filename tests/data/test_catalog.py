from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import torch_bregman.data
from torch_bregman.data import DataError
from torch_bregman.data.catalog import CATALOG, DataFile, lookup


def run(code: str) -> str:
    env = os.environ | {"PYTHONPATH": str(Path(torch_bregman.data.__file__).parents[2])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_facts_are_to_be_had_without_torch_numpy_or_pooch():
    code = (
        "import sys, torch_bregman.data.catalog\n"
        "print([name for name in ('torch', 'numpy', 'pooch') if name in sys.modules])"
    )
    assert run(code) == "[]\n"


def test_listing_and_the_sample_need_neither_torch_nor_pooch():
    code = (
        "import sys; from torch_bregman.data import list_sets\n"
        "from torch_bregman.data.sources import read_set; list_sets(); read_set('sample')\n"
        "print([name for name in ('torch', 'pooch') if name in sys.modules])"
    )
    assert run(code) == "[]\n"


def test_everything_offered_can_be_imported_and_no_submodule_hides_it():
    for name in torch_bregman.data.__all__:
        assert getattr(torch_bregman.data, name).__name__ == name
        assert f"torch_bregman.data.{name}" not in sys.modules
    assert set(torch_bregman.data.__all__) <= set(dir(torch_bregman.data))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = torch_bregman.data.nothing


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(DataError, match="no data set 'minst': choose one of sample, mnist, "):
        lookup("minst")


@pytest.mark.parametrize("info", CATALOG.values(), ids=lambda info: info.name)
def test_facts_fit_together(info):
    channels, height, width = info.shape
    assert len(info.mean) == len(info.std) == channels
    pixels = channels * height * width
    for files, count in zip((info.train, info.test), info.sizes, strict=True):
        if info.format == "idx":
            assert [file.size for file in files] == [16 + count * pixels, 8 + count]
            assert all(len(file.digest) == 64 for file in files)
        else:
            assert sum(file.size for file in files) == count * (pixels + 1)
    assert info.embedded or all(mirror.endswith("/") for mirror in info.mirrors)


def test_a_file_is_told_by_its_digest_else_by_its_size():
    assert DataFile("a", 3).fault(b"abc") is None
    assert DataFile("a", 3).fault(b"ab") == "has 2 bytes, expected 3"
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert DataFile("a", 3, digest=abc).fault(b"abc") is None
    assert DataFile("a", 3, digest="0" * 64).fault(b"abc") == f"has SHA-256 {abc}, expected {'0' * 64}"
