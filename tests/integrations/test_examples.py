"""The examples in the real libraries, and the lines that the documentation says were changed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import torch_bregman as tb

ROOT = Path(__file__).parents[2]
LIBRARY = {
    "lightning_trainer": "lightning",
    "accelerate_loop": "accelerate",
    "hugging_face_trainer": "transformers",
    "skorch_net": "skorch",
    "sklearn_classifier": "sklearn",
}
pytestmark = [
    # Lightning asks for workers of its data loader, which lies in memory here
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),  # Lightning's own use of torch
]


def example(name: str) -> ModuleType:
    pytest.importorskip(LIBRARY[name], reason="the extra integrations is not installed")
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lightning(tmp_path: Path) -> None:
    trainer = example("lightning_trainer").main(
        epochs=1, default_root_dir=tmp_path, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    seen = trainer.callback_metrics
    assert 0.01 < float(seen["density"]) < 0.2
    assert float(seen["density"]) == pytest.approx(tb.density(trainer.model), abs=1e-6)
    assert float(seen["lam"]) == pytest.approx(0.1)
    assert float(seen["train_loss"]) < 1.5


def test_accelerate() -> None:
    model, accuracy = example("accelerate_loop").main(epochs=2)
    assert accuracy > 0.7
    assert 0.01 < tb.density(model) < 0.2


def test_hugging_face() -> None:
    trainer = example("hugging_face_trainer").main(epochs=2)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 2
    assert rows[1]["loss"] < rows[0]["loss"]
    assert rows[1]["density"] == pytest.approx(tb.density(trainer.model))
    assert rows[1]["lam"] == 0.1


def test_skorch() -> None:
    net, accuracy = example("skorch_net").main(epochs=2)
    assert accuracy > 0.7
    assert 0.01 < tb.density(net.module_) < 0.2


def test_scikit_learn() -> None:
    assert example("sklearn_classifier").main(epochs=20) > 0.93


def sections() -> dict[str, list[str]]:
    """The diffs of the documentation, by the example their section names."""
    found: dict[str, list[str]] = {}
    for section in (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        named = re.search(r"examples/(\w+)\.py", section)
        diff = re.search(r"```diff\n(.*?)```", section, re.DOTALL)
        if named and diff:
            found[named[1]] = diff[1].splitlines()
    return found


def test_every_example_has_its_diff() -> None:
    assert sections().keys() == LIBRARY.keys() == {path.stem for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", LIBRARY)
def test_three_changed_lines_that_are_in_the_example(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()
    lines: list[Any] = sections()[name]
    added = [line[1:] for line in lines if line.startswith("+")]
    assert 1 <= len(added) <= 3
    assert all(line in source for line in added)
    assert not any(line[1:] in source for line in lines if line.startswith("-"))
