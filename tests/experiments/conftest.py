"""An experiment that takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_bregman.experiments import Curves, Experiment, Quantity, Scale, Scatter, Variant

ACCURACY = Quantity("test_accuracy", "test accuracy, %", 100, 1)
DENSITY = Quantity("density", "weights left, %", 100)

BASE = """
epochs: 2
threads: 1
data: {name: sample, batch_size: 300}
model: {hidden: [8]}
start: {density: 0.1}
optim: {name: linbreg, lr: 0.5}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Experiment:
    """Two variants, two seeds, two epochs."""
    config = tmp_path / "tiny.yaml"
    config.write_text(BASE)
    return Experiment(
        name="tiny",
        title="A title",
        about="About it.",
        config=str(config),
        variants=(
            Variant("linbreg", "LinBreg", {}),
            Variant("sgd", "SGD", {"start": {"kind": "dense"}, "optim": {"name": "sgd", "lr": 0.1}}, ("smoke",)),
        ),
        scales={
            "smoke": Scale("Two epochs.", 2, {}),
            "small": Scale("Three epochs.", 1, {"epochs": 3}),
            "full": Scale("Four epochs.", 1, {"epochs": 4}),
        },
        columns=(ACCURACY, DENSITY),
        figures=(
            Curves("curves", "Curves", (Quantity("val_loss", "loss"), DENSITY)),
            Scatter("size", "Size", DENSITY, ACCURACY),
        ),
        marks={"linbreg": {"test_accuracy": 90.0}},
        marks_from="a paper",
    )
