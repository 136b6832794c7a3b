"""A run says what goes wrong while there is time to stop it, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import bregman

from torch_bregman.train import Conf, fit
from torch_bregman.train.remarks import remarks
from torch_bregman.train.setup import Parts, set_up

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing wakes": (
        {"regularizer": {"lam": 50.0}},
        "nothing has woken so far, and at this pace nothing will within 3",
    ),
    "everything wakes": ({"regularizer": {"lam": 1e-5}, "epochs": 8}, "hardly anything sleeps, the density is"),
    "nothing wakes in low rank": (
        {"regularizer": {"name": "nuclear", "lam": 50.0}, "start": {"kind": "low_rank", "rank": 2, "density": 0.01}},
        "nothing has woken so far",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_said(case: str, tiny: Callable[..., Conf]) -> None:
    changes, message = CASES[case]
    rows = fit(tiny(**changes), observers=[]).rows
    said = [row["remarks"] for row in rows if row["remarks"]]
    assert [message in text for text in said].count(True) == 1


def test_of_a_good_run_nothing_is_said(tiny: Callable[..., Conf]) -> None:
    assert not any(row["remarks"] for row in fit(tiny(model={"hidden": [64]}), observers=[]).rows)


def parts_of(conf: Conf) -> tuple[Parts, dict[str, Any]]:
    parts = set_up(conf)
    return parts, {"epoch": 2, "density": 0.5, "layer_density": {"fc1.weight": 0.5, "fc2.weight": 0.5}}


def test_a_layer_that_died_and_a_class_without_input(tiny: Callable[..., Conf]) -> None:
    conf = tiny(start={"kind": "dense", "density": 0.01})
    parts, row = parts_of(conf)
    with torch.no_grad():
        list(parts.model.parameters())[-2][[3, 7]] = 0
    row["layer_density"]["fc1.weight"] = 0.0
    said = remarks(conf, parts, row, [])
    assert said[0].startswith("fc1.weight has no weight left")
    assert said[1].startswith("classes without a live input [3, 7]")
    assert remarks(conf, parts, row, [{"remarks": "; ".join(said)}]) == []


def test_the_command_prints_it(tmp_path: Path, few: Path) -> None:
    options = ["--epochs", "1", "--model.hidden", "[8]", "--data.dir", str(few), "--regularizer.lam", "90"]
    done = bregman("train", *options, cwd=tmp_path)
    assert done.returncode == 0
    assert "note: nothing has woken so far, and at this pace nothing will within 1 epochs: lower" in done.stdout
