"""The picture of a run."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from torch_bregman.report import draw_curves


def rows(epochs: int, layers: int, kind: str = "val") -> list[dict[str, Any]]:
    names = [f"layer{number}.weight" for number in range(layers)]
    return [
        {
            "epoch": epoch,
            "train_accuracy": 0.5 + epoch / 100,
            f"{kind}_accuracy": 0.4 + epoch / 100,
            "density": epoch / 50,
            "layer_density": dict.fromkeys(names, epoch / 60),
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(("epochs", "layers", "kind"), [(1, 3, "val"), (5, 3, "test"), (3, 40, "val"), (40, 1, "val")])
def test_it_is_a_png_of_its_size(epochs: int, layers: int, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    path = tmp_path / "curves.png"
    assert draw_curves(rows(epochs, layers, kind), path, "a title with λ") == path
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 480)
    assert content.endswith(b"IEND\xaeB`\x82")


def test_it_shows_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    few, more, again = (
        draw_curves(rows(epochs, 3), tmp_path / name, "run").read_bytes()
        for epochs, name in ((5, "few.png"), (9, "more.png"), (5, "again.png"))
    )
    assert few == again
    assert few != more


def test_a_picture_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    path = tmp_path / "curves.png"
    draw_curves(rows(2, 2), path, "run")
    assert [each.name for each in tmp_path.iterdir()] == ["curves.png"]


def test_without_rows_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the log has no epoch yet"):
        draw_curves([], tmp_path / "curves.png", "run")


def test_without_matplotlib_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"matplotlib is not installed: pip install 'torch-bregman\[plot\]'"):
        draw_curves(rows(1, 1), tmp_path / "curves.png", "run")
    assert not (tmp_path / "curves.png").exists()
