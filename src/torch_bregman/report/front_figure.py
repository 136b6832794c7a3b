"""The picture of a sweep: quality against size of every trial, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch_bregman.sweeps.front import Trial, pareto
from torch_bregman.sweeps.plan import Plan
from torch_bregman.train.atomic import replace_file

_LABELS = {
    "density": "density, %",
    "macs": "multiply-adds an image",
    "stored": "numbers stored",
    "latency": "latency, ms",
    "accuracy": "accuracy on images held out, %",
    "psnr": "PSNR on images held out, dB",
}
_FACTORS = {"density": 100, "accuracy": 100}


def draw_front(plan: Plan, trials: Sequence[Trial], path: Path) -> Path:
    """Draw the trials of a sweep as a PNG.

    Args:
        plan: of the sweep.
        trials: finished ones, at least one.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed: pip install 'torch-bregman[plot]'") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes, front = figure.subplots(), pareto(trials)
    across, up = _FACTORS.get(plan.size, 1), _FACTORS.get(plan.quality, 1)
    axes.plot([across * t.size for t in trials], [up * t.quality for t in trials], "o", color="tab:gray", alpha=0.6)
    points = [across * t.size for t in front], [up * t.quality for t in front]
    axes.step(*points, "o-", where="post", color="tab:red", label="Pareto front")
    axes.set(xlabel=_LABELS[plan.size], ylabel=_LABELS[plan.quality], title=plan.name)
    if min(t.size for t in trials) > 0:
        axes.set_xscale("log")
    axes.legend(loc="lower right")
    replace_file(path, lambda file: figure.savefig(file, dpi=120, format="png"), shared=True)
    return path
