"""The final numbers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from torch_bregman.metrics import count_nonzeros, density, named_weights
from torch_bregman.train.checkpoint import load_checkpoint
from torch_bregman.train.evaluation import judge
from torch_bregman.train.history import Row
from torch_bregman.train.ranks import stored_numbers
from torch_bregman.train.setup import Parts


def summarise(
    parts: Parts, model: nn.Module, rows: list[Row], best: dict[str, float], best_path: Path
) -> dict[str, Any]:
    """Return test loss and metric, and how many weights are left, as plain values.

    Args:
        parts: of the run, after its last epoch.
        model: its network, whole.
        rows: its log.
        best: epoch and metric of the best checkpoint.
        best_path: that checkpoint.
    """
    loss, metric = judge(model, parts.test, parts.task, parts.autocast, shared=True)
    weights = list(named_weights(model).values())
    stored = stored_numbers(parts.model, parts.optimizer, parts.controls)
    summary = {
        "epochs": len(rows),
        f"test_{parts.task.metric}": metric,
        "test_loss": loss,
        "density": density(model),
        "weights": sum(weight.numel() for weight in weights),
        "weights_left": sum(count_nonzeros(weights)),
        **({} if stored is None else {"stored": stored}),
        "seconds": sum(row["seconds"] for row in rows),
        **{key: rows[-1][key] for key in ("flops", "flops_dense") if key in rows[-1]},
        "data": parts.source,
    }
    return {**summary, **_of_best(parts, model, best, best_path)} if parts.validation else summary


def _of_best(parts: Parts, model: nn.Module, best: dict[str, float], path: Path) -> dict[str, Any]:
    """Return the test metric of the epoch that did best on the images held out."""
    final = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(load_checkpoint(path, parts.device)["model"])
    _, metric = judge(model, parts.test, parts.task, parts.autocast, shared=True)
    name = parts.task.metric
    numbers = {
        "best_epoch": best["epoch"],
        f"best_val_{name}": best[name],
        f"best_test_{name}": metric,
        "best_density": density(model),
    }
    model.load_state_dict(final)
    return numbers
