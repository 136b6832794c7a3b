"""When weights woke, noted by the command: in the checkpoint, through a stop, and beside the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import frozen

from torch_bregman.train import Conf, RunFolder, fit, load_checkpoint, resume

PLAIN: dict[str, Any] = {
    "epochs": 3,
    "threads": 1,
    "entry_times": 4,
    "data": {"batch_size": 180},
    "model": {"hidden": [30, 12]},
    "start": {"density": 0.05},
    "optim": {"name": "adabreg", "lr": 0.01},
    "target": {"density": 0.2},
}


def times_in(folder: RunFolder) -> dict[str, torch.Tensor]:
    controls = load_checkpoint(folder.last, torch.device("cpu"))["controls"].values()
    (found,) = [each for each in controls if "times" in each]
    return {name: found["times"][key] for key, name in found["names"].items()}


def test_times_are_those_of_what_woke_and_the_log_counts_rows_and_columns(tmp_path: Path) -> None:
    result = fit(Conf.from_dict({**PLAIN, "out": str(tmp_path)}), observers=[])
    times = times_in(result.folder)
    weights = {name: p.detach() for name, p in result.model.named_parameters() if p.ndim > 1}
    assert set(times) == set(weights)
    steps = 3 * 30
    for name, weight in weights.items():
        assert times[name].shape == weight.shape
        assert bool((times[name][weight != 0] >= 0).all())
        later = times[name][times[name] > 0]
        assert len(later) > 0
        assert not (later % 4).any()
        assert int(later.max()) <= steps
        assert result.rows[-1]["layer_rows"][name] == int((weight != 0).any(1).sum())
        assert result.rows[-1]["layer_columns"][name] == int((weight != 0).any(0).sum())


def test_a_run_that_was_stopped_notes_the_same(tmp_path: Path) -> None:
    whole = fit(Conf.from_dict({**PLAIN, "name": "whole", "out": str(tmp_path)}), observers=[])

    class Stop:
        def started(self, *given: object) -> None: ...
        def finished(self, *given: object) -> None: ...
        def close(self) -> None: ...
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Conf.from_dict({**PLAIN, "name": "cut", "out": str(tmp_path)}), observers=[Stop()])
    again = resume("cut", str(tmp_path), observers=[])
    assert frozen(times_in(again.folder)) == frozen(times_in(whole.folder))


def test_without_the_option_nothing_is_noted(tmp_path: Path) -> None:
    result = fit(Conf.from_dict({**PLAIN, "entry_times": 0, "epochs": 1, "out": str(tmp_path)}), observers=[])
    assert "layer_rows" not in result.rows[0]
    with pytest.raises(ValueError, match="not enough values"):
        times_in(result.folder)


def test_dense_training_has_nothing_that_wakes() -> None:
    with pytest.raises(ValueError, match="entry_times needs a Bregman or proximal optimizer, got sgd"):
        Conf.from_dict({"entry_times": 10, "optim": {"name": "sgd"}})
