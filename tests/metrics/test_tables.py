from __future__ import annotations

import importlib
import pkgutil

import pytest

import torch_bregman.metrics as metrics
from torch_bregman.metrics import text_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = text_table(["a", "long title"], [["wider", "1"], ["x", "22"]], "<>")
    assert lines == ["a      long title", "-----  ----------", "wider           1", "x              22"]


def test_columns_without_a_sign_are_left_aligned_and_not_padded_at_the_end() -> None:
    assert text_table(["n", "note"], [["1", "x"], ["2", ""]], ">") == ["n  note", "-  ----", "1  x", "2"]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(["a"], []) == ["a", "-"]


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs 2 cells, got 1: \['x'\]"):
        text_table(["a", "b"], [["x"]])


def test_no_file_is_named_as_something_exported_beside_it() -> None:
    files = {info.name for info in pkgutil.iter_modules(metrics.__path__)}
    assert not files & set(metrics.__all__)
    assert all(importlib.import_module(f"{metrics.__name__}.{name}") for name in files)
